"""What does not fit is refused in one sentence, and nothing is written."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy
import small_models

from unitemp_jax.cli import main as cli
from unitemp_jax.convert import checkpoints, fit, load_torch
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


def wan(kind='dit', **changes):
  """Names and arrays of a small network."""
  return {**small_models.state_dict(kind, 'wan'), **changes}


def with_nan():
  """A value of a stack's second layer that is not a number."""
  given = wan()
  given['blocks.1.ffn.0.weight'][3, 5] = np.nan
  return given


def tensors_only(given, dtype):
  """The same names with small arrays of a type."""
  return {name: np.ones(3, dtype) for name in given}


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Checkpoints, good and bad, in the current folder."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'small.py').write_text(CONFIG)
  save = safetensors.numpy.save_file
  for kind in small_models.CONFIGS:
    save(wan(kind), f'{kind}.safetensors')
  whole = (tmp_path / 'dit.safetensors').read_bytes()
  (tmp_path / 'cut.safetensors').write_bytes(whole[: len(whole) - 8])
  (tmp_path / 'text.pt').write_text('not a checkpoint')
  (tmp_path / 'weights.onnx').write_text('')
  (tmp_path / 'evil.pt').write_bytes(b'cos\nsystem\n(S"touch ran"\ntR.')
  parts = tmp_path / 'parts'
  parts.mkdir()
  index = {'weight_map': {'a': 'one.safetensors', 'b': 'two.safetensors'}}
  (parts / 'm.safetensors.index.json').write_text(json.dumps(index))
  for name, text in (('list', '[1]'), ('deep', '[' * 20_000)):
    (tmp_path / f'{name}.index.json').write_text(text)
  save(tensors_only(wan(), int), 'integers.safetensors')
  save(tensors_only(wan(), np.int8), 'int8.safetensors')
  wide = {name: array.astype(np.float64) for name, array in wan().items()}
  save(wide, 'wide.safetensors')
  save({}, 'bare.safetensors')
  save(with_nan(), 'nan.safetensors')
  image = {'time_projection.1.weight': np.ones((6, 1), np.float32)}
  image['img_emb.proj.0.weight'] = np.ones(3, np.float32)
  save(image, 'i2v.safetensors')
  lora = {f'blocks.0.self_attn.q.lora_{x}.weight': np.ones(2) for x in 'AB'}
  save(lora, 'lora.safetensors')
  kohya = {'lora_unet_blocks_0_ffn_0.lora_down.weight': np.ones(2)}
  save(kohya, 'kohya.safetensors')
  # What fp8 tools write: the same names, one byte per value.
  header = {
    'time_projection.1.weight': {
      'dtype': 'F8_E4M3',
      'shape': [4],
      'data_offsets': [0, 4],
    }
  }
  for name, kind in (('fp8', 'F8_E4M3'), ('mx', 'F8_E8M0')):
    header['time_projection.1.weight']['dtype'] = kind
    text = json.dumps(header).encode()
    content = struct.pack('<Q', len(text)) + text + bytes(4)
    (tmp_path / f'{name}.safetensors').write_bytes(content)
  (tmp_path / 'dit.gguf').write_text('')
  save({'head.head.diff_b': np.ones(16, np.float32)}, 'good.safetensors')
  # The number of heads is in no shape: only the file's own words say it.
  said = tmp_path / 'said'
  said.mkdir()
  save(wan(), said / 'dit.safetensors')
  (tmp_path / 'plain').mkdir()
  save(wan(), tmp_path / 'plain/dit.safetensors')
  fields = {'_class_name': 'WanModel', 'num_heads': 4}
  (said / 'config.json').write_text(json.dumps(fields))
  save(wan(), 'header.safetensors', {'config': '{"num_attention_heads": 8}'})
  return tmp_path


def snapshot(folder):
  """Every file and its bytes."""
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file() and '__pycache__' not in path.parts
  }


