"""Checkpoints of random damage: read, or refused in a sentence."""

import json

import mutations
import numpy as np
import pytest
import safetensors.numpy

from unitemp_jax.convert import checkpoints
from unitemp_jax.models import weights

pytestmark = pytest.mark.parametrize(
  'rounds', [60, pytest.param(10_000, marks=pytest.mark.slow)]
)


def read_all(path):
  opened = checkpoints.open_checkpoint(path)
  for tensor in opened.tensors.values():
    if tensor.dtype is not None:
      tensor.read()


def survive(path, whole, read, rounds, **settings):
  """Whether enough of the mutated files were refused for a test."""
  rng = np.random.default_rng(0)
  found = mutations.survive(rng, rounds, path, whole, read, **settings)
  assert found > rounds / 10


def arrays():
  return {
    'blocks.0.ffn.weight': np.ones((3, 4), np.float32),
    'head': np.ones(2, np.float16),
  }


def weights_of(path):
  with weights.Files(path) as opened:
    opened.metadata, [opened.dtype(n) for n in opened.shapes]
    for name in opened.shapes:
      opened.read(name)


def test_safetensors(tmp_path, rounds):
  path = tmp_path / 'a.safetensors'
  about = {'unitemp': '{"config": {"model": {}}}', 'config': '{"num_heads": 3}'}
  safetensors.numpy.save_file(arrays(), path, metadata=about)
  whole = path.read_bytes()
  survive(path, whole, read_all, rounds)
  survive(path, whole, weights_of, rounds)


def test_indices(tmp_path, rounds):
  """Of PyTorch's parts, and of ours."""
  safetensors.numpy.save_file(arrays(), tmp_path / 'p.safetensors')
  index = {'weight_map': dict.fromkeys(arrays(), 'p.safetensors')}
  path = tmp_path / 'm.safetensors.index.json'
  survive(path, json.dumps(index).encode(), read_all, rounds, tree=True)
  ours = {'axes': {'head': 0}, 'files': ['p.safetensors', 'p.safetensors']}

  def read(path):
    weights_of(tmp_path / 'm.safetensors')

  survive(path, json.dumps(ours).encode(), read, rounds, tree=True)


def test_torch_files(tmp_path, rounds):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'a.pt'
  state = {name: torch.tensor(value) for name, value in arrays().items()}
  torch.save({'generator': state, 'step': 3}, path)
  survive(path, path.read_bytes(), read_all, rounds)
