"""LoRAs are merged as PEFT merges them, and fp8 weights are dequantised."""

import json
import re

import make_peft_merge
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import small_models

from unitemp_jax.cli import main as cli
from unitemp_jax.convert import checkpoints, fit, lora
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes

SHAPES = sizes.param_shapes(small_models.CONFIGS['dit'])
# Names of the diffusers layout -> the original's, by the file formats' own
# documents and not by our table.
WAN = {
  r'attn1\.to_out\.0': 'self_attn.o',
  r'attn1\.to_': 'self_attn.',
  r'attn2\.to_out\.0': 'cross_attn.o',
  r'attn2\.to_': 'cross_attn.',
  r'ffn\.net\.0\.proj': 'ffn.0',
  r'ffn\.net\.2': 'ffn.2',
  r'condition_embedder\.text_embedder\.linear_1': 'text_embedding.0',
  r'condition_embedder\.time_embedder\.linear_2': 'time_embedding.2',
  r'condition_embedder\.time_proj': 'time_projection.1',
  'proj_out': 'head.head',
}
PEFT = 'base_model.model.'
SETTINGS = {
  'peft_type': 'LORA',
  'r': make_peft_merge.RANK,
  'lora_alpha': make_peft_merge.ALPHA,
  'alpha_pattern': make_peft_merge.ALPHAS,
}


@pytest.fixture(scope='module')
def peft_merge():
  """The committed arrays: PEFT's file, and what PEFT's merge made of it."""
  return dict(np.load(make_peft_merge.PATH))


@pytest.fixture(scope='module')
def layers(peft_merge):
  """Module in the diffusers layout -> (A, B) of PEFT's file."""
  found = {}
  for name, value in peft_merge.items():
    if name.endswith('lora_A.weight'):
      other = peft_merge[name.replace('lora_A', 'lora_B')]
      module = name.removeprefix(f'lora/{PEFT}')
      found[module.removesuffix('.lora_A.weight')] = value, other
  return found


def wan(module):
  for theirs, ours in WAN.items():
    module = re.sub(theirs, ours, module)
  return module


def alpha(module):
  value = make_peft_merge.ALPHA
  for pattern, other in make_peft_merge.ALPHAS.items():
    value = other if module.endswith(pattern) else value
  return np.array(value, np.float32)


def write(folder, naming, layers):
  """Writes the LoRA under a naming; returns what --lora takes."""
  path, header = folder / f'{naming}.safetensors', {}
  arrays = {}
  for module, (down, up) in layers.items():
    if naming == 'peft':
      names = f'{PEFT}{module}.lora_A.weight', f'{PEFT}{module}.lora_B.weight'
    elif naming == 'diffusers':
      name = f'transformer.{module}'
      names = f'{name}.lora_A.weight', f'{name}.lora_B.weight'
    elif naming == 'kohya':
      name = f'lora_unet_{wan(module).replace(".", "_")}'
      names = f'{name}.lora_down.weight', f'{name}.lora_up.weight'
      arrays[f'{name}.alpha'] = alpha(module)
    elif naming == 'comfyui':
      name = f'diffusion_model.{wan(module)}'
      names = f'{name}.lora_down.weight', f'{name}.lora_up.weight'
      arrays[f'{name}.alpha'] = alpha(module)
    else:
      name = wan(module)
      names = f'{name}.lora_A.default.weight', f'{name}.lora_B.default.weight'
      # It knows no alpha: the scale is in the numbers.
      up = up * (alpha(module) / len(down))
    arrays |= dict(zip(names, (down, up), strict=True))
  if naming == 'peft':
    path = folder / 'peft'
    path.mkdir(exist_ok=True)
    (path / 'adapter_config.json').write_text(json.dumps(SETTINGS))
    safetensors.numpy.save_file(arrays, path / 'adapter_model.safetensors')
    return path
  if naming == 'diffusers':
    told = {f'transformer.{key}': value for key, value in SETTINGS.items()}
    header = {'lora_adapter_metadata': json.dumps(told)}
  safetensors.numpy.save_file(arrays, path, header)
  return path


