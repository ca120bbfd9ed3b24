"""What does not fit is refused in one sentence, and nothing is written."""

import json

import numpy as np
import pytest
import safetensors.numpy
import small_models

from unitemp_jax.cli import main as cli
from unitemp_jax.convert import fit, load_torch, sources
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes
from unitemp_jax.sampling import model_folder

# A config with the sizes of `small_models`.
CONFIG = """
import dataclasses
from ml_collections import ConfigDict
import small_models

def get_config():
  names = {'dit': 'dit', 'vae': 'vae', 'text': 'umt5'}
  return ConfigDict({'model': {
    name: dataclasses.asdict(small_models.CONFIGS[kind])
    for name, kind in names.items()
  }})
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Checkpoints, good and bad, in the current folder."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'small.py').write_text(CONFIG)
  for kind in small_models.CONFIGS:
    given = small_models.state_dict(kind, 'wan')
    small_models.write_pt(tmp_path / f'{kind}.pt', given)
    safetensors.numpy.save_file(given, tmp_path / f'{kind}.safetensors')
  whole = (tmp_path / 'dit.pt').read_bytes()
  (tmp_path / 'cut.pt').write_bytes(whole[: len(whole) // 2])
  whole = (tmp_path / 'dit.safetensors').read_bytes()
  (tmp_path / 'cut.safetensors').write_bytes(whole[: len(whole) - 8])
  (tmp_path / 'text.pt').write_text('not a checkpoint')
  (tmp_path / 'weights.onnx').write_text('')
  (tmp_path / 'evil.pt').write_bytes(b'cos\nsystem\n(S"touch ran"\ntR.')
  parts = tmp_path / 'parts'
  parts.mkdir()
  index = {'weight_map': {'a': 'one.safetensors', 'b': 'two.safetensors'}}
  (parts / 'm.safetensors.index.json').write_text(json.dumps(index))
  integers = {k: np.ones(3, int) for k in small_models.state_dict('dit', 'wan')}
  small_models_file = tmp_path / 'integers.safetensors'
  safetensors.numpy.save_file(integers, small_models_file)
  image = {'time_projection.1.weight': np.ones((6, 1), np.float32)}
  image['img_emb.proj.0.weight'] = np.ones(3, np.float32)
  safetensors.numpy.save_file(image, tmp_path / 'i2v.safetensors')
  return tmp_path


def snapshot(folder):
  """Every file and its bytes."""
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file() and '__pycache__' not in path.parts
  }


SMALL = '--config=small.py --out=new'
CASES = [
  ('nothing given', '--out=new', 'see unitemp convert --help'),
  ('both ways', '--student=dit.pt --model=x --out=new', 'either checkpoints'),
  ('no file', f'--student=none.pt {SMALL}', 'no checkpoint none.pt'),
  ('other file', f'--student=weights.onnx {SMALL}', 'weights.onnx'),
  ('cut .pt', f'--student=cut.pt {SMALL}', 'cut.pt is cut off'),
  ('cut file', f'--student=cut.safetensors {SMALL}', 'cut.safetensors cannot'),
  ('text', f'--student=text.pt {SMALL}', 'text.pt is no PyTorch file'),
  ('old pickle', f'--student=evil.pt {SMALL}', 'evil.pt'),
  ('missing parts', f'--student=parts {SMALL}', '2 of them are missing'),
  ('whole folder', f'--student=. {SMALL}', 'name the one file to read'),
  (
    'VAE as student',
    f'--student=vae.pt {SMALL}',
    'but a vae in the layout wan',
  ),
  ('layout', f'--student=dit.pt --layout=diffusers {SMALL}', 'diffusers'),
  ('part', f'--student=dit.pt --part=critic {SMALL}', "under 'critic'"),
  ('size', '--student=dit.pt --out=new', 'size that was not published'),
  ('image model', '--student=i2v.safetensors --out=new', 'image-to-video'),
  ('whole numbers', f'--student=integers.safetensors {SMALL}', 'wrong'),
  ('second is bad', f'--vae=vae.pt --student=cut.pt {SMALL}', 'cut.pt'),
  ('no tokenizer', f'--vae=vae.pt --tokenizer=no.json {SMALL}', 'no.json'),
  ('parts', f'--student=dit.pt --fsdp=3 {SMALL}', 'change --fsdp'),
  ('no parts', f'--student=dit.pt --fsdp=0 {SMALL}', '--fsdp is 0'),
  (
    'one file for two',
    '--vae=vae.pt --student=dit.pt --config=small.py --out=new.safetensors',
    'give a folder',
  ),
  ('overrides', '--vae=vae.pt --out=new --config.model.x=1', 'needs --config'),
  ('no target', '--model=dit.safetensors --out=new', '--to'),
  ('not ours', '--model=dit.safetensors --to=wan --out=new', 'none of our'),
  ('no folder', '--model=none --to=wan --out=new', 'no weights at none'),
  ('no card', '--model=parts --to=wan --out=new', 'not a model folder'),
]


def test_bad_input_is_refused(folder, capsys):
  before = snapshot(folder)
  for what, arguments, expected in CASES:
    assert cli.main(['convert', *arguments.split()]) == 2, what
    error = capsys.readouterr().err
    assert error.startswith('unitemp: error: ') and expected in error, what
    assert snapshot(folder) == before, what
  # Negative control: with nothing wrong the same command writes.
  good = f'convert --student=dit.pt --tokenizer={model_folder.TINY}'
  good = f'{good}/tokenizer.json {SMALL}'
  assert cli.main([*good.split(), '--dry_run']) == 0
  assert snapshot(folder) == before
  assert cli.main(good.split()) == 0
  new = set(snapshot(folder)) - set(before)
  names = {'student.safetensors', 'tokenizer.json', 'model.json'}
  assert new == {f'new/{name}' for name in names}


def test_all_that_is_wrong_is_listed():
  given = small_models.state_dict('dit', 'wan')
  shapes = sizes.param_shapes(small_models.CONFIGS['dit'])
  load_torch(given, 'dit', shapes)
  del given['head.modulation']
  given['blocks.0.extra.weight'] = np.ones(2, np.float32)
  given['text_embedding.0.weight'] = np.ones((24, 16), np.float32)
  for n in range(3):
    del given[f'blocks.{n}.ffn.0.bias']
    given[f'blocks.{n}.ffn.2.bias'] = np.ones(16, np.int32)
  with pytest.raises(UserError) as error:
    load_torch(given, 'dit', shapes)
  lines = str(error.value).splitlines()
  assert '9 of its names or shapes are wrong' in lines[0]
  assert set(lines[1:]) == {
    '  blocks.0.extra.weight is not expected',
    '  blocks.*.ffn.0.bias is missing (3 times)',
    '  blocks.*.ffn.2.bias is of a type that weights do not have (3 times)',
    '  head.modulation is missing',
    '  text_embedding.0.weight is [24, 16] and should be [16, 24]',
  }


def test_a_whole_translation_model_has_an_encoder():
  """The decoder is passed over; a second copy of the table may be there."""
  given = small_models.state_dict('umt5', 'diffusers')
  shapes = sizes.param_shapes(small_models.CONFIGS['umt5'])
  wanted = load_torch(given, 'umt5', shapes)['token_embedding']['embedding']
  given['decoder.block.0.x'] = given['lm_head.weight'] = np.ones(3, np.float32)
  given['encoder.embed_tokens.weight'] = given['shared.weight']
  assert load_torch(given, 'umt5', shapes)
  del given['shared.weight']
  read = load_torch(given, 'umt5', shapes)['token_embedding']['embedding']
  np.testing.assert_array_equal(read, wanted)
  given['encoder.block.9.x'] = np.ones(3, np.float32)
  with pytest.raises(UserError, match=r'encoder\.block\.9\.x is not'):
    load_torch(given, 'umt5', shapes)


def test_names_with_and_without_wrappers_do_not_mix():
  given = small_models.state_dict('dit', 'wan')
  given['_orig_mod.head.modulation'] = given['head.modulation']
  with pytest.raises(UserError, match='twice'):
    fit.find(sources.open_checkpoint(given), 'the state dict')
