"""Memory reports, their text and files, and the exit codes."""

import dataclasses
import json
import pathlib
import sys

import pytest

from unitemp_jax import files
from unitemp_jax.aot import compiler, memory_report, steps, table, topology
from unitemp_jax.aot.hlo import Traffic
from unitemp_jax.aot.memory_report import GIB, MemoryReport
from unitemp_jax.aot.step import Step
from unitemp_jax.cli import aot
from unitemp_jax.cli.main import main
from unitemp_jax.errors import UserError
from unitemp_jax.models.flops import Flops

ROOT = pathlib.Path(__file__).parents[2]
DISTILL = ROOT / 'configs' / 'wan_1p3b_distill.py'
V5E = topology.parse('v5e:4x4')


def step_of(name='critic_only', **changes):
  """16 chips of peak arithmetic for a second; 3 GiB of arguments."""
  fields = {
    'arguments': {'parameters student': GIB, 'optimizer student': 2 * GIB},
    'resident': {},
    'flops': Flops(16 * 197e12 - 1e12, 1e12),
    'loops': 1,
    'mesh': {'data': 1, 'fsdp': 8, 'context': 2},
    'rows': 8,
    'share': 4,
  }
  return Step(name, lambda: None, **{**fields, **changes})


def compiled(peak=10.0, name='critic_only', traffic=None, resident=None):
  default = [Traffic('all-gather', 2, 60.0, 4e9, 0.0)]
  return memory_report.step_report(
    step_of(name, resident=resident or {}),
    compiled=True,
    peak=int(peak * GIB),
    scratch=9 * GIB,
    compile_seconds=30.0,
    traffic=default if traffic is None else traffic,
    largest=[],
  )


def report_of(*steps, **changes):
  fields = {
    'config': 'configs/wan_1p3b_distill.py',
    'overrides': [],
    'topology': 'v5e:4x4',
    'slices': 1,
    'chips': 16,
    'chip_gib': 15.75,
    'layers': None,
    'mode': 'exact',
    'versions': {'jax': '1'},
  }
  return MemoryReport(**{**fields, **changes}, steps=list(steps))


@pytest.fixture(autouse=True)
def sizes_are_numbers(monkeypatch):
  """Trees of these steps are their sizes in bytes."""
  monkeypatch.setattr(memory_report, 'device_bytes', lambda size: size)


@pytest.mark.parametrize(
  ('peak', 'word', 'fits'),
  [
    (10.0, 'fits', True),
    (12.59, 'fits', True),
    (12.61, 'fits with less than 20 % to spare', True),
    (15.76, 'DOES NOT FIT', False),
  ],
)
def test_the_outcome_is_about_the_chip_and_its_headroom(peak, word, fits):
  found = report_of(compiled(peak))
  assert found.outcome(found.steps[0]) == word
  assert found.fits == fits