def merge(layout, *given):
  state = small_models.state_dict('dit', 'diffusers')
  if layout == 'wan':
    names = zip(
      small_models.names('dit', 'diffusers'),
      small_models.names('dit', 'wan'),
      strict=True,
    )
    state = {ours: state[theirs] for theirs, ours in names}
  found = fit.find(checkpoints.open_checkpoint(state), 'dit')
  merged = lora.merge(found, SHAPES, [str(text) for text in given])
  values = {name: tensor.read() for name, tensor in merged.tensors.items()}
  if layout == 'wan':
    values = {
      theirs: values[ours]
      for theirs, ours in zip(
        small_models.names('dit', 'diffusers'),
        small_models.names('dit', 'wan'),
        strict=True,
      )
    }
  return values, state


@pytest.mark.parametrize('layout', ['diffusers', 'wan'])
@pytest.mark.parametrize(
  'naming', ['peft', 'diffusers', 'kohya', 'comfyui', 'wan']
)
def test_a_merge_is_pefts(naming, layout, layers, peft_merge, tmp_path):
  path = write(tmp_path, naming, layers)
  values, _ = merge(layout, path)
  wanted = small_models.state_dict('dit', 'diffusers')
  changed = {
    name.removeprefix('merged/'): value
    for name, value in peft_merge.items()
    if name.startswith('merged/')
  }
  assert {name.removesuffix('.weight') for name in changed} == set(layers)
  for name, value in (wanted | changed).items():
    np.testing.assert_allclose(values[name], value, rtol=0, atol=1e-5)
  # Negative control: the changes are far larger than the tolerance.
  assert all(abs(v - wanted[n]).max() > 1e-2 for n, v in changed.items())


def test_the_fixture_is_what_peft_merges_today(peft_merge):
  pytest.importorskip('peft')
  now = make_peft_merge.merged()
  assert now.keys() == peft_merge.keys()
  for name, value in now.items():
    np.testing.assert_allclose(value, peft_merge[name], atol=1e-6)


def test_strengths_add_up_and_zero_is_nothing(layers, tmp_path):
  path = write(tmp_path, 'kohya', layers)
  once, base = merge('diffusers', path)
  halves, _ = merge('diffusers', f'{path}:0.5', f'{path}:.5')
  nothing, _ = merge('diffusers', f'{path}:0')
  for name, value in base.items():
    np.testing.assert_allclose(halves[name], once[name], atol=1e-5)
    assert nothing[name].tobytes() == value.tobytes()
    assert nothing[name].dtype == value.dtype


