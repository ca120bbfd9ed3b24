"""The command from end to end: the shipped model to PyTorch and back."""

import json

import pytest
import safetensors.numpy
import small_models

from unitemp_jax.cli import main as cli
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


@pytest.mark.parametrize('layout', CHECKPOINTS)
def test_the_shipped_model_comes_back(layout, tmp_path, capsys):
  """Several files with an index, `.pth` files: every bit returns."""
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
  assert (card.dit, card.text) == (shipped.dit, shipped.text)
  assert (card.frames, card.height) == (shipped.frames, shipped.height)
  assert set(card.provenance['converted']) == {'student', 'vae', 'text'}
  assert 'next: unitemp generate' in capsys.readouterr().out


def test_a_self_forcing_file_prefers_the_running_mean(tmp_path, capsys):
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


def test_teacher_and_text_encoder_as_one_file(tmp_path):
  """What `config.teacher` takes; a folder's card goes with its networks."""
  (tmp_path / 'small.py').write_text(
    'import small_models, dataclasses\n'
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    '  s = small_models.CONFIGS\n'
    '  return ConfigDict({"model": {"dit": dataclasses.asdict(s["dit"]),'
    ' "text": dataclasses.asdict(s["umt5"])}})\n'
  )
  for kind in ('dit', 'umt5'):
    given = small_models.state_dict(kind, 'diffusers')
    small_models.write_pt(tmp_path / f'{kind}.pt', given)
  inputs = (
    f'--teacher={tmp_path / "dit.pt"}',
    f'--text={tmp_path / "umt5.pt"}',
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