def test_numbers_follow_from_what_the_compiler_says():
  step = compiled(resident={'vae': GIB // 2})
  assert step.peak_gib == pytest.approx(10.5)
  assert step.activations_gib == pytest.approx(7)


def test_the_least_effort_has_no_verdict():
  for peak in (1.0, 40.0):
    found = report_of(compiled(peak), mode='fast')
    assert found.fits and 'no verdict' in found.summary()
    text = found.text()
    assert 'no verdict' in text and 'FIT' not in text and 'fits' not in text


def test_what_does_not_fit_is_named_with_what_to_change():
  found = report_of(compiled(40.0), compiled(9.0, 'small'))
  text = found.text()
  assert 'critic_only: 40.00 of 15.75 GiB per device, DOES NOT FIT' in text
  assert 'activations 37.00, optimizer student 2.00' in text
  assert (
    'to change: activations (37.00 GiB): more devices along context' in text
  )
  assert 'to change: optimizer student (2.00 GiB): more devices along f' in text
  assert 'compiled for v5e:4x4, not run; normal effort' in text
  sentence = found.summary()
  assert sentence.startswith('critic_only does not fit v5e:4x4: it needs 40.0')
  assert '\n' not in sentence
  fine = report_of(compiled(9.0)).text()
  assert 'to change' not in fine


def test_the_compilers_complaint_is_read():
  message = (
    'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in '
    'memory space hbm. Used 41.40G of 31.25G hbm. Exceeded by 10.15G.\n\n'
    'Largest program allocations in hbm:\n\n'
    '  1. Size: 15.00G\n     Operator: op_name="jit(f)/dot_general"\n'
    '     Shape: bf16[4,12,32768]{2,1,0}\n     Unpadded size: 15.00G\n\n'
    '  2. Size: 512.00M\n     Shape: f32[8]{0}\n'
  )
  peak, largest = compiler.read_exhausted(message)
  assert peak == int(41.4 * GIB)
  assert largest == [
    '15.00 GiB bf16[4,12,32768] of jit(f)/dot_general',
    '0.50 GiB f32[8]',
  ]
  short = (
    'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required '
    'for HLO temporaries (26.44G) exceeds available HBM (15.75G).'
  )
  assert compiler.read_exhausted(short) == (int(26.44 * GIB), [])
  assert compiler.read_exhausted('something else') == (0, [])


def test_a_file_holds_it_and_the_launcher_reads_it(tmp_path, monkeypatch):
  found = report_of(compiled(), compiled(14.0, 'decode'))
  path = tmp_path / 'sub' / 'report.json'
  memory_report.write(path, found)
  assert memory_report.read(path) == found
  monkeypatch.syspath_prepend(str(ROOT / 'launch'))
  from pod import cost, hardware

  lines, fits = cost.memory_lines(path, hardware.parse('v5litepod-16', 1))
  assert fits
  assert lines[1:] == [
    '  critic_only: 10.00 of 15.75 GiB per chip, fits',
    '  decode: 14.00 of 15.75 GiB per chip, fits with less than 20 % to spare',
  ]
  memory_report.write(path, dataclasses.replace(found, mode='fast'))
  lines, fits = cost.memory_lines(path, hardware.parse('v5litepod-16', 1))
  assert fits and 'compile without --fast' in lines[0]
  for name in [name for name in sys.modules if name.startswith('pod')]:
    monkeypatch.delitem(sys.modules, name)
  memory_report.write(path, found)
  fields = files.read_json(path)
  assert memory_report.read(path) == found
  for name, value, what in (
    *(('steps', [5], '5 stands in it'), ('topology', None, 'None stands')),
    *(('chip_gib', 'x', "'x' stands in it"), ('versions', {'jax': 1}, '1 st')),
  ):
    files.write_json(path, {**fields, name: value})
    with pytest.raises(UserError, match=f'as a memory report .{what}'):
      memory_report.read(path)
  path.write_text('{"steps": []}')
  with pytest.raises(UserError, match="it lacks 'config'"):
    memory_report.read(path)


@pytest.fixture
def no_compiler(monkeypatch):
  """Steps and their compilation without libtpu; records what is compiled."""
  made = []

  def run(step, target, fast, schedules):
    made.append((step.name, str(target), fast))
    return compiled(made_peak[0], step.name)

  made_peak = [10.0]
  monkeypatch.setattr(topology, 'devices', lambda target: [])
  monkeypatch.setattr(
    aot.compiler.importlib.metadata, 'version', lambda name: '1'
  )
  monkeypatch.setattr(
    steps,
    'steps_of',
    lambda config, names, devices, mesh: [step_of(name) for name in names],
  )
  monkeypatch.setattr(compiler, 'run', run)
  return made, made_peak


def command(*more):
  return ['aot', f'--config={DISTILL}', '--topology=v5e:4x4', *more]


def test_exit_codes(no_compiler, capsys, tmp_path):
  made, peak = no_compiler
  out = tmp_path / 'r.json'
  assert main(command('--steps=train', f'--out={out}')) == 0
  assert made == [('train', 'v5e:4x4', False)]
  assert json.loads(out.read_text())['topology'] == 'v5e:4x4'
  assert '37 % of the memory is left; 20 % kept' in capsys.readouterr().out
  peak[0] = 100.0
  assert main(command('--slices=2')) == aot.EXIT_DOES_NOT_FIT == 3
  assert made[-1] == ('encode', '2 x v5e:4x4', False)
  assert 'does not fit v5e:4x4' in capsys.readouterr().out


BAD = [
  (['aot'], '--config is missing'),
  (['aot', f'--config={DISTILL}'], '--topology is missing'),
  (command('--topology=v5e:3x3'), 'does not exist'),
  (command('--slices=0'), 'too few'),
  (command('--depth=31'), '--depth=31 must be 1 to 30'),
  (command('--config.mesh.fdsp=2'), 'did you mean mesh.fsdp'),
  (['aot', '--table=nowhere.yaml'], 'no file nowhere'),
  (['aot', '--table=a.yaml', '--config=b'], 'leave one of them'),
  (command('--mesh=contex=4'), 'axes are data, fsdp, context'),
  (command('--mesh=context=0'), 'such as context=4'),
  (command('--search=0'), '0 is too few'),
  (command('--search=2', '--steps=block'), 'of the training'),
  (command('--search=2', '--config.batch_size=7'), 'multiple of 16'),
]


@pytest.mark.parametrize(('argv', 'says'), BAD)
def test_bad_input_is_one_sentence_before_any_compile(
  no_compiler, argv, says, capsys
):
  assert main(argv) == 2
  error = capsys.readouterr().err.strip()
  assert says in error
  notes = 'is there again' in error
  assert error.count('\n') == notes
  assert not no_compiler[0]


LIST = """tables:
  Distillation:
    - {name: a, config: CONFIG, topology: 'v5e:4x4', steps: [train]}
growth:
  Growth:
    - name: b
      config: CONFIG
      topology: v5p:2x2x2
      steps: [critic_only]
      overrides: [batch_size=8]
"""


def test_a_table_compiles_what_is_missing_once(no_compiler, tmp_path, capsys):
  made, _ = no_compiler
  path, page = tmp_path / 'table.yaml', tmp_path / 'tables.md'
  path.write_text(LIST.replace('CONFIG', str(DISTILL)))
  argv = ['aot', f'--table={path}', f'--markdown={page}']
  assert main([*argv, '--known']) == 0
  assert not made
  assert 'Not compiled: a.' in page.read_text()
  assert main(argv) == 0
  assert [step for step, _, _ in made] == ['train', 'critic_only']
  first = page.read_text()
  assert '| 10.00 of 15.75 | fits |' in first and 'not run' in first
  assert '| 8 | v5p:2x2x2 |' in first and '| 3.000 | 24.0 | 10.00 |' in first
  assert main(argv) == 0
  assert len(made) == 2 and page.read_text() == first
  # Another entry of the same name is another program.
  path.write_text(path.read_text().replace('batch_size=8', 'batch_size=16'))
  assert main(argv) == 0
  assert len(made) == 3
  path.write_text(path.read_text().replace('name: b', 'name: a'))
  capsys.readouterr()
  assert main(argv) == 2
  assert "two entries 'a'" in capsys.readouterr().err


def test_what_is_committed_is_what_the_list_asks_for():
  listed = table.read_list(ROOT / 'configs' / 'aot' / 'table.yaml')
  assert listed.entries
  for path in listed.results.glob('*.json'):
    (entry,) = [e for e in listed.entries if e.name == path.stem]
    assert entry.is_of(memory_report.read(path))