SMALL = '--config=small.py --out=new'
DIT = '--student=dit.safetensors'
CASES = [
  ('nothing given', '--out=new', 'see unitemp convert --help'),
  ('both ways', f'{DIT} --model=x --out=new', 'either checkpoints'),
  ('no file', f'--student=none.pt {SMALL}', 'no checkpoint none.pt'),
  ('other file', f'--student=weights.onnx {SMALL}', 'weights.onnx'),
  ('cut file', f'--student=cut.safetensors {SMALL}', 'cut.safetensors cannot'),
  ('text', f'--student=text.pt {SMALL}', 'text.pt'),
  ('old pickle', f'--student=evil.pt {SMALL}', 'evil.pt'),
  ('missing parts', f'--student=parts {SMALL}', '2 of them are missing'),
  ('whole folder', f'--student=. {SMALL}', 'name the one file to read'),
  (
    'VAE as student',
    f'--student=vae.safetensors {SMALL}',
    'but a vae in the layout wan',
  ),
  ('layout', f'{DIT} --layout=diffusers {SMALL}', 'diffusers'),
  ('part', f'{DIT} --part=critic {SMALL}', "under 'critic'"),
  ('size', f'{DIT} --out=new', 'size that was not published'),
  ('image model', '--student=i2v.safetensors --out=new', 'image-to-video'),
  ('nothing', f'--student=bare.safetensors {SMALL}', 'holds no tensors'),
  ('whole numbers', f'--student=integers.safetensors {SMALL}', 'wrong'),
  (
    'second is bad',
    f'--vae=vae.safetensors --student=cut.safetensors {SMALL}',
    'cut.safetensors',
  ),
  (
    'no tokenizer',
    f'--vae=vae.safetensors --tokenizer=no.json {SMALL}',
    'no.json',
  ),
  ('parts', f'{DIT} --fsdp=3 {SMALL}', 'change --fsdp'),
  ('no parts', f'{DIT} --fsdp=0 {SMALL}', '--fsdp: 0 is too few'),
  (
    'one file for two',
    f'--vae=vae.safetensors {DIT} --config=small.py --out=new.safetensors',
    'give a folder',
  ),
  (
    'overrides',
    '--vae=vae.safetensors --out=new --config.model.x=1',
    'needs --config',
  ),
  ('no target', '--model=dit.safetensors --out=new', '--to'),
  ('not ours', '--model=dit.safetensors --to=wan --out=new', 'none of our'),
  ('no folder', '--model=none --to=wan --out=new', 'no weights at none'),
  ('a list', f'--student=list.index.json {SMALL}', 'not a table'),
  ('nested', f'--student=deep.index.json {SMALL}', 'nested too deep'),
  ('LoRA', f'--student=lora.safetensors {SMALL}', 'is a LoRA'),
  ('LoRA of kohya', f'--student=kohya.safetensors {SMALL}', 'is a LoRA'),
  ('fp8', f'--student=fp8.safetensors {SMALL}', 'wrong'),
  ('MXFP8', f'--student=mx.safetensors {SMALL}', 'not read: MXFP8'),
  ('GGUF', f'--student=dit.gguf {SMALL}', 'format GGUF'),
  ('LoRA of nothing', f'--lora=lora.safetensors {SMALL}', 'either checkpoints'),
  (
    'LoRA of a VAE',
    f'--vae=vae.safetensors --lora=lora.safetensors {SMALL}',
    'either --student or --teacher',
  ),
  ('no LoRA', f'{DIT} --lora=no.safetensors {SMALL}', 'no.safetensors'),
  ('strength', f'{DIT} --lora=lora.safetensors:nan {SMALL}', 'strength nan'),
  ('other LoRA', f'{DIT} --lora=lora.safetensors {SMALL}', '2 of its 2 names'),
  (
    'no LoRA at all',
    f'{DIT} --lora=vae.safetensors {SMALL}',
    'vae.safetensors does not fit dit.safetensors',
  ),
  (
    'LoRA of ours',
    '--model=dit.safetensors --to=wan --lora=lora.safetensors --out=new',
    'convert it back with --lora',
  ),
  (
    'LoRA overwritten',
    f'{DIT} --lora=good.safetensors --config=small.py --out=good.safetensors',
    'would write over good.safetensors',
  ),
  (
    'into what is read',
    '--student=plain --config=small.py --out=plain',
    'would write over plain',
  ),
  ('int8', f'--student=int8.safetensors {SMALL}', 'quantised weights'),
  ('heads beside', f'--student=said {SMALL}', 'says that it has 4 heads'),
  (
    'heads within',
    f'--student=header.safetensors {SMALL}',
    'says that it has 8 heads',
  ),
  (
    'on itself',
    f'{DIT} --config=small.py --out=dit.safetensors',
    'would write over dit.safetensors',
  ),
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
  good = f'convert {DIT} --tokenizer={model_folder.TINY}'
  good = f'{good}/tokenizer.json {SMALL}'
  assert cli.main([*good.split(), '--dry_run']) == 0
  wide = good.replace('dit.safetensors', 'wide.safetensors')
  assert cli.main([*wide.split(), '--dry_run']) == 0
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
    fit.find(checkpoints.open_checkpoint(given))


def test_weights_that_are_not_finite_are_refused_where_they_are(folder, capsys):
  """Nothing of them is left behind; the tensor is named."""
  before = snapshot(folder)
  command = f'convert --student=nan.safetensors {SMALL}'
  assert cli.main(command.split()) == 2
  error = capsys.readouterr().err
  assert 'nan.safetensors' in error and 'blocks.1.ffn.0.weight' in error
  assert snapshot(folder) == before
  shapes = sizes.param_shapes(small_models.CONFIGS['dit'])
  with pytest.raises(UserError, match=r'blocks\.1\.ffn\.0\.weight .*\[3, 5\]'):
    load_torch(with_nan(), 'dit', shapes)
