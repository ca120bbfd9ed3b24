"""The command from end to end: the shipped model to PyTorch and back."""

import dataclasses
import json

import pytest
import safetensors.numpy
import small_models

from unitemp_jax.cli import main as cli
from unitemp_jax.convert import folder
from unitemp_jax.sampling import model_folder

TINY = model_folder.TINY
CONFIG = f'--config={TINY.parents[2] / "configs" / "tiny_distill.py"}'


def run(*arguments):
  assert cli.main(['convert', *map(str, arguments)]) == 0


def bits(path):
  arrays = safetensors.numpy.load_file(path)
  return {n: (a.shape, a.dtype.name, a.tobytes()) for n, a in arrays.items()}


CHECKPOINTS = {
  'wan': (
    'diffusion_pytorch_model.safetensors.index.json',
    'Wan2.1_VAE.pth',
    'models_t5_umt5-xxl-enc-bf16.pth',
  ),
  'diffusers': ('transformer', 'vae', 'text_encoder'),
}


def with_pytorch(layout):
  """Skips what writes a `.pt` where PyTorch is not there."""
  if layout == 'wan':
    pytest.importorskip('torch')


@pytest.mark.parametrize('layout', CHECKPOINTS)
def test_the_shipped_model_comes_back(layout, tmp_path, capsys):
  """Several files with an index, `.pth` files: every bit returns."""
  with_pytorch(layout)
  out, back = tmp_path / 'out', tmp_path / 'back'
  export = (f'--model={TINY}', f'--to={layout}', f'--out={out}')
  run(*export, '--networks=student,vae,text', '--max_shard_gb=0.002')
  before = {p: p.stat().st_mtime_ns for p in out.rglob('*safetensors')}
  run(*export, '--networks=student,vae,text', '--max_shard_gb=0.002')
  assert before == {p: p.stat().st_mtime_ns for p in before}  # were there
  student, vae, text = (out / name for name in CHECKPOINTS[layout])
  given = (f'--student={student}', f'--vae={vae}', f'--text={text}')
  given += (f'--tokenizer={TINY / "tokenizer.json"}', CONFIG)
  run(*given, f'--out={back}')
  for name in ('student', 'vae', 'text'):
    file = f'{name}.safetensors'
    assert bits(back / file) == bits(TINY / file)
  card, shipped = (model_folder.read_card(f) for f in (back, TINY))
  # How many layers a loop runs at once is no part of the network.
  dit = dataclasses.replace(card.dit, unroll=shipped.dit.unroll)
  assert (dit, card.text) == (shipped.dit, shipped.text)
  assert (card.frames, card.height) == (shipped.frames, shipped.height)
  assert set(card.provenance['converted']) == {'student', 'vae', 'text'}
  assert 'next: unitemp generate' in capsys.readouterr().out


def test_a_self_forcing_file_prefers_the_running_mean(tmp_path, capsys):
  with_pytorch('wan')
  run(f'--model={TINY}', '--to=self_forcing', f'--out={tmp_path}')
  out = tmp_path / 'student_init.safetensors'
  run(f'--student={tmp_path / "student.pt"}', CONFIG, f'--out={out}')
  assert bits(out) == bits(TINY / 'student.safetensors')
  assert "under 'generator_ema.model.'" in capsys.readouterr().out
  # The second time nothing is written; other weights are not overwritten.
  run(f'--student={tmp_path / "student.pt"}', CONFIG, f'--out={out}')
  assert 'there already' in capsys.readouterr().out
  again = ['convert', f'--student={tmp_path / "student.pt"}', CONFIG]
  assert cli.main([*again, '--dtype=float32', f'--out={out}']) == 2


def write_config(folder, dtype='float32'):
  """A config of the sizes of `small_models`."""
  (folder / 'small.py').write_text(
    'import small_models, dataclasses\n'
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    '  s = small_models.CONFIGS\n'
    '  config = ConfigDict({"model": {"dit": dataclasses.asdict(s["dit"]),'
    ' "text": dataclasses.asdict(s["umt5"])}})\n'
    f'  config.model.dit.dtype = "{dtype}"\n'
    '  return config\n'
  )
  return f'--config={folder / "small.py"}'


def test_a_student_of_others_keeps_the_regime_of_its_training(tmp_path, capsys):
  """Self-Forcing: forward, no anchors, no sinks, 21 latents in view."""
  source = tmp_path / 'dit.safetensors'
  small_models.write(source, small_models.state_dict('dit', 'wan'))
  for dtype in ('float32', 'bfloat16'):
    out = tmp_path / dtype
    run(f'--student={source}', write_config(tmp_path, dtype), f'--out={out}')
    fields = json.loads((out / 'model.json').read_text())
    assert fields['dit']['dtype'] == dtype  # What the config asks for.
    card = folder.new_card({})  # Of Wan's sizes, to be generated with.
    for name in ('orders', 'anchors', 'window', 'sinks', 'block', 'start'):
      kept = fields[name]
      assert (tuple(kept) if name == 'orders' else kept) == getattr(card, name)
  assert (card.orders, card.anchors) == (('forward',), 0)
  assert (card.window + card.block, card.sinks) == (21, 'none')
  assert card.untrained('forward') is None
  assert 'forward only' in card.untrained('backward')
  assert model_folder.problem_of(card) is None
  # One that was exported from here has learned all orders.
  back = tmp_path / 'back'
  run(f'--model={out / "student.safetensors"}', '--to=diffusers',
      write_config(tmp_path), f'--out={tmp_path / "sent"}')  # fmt: skip
  run(f'--student={tmp_path / "sent" / "transformer"}', write_config(tmp_path),
      f'--out={back}')  # fmt: skip
  fields = json.loads((back / 'model.json').read_text())
  assert (fields['orders'], fields['anchors'], fields['sinks']) == (
    [],
    3,
    'both',
  )
  capsys.readouterr()
  # Its header says how many heads it has, wherever it is taken to.
  arguments = [f'--student={tmp_path / "sent" / "transformer"}']
  arguments += [write_config(tmp_path), '--config.model.dit.num_heads=4']
  arguments += [f'--out={tmp_path / "w"}']
  assert cli.main(['convert', *arguments]) == 2
  assert 'says that it has 2 heads' in capsys.readouterr().err


def test_teacher_and_text_encoder_as_one_file(tmp_path):
  """What `config.teacher` takes; a folder's card goes with its networks."""
  write_config(tmp_path)
  for kind in ('dit', 'umt5'):
    given = small_models.state_dict(kind, 'diffusers')
    small_models.write(tmp_path / f'{kind}.safetensors', given)
  inputs = (
    f'--teacher={tmp_path / "dit.safetensors"}',
    f'--text={tmp_path / "umt5.safetensors"}',
    f'--config={tmp_path / "small.py"}',
  )
  run(*inputs, f'--out={tmp_path / "teacher.safetensors"}')
  names = set(bits(tmp_path / 'teacher.safetensors'))
  assert 'dit.blocks.self_attn.q.kernel' in names
  assert 'text.layer1.q.kernel' in names
  run(*inputs, f'--out={tmp_path / "folder"}')
  fields = json.loads((tmp_path / 'folder' / 'model.json').read_text())
  assert fields['dit']['dim'] == small_models.CONFIGS['dit'].dim
  assert fields['provenance']['converted']['teacher']['layout'] == 'diffusers'
