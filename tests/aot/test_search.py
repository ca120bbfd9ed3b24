"""Search of a layout: what divides, what it needs, which one is named."""

import pathlib

import jax
import pytest

from unitemp_jax.aot import memory_report, search, topology
from unitemp_jax.cli.main import main
from unitemp_jax.parallel.mesh import check_rows, make_mesh
from unitemp_jax.training.config import load_config

pytestmark = pytest.mark.devices(8)

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
TINY = f'{CONFIGS / "tiny_teacher.py"}:test'
V6E = topology.parse('v6e:2x4')


def test_every_candidate_divides():
  for config in (TINY, CONFIGS / 'wan_1p3b_distill.py'):
    config = load_config(str(config), [])
    found = search.candidates(config, 8, 1)
    assert len({one.name for one in found}) == len(found) > 3
    for one in found:
      axes = dict(zip(('data', 'fsdp', 'context'), one.mesh, strict=True))
      check_rows(config.batch_size, make_mesh(axes), one.accumulate)
      assert config.model.dit.num_heads % one.mesh[2] == 0
    # Only rows may go from slice to slice.
    assert all(one.mesh[0] % 2 == 0 for one in search.candidates(config, 8, 2))


def test_estimates_follow_memory_and_time():
  config = load_config(str(CONFIGS / 'wan_1p3b_distill.py'), [])
  estimate = search.Estimate(config, V6E, jax.devices())

  def of(mesh, accumulate, remat):
    return estimate.of(search.Candidate(mesh, accumulate, remat))

  base = of((1, 4, 2), 8, 'full')
  assert of((1, 4, 2), 16, 'full').gib < base.gib  # Fewer rows at a time,
  assert of((1, 4, 2), 16, 'full').seconds > base.seconds  # weights go oftener.
  assert of((1, 4, 2), 8, 'none').gib > base.gib
  assert of((1, 4, 2), 8, 'none').seconds < base.seconds
  assert of((2, 2, 2), 8, 'full').gib > base.gib  # Weights lie there twice.
  step, chosen, _ = search.best(config, V6E, jax.devices(), 3)
  assert step == 'student_and_critic' and len(chosen) == 3
  assert all(one.gib <= V6E.chip.gib for one in chosen)


@pytest.mark.slow
def test_the_best_of_a_tiny_training(tmp_path, monkeypatch, capsys):
  """Compiled for eight fake devices; what is there is not compiled again."""
  monkeypatch.setattr(topology, 'devices', lambda target: jax.devices())
  out = tmp_path / 'best.json'
  argv = ['aot', f'--config={TINY}', '--topology=v6e:2x4', f'--out={out}']
  argv += ['--fast', '--config.batch_size=8']
  assert main([*argv, '--search=2']) == 0
  text = capsys.readouterr().out
  (pasted,) = [line for line in text.splitlines() if line.startswith('use: ')]
  best = memory_report.read(out)
  for word in pasted.split()[1:]:
    assert word.removeprefix('--config.') in best.overrides
  kept = sorted((tmp_path / 'best').iterdir())
  assert len(kept) == 2 and text.count('compiling') == 2
  times = [path.stat().st_mtime_ns for path in kept]
  assert main([*argv, '--search=2']) == 0
  assert 'compiling' not in capsys.readouterr().out
  assert times == [path.stat().st_mtime_ns for path in kept]
  # The pasted overrides are lawful ones of the training itself.
  load_config(TINY, pasted.split()[1:])
  assert main([*argv, '--search=2', '--config.seed=5']) == 2
  assert 'of another search' in capsys.readouterr().err