def test_differences_of_whole_arrays(tmp_path):
  """ComfyUI's, of a weight, a bias and a modulation; not scaled by a rank."""
  layer = 'diffusion_model.blocks.1.'
  arrays = {
    f'{layer}norm3.diff': np.full(16, 2, np.float32),
    f'{layer}self_attn.q.diff_b': np.full(16, 3, np.float32),
    f'{layer}diff_m': np.full((1, 6, 16), 4, np.float32),
  }
  safetensors.numpy.save_file(arrays, tmp_path / 'diff.safetensors')
  values, base = merge('diffusers', f'{tmp_path / "diff.safetensors"}:0.5')
  moved = {
    name: np.unique(np.round(values[name] - base[name], 3)).tolist()
    for name in base
    if not np.array_equal(values[name], base[name])
  }
  assert moved == {
    'blocks.1.norm2.weight': [1.0],
    'blocks.1.attn1.to_q.bias': [1.5],
    'blocks.1.scale_shift_table': [2.0],
  }


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_command_merges(dtype, layers, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  path = write(tmp_path, 'comfyui', layers)
  state = small_models.state_dict('dit', 'wan', dtype)
  safetensors.numpy.save_file(state, 'dit.safetensors')
  monkeypatch.setattr(
    fit, 'PRESETS', {**fit.PRESETS, 'dit': {'S': small_models.CONFIGS['dit']}}
  )
  command = ['convert', '--student=dit.safetensors', '--out=out.safetensors']
  assert cli.main([*command, f'--lora={path}:0.5']) == 0
  said = capsys.readouterr().out
  assert 'comfyui.safetensors at strength 0.5: 28 arrays of rank 2, 4' in said
  made = safetensors.numpy.load_file('out.safetensors')
  module = 'blocks.1.attn1.to_q'
  down, up = layers[module]
  weight = state[f'{wan(module)}.weight'].astype(np.float32)
  weight = weight + 0.5 * alpha(module) / len(down) * up @ down
  wanted = weight.T.astype(small_models.DTYPES[dtype])
  np.testing.assert_allclose(
    made['blocks.self_attn.q.kernel'][1].astype(np.float32),
    wanted.astype(np.float32),
    rtol=1e-2 if dtype == 'bfloat16' else 1e-6,
    atol=1e-6,
  )
  # The same again is there already; another strength is another file.
  assert cli.main([*command, f'--lora={path}:0.5']) == 0
  assert 'there already' in capsys.readouterr().out
  assert cli.main([*command, f'--lora={path}:0.6']) == 2
  # Strength 0 writes the file that no LoRA writes.
  zero = [*command[:2], '--out=zero.safetensors', f'--lora={path}:0']
  assert cli.main(zero) == 0
  assert cli.main([*command[:2], '--out=none.safetensors']) == 0
  files = [tmp_path / f'{name}.safetensors' for name in ('zero', 'none')]
  assert files[0].read_bytes() == files[1].read_bytes()


def test_what_does_not_fit_is_listed(layers, tmp_path):
  """A LoRA of a wider model, of other layers, and of other kinds."""
  wide = {m: (np.tile(a, (1, 2)), b) for m, (a, b) in layers.items()}
  path = write(tmp_path, 'kohya', wide)
  with pytest.raises(UserError, match='does not fit') as error:
    merge('wan', path)
  lines = str(error.value).splitlines()
  q = (
    '  lora_unet_blocks_*_self_attn_q.lora_up.weight makes [16, 32] and should'
  )
  assert f'{q} make [16, 16] (3 times)' in lines
  good = {
    'blocks.0.self_attn.q.lora_A.weight': np.ones((1, 16), np.float32),
    'blocks.0.self_attn.q.lora_B.weight': np.ones((16, 1), np.float32),
  }
  file = tmp_path / 'x.safetensors'
  for name, value, problem in (
    ('blocks.0.self_attn.q.dora_scale', np.ones(16), 'no part of a LoRA'),
    ('blocks.0.self_attn.q.hada_w1_a', np.ones((2, 2)), 'no part of a LoRA'),
    ('blocks.7.ffn.0.diff_b', np.ones(40), 'layer that the model has not'),
    ('blocks.0.cross_attn.k_img.lora_A.weight', np.ones((1, 16)), 'has not'),
    ('blocks.1.ffn.0.lora_A.weight', np.ones((1, 16)), 'other half'),
    ('blocks.1.ffn.0.alpha', np.ones(()), 'other half'),
    # A second adapter, and the same under the other layout's name.
    ('blocks.0.self_attn.q.lora_A.b.weight', np.ones((1, 16)), 'says again'),
    ('transformer.blocks.0.attn1.to_q.lora_A.weight', np.ones(1), 'says again'),
  ):
    arrays = {**good, name: value.astype(np.float32)}
    safetensors.numpy.save_file(arrays, file)
    with pytest.raises(UserError) as error:
      merge('wan', file)
    (line,) = str(error.value).splitlines()[1:]
    assert name in line and problem in line
  safetensors.numpy.save_file(good, file)
  merge('wan', file)  # Negative control.
  for value, problem in ((np.nan, 'is nan'), (np.ones(2), 'several numbers')):
    q = 'blocks.0.self_attn.q.alpha'
    told = {**good, q: np.asarray(value, np.float32)}
    safetensors.numpy.save_file(told, file)
    with pytest.raises(UserError, match=problem):
      merge('wan', file)
  (tmp_path / 'adapter_config.json').write_text(
    '{"lora_alpha": 1, "alpha_pattern": {"(q": 2}}'
  )
  safetensors.numpy.save_file(good, file)
  with pytest.raises(UserError, match='alpha_pattern'):
    merge('wan', file)
  (tmp_path / 'adapter_config.json').unlink()
  good['blocks.0.self_attn.q.lora_A.weight'][0, 3] = np.nan
  safetensors.numpy.save_file(good, file)
  with pytest.raises(UserError, match=r'x\.safetensors is damaged'):
    merge('wan', file)


FP8 = np.dtype(ml_dtypes.float8_e4m3fn)


def quantise(state, scaling):
  """Matrices of the blocks in fp8, and what they stand for."""
  given, meant = dict(state), dict(state)
  for name, value in state.items():
    if not name.startswith('blocks.') or not name.endswith('.weight'):
      continue
    if value.ndim < 2:
      continue
    scale = {
      'plain': np.float32(1),
      'whole': np.float32(0.125),
      'rows': np.linspace(0.5, 2, len(value), dtype=np.float32)[:, None],
      'tiles': np.float32([[0.5, 1], [2, 4]]),
    }[scaling]
    full = scale
    if scaling == 'tiles':
      full = np.kron(scale, np.ones([n // 2 for n in value.shape]))
    given[name] = (value / full).astype(FP8)
    meant[name] = given[name].astype(np.float32) * full
    suffix = {'whole': 'scale_weight', 'rows': 'weight_scale'}
    if scaling != 'plain':
      layer = name.removesuffix('weight')
      given[layer + suffix.get(scaling, 'weight_scale_inv')] = np.array(scale)
      given[layer + 'scale_input'] = np.float32(1)
  if scaling == 'whole':
    given['scaled_fp8'] = np.zeros(0, FP8)
  return given, meant


def save_fp8(arrays, path):
  """safetensors' numpy half writes no fp8: its raw form does."""
  entries, data = {}, b''
  for name, value in arrays.items():
    value = np.asarray(value)
    kind = 'F8_E4M3' if value.dtype == FP8 else 'F32'
    start, data = len(data), data + value.tobytes()
    entries[name] = {
      'dtype': kind,
      'shape': list(value.shape),
      'data_offsets': [start, len(data)],
    }
  header = json.dumps(entries).encode()
  path.write_bytes(len(header).to_bytes(8, 'little') + header + data)


@pytest.mark.parametrize('scaling', ['plain', 'whole', 'rows', 'tiles'])
def test_fp8_weights_are_dequantised(scaling, tmp_path):
  state = small_models.state_dict('dit', 'wan')
  given, meant = quantise(state, scaling)
  save_fp8(given, tmp_path / 'fp8.safetensors')
  opened = checkpoints.open_checkpoint(tmp_path / 'fp8.safetensors')
  found = fit.find(opened, 'dit')
  fit.check(found, SHAPES)
  for name, tensor in found.tensors.items():
    wanted = meant[name].astype(np.float32)
    np.testing.assert_allclose(tensor.read(), wanted, rtol=1e-6)
    rows = slice(len(wanted) // 2, len(wanted))
    np.testing.assert_allclose(tensor.read(rows), wanted[rows], rtol=1e-6)
  # Negative control: the scales matter.
  if scaling != 'plain':
    name = 'blocks.0.ffn.0.weight'
    assert abs(meant[name] - given[name].astype(np.float32)).max() > 0.1
  kinds = {t.kind for n, t in found.tensors.items() if n.startswith('blocks')}
  assert kinds == {'F32', 'BF16'}


@pytest.mark.parametrize(
  'name, value, format_',
  [
    ('blocks.0.ffn.0.weight', np.ones((2, 2), np.int8), 'integers of 8 bits'),
    ('blocks.0.ffn.0.qweight', np.ones((2, 2), np.int32), 'GPTQ'),
    ('blocks.0.ffn.0.weight.absmax', np.ones(2, np.float32), 'NF4'),
    ('blocks.0.ffn.0.weight_scale_2', np.ones(1, np.float32), 'NVFP4'),
  ],
)
def test_other_formats_are_named(name, value, format_):
  state = {**small_models.state_dict('dit', 'wan'), name: value}
  with pytest.raises(UserError, match=format_):
    fit.find(checkpoints.open_checkpoint(state), 'dit')
