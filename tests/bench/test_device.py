"""What `launch/device_check.sh` runs, at small size on a CPU."""

import json

import jax
import jax.numpy as jnp
import pytest

from unitemp_jax import files
from unitemp_jax.bench import device
from unitemp_jax.cli.main import main
from unitemp_jax.errors import UserError


def test_a_wrong_accelerator_or_part_is_refused(tmp_path, capsys):
  for words, says in (
    (['about', '--accelerator=tpu'], 'no tpu'),
    (['everything'], "no part 'everything'"),
    ([], 'name one part'),
  ):
    argv = ['bench', 'device', *words, f'--out={tmp_path}']
    assert main(argv) == 2
    assert says in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_the_attention_part_tells_right_from_wrong(tmp_path, monkeypatch):
  device.run('attention', tmp_path)
  rows = json.loads((tmp_path / 'attention.json').read_text())['rows']
  assert all(row['good'] for row in rows)
  # Control: another prefix is seen to be wrong.
  assert rows[-1]['control_error'] > 0.1
  right = device._reference
  monkeypatch.setattr(device, '_by', lambda _, *a: 1.01 * right(*a))
  device.run('attention', tmp_path)
  rows = json.loads((tmp_path / 'attention.json').read_text())['rows']
  assert not any(row['good'] for row in rows)
  text = device.table(tmp_path, ['attention', 'train'])
  assert 'on an accelerator not run' in text and '| train | | not run |' in text
  found = json.loads((tmp_path / 'attention.json').read_text())
  for changes in ({'device': 5}, {'rows': 5}, {'rows': [[]]}):
    files.write_json(tmp_path / 'attention.json', found | changes)
    with pytest.raises(UserError, match='stands in it'):
      device.table(tmp_path, ['attention'])


def test_peaks_are_known_by_the_names_of_jax():
  names = ('TPU v5 lite', 'TPU v5p', 'TPU v6 lite', 'NVIDIA H100 80GB HBM3')
  assert [device.peak_tflops(name) for name in names] == [197, 459, 918, 989]
  assert device.peak_tflops('cpu') is None


def test_arguments_have_the_kinds_that_are_asked_for():
  keys = jax.ShapeDtypeStruct((2,), jax.random.key(0).dtype)
  assert device.filled(keys).shape == (2,)
  whole = device.filled(jax.ShapeDtypeStruct((3,), jnp.int32))
  assert whole.tolist() == [0, 0, 0]
  real = device.filled(jax.ShapeDtypeStruct((64, 64), jnp.bfloat16))
  assert real.dtype == jnp.bfloat16 and 0.01 < real.std() < 0.03
