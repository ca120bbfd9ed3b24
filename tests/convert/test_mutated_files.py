"""Checkpoints and cards of random damage: read, or refused in a sentence."""

import json

import numpy as np
import pytest
import safetensors.numpy

from unitemp_jax.convert import checkpoints
from unitemp_jax.errors import UserError
from unitemp_jax.models import weights
from unitemp_jax.sampling import model_folder

ROUNDS = 10_000


def mutated(rng, whole, most):
  """Some bytes changed, doubled, or taken out, in the first ones."""
  data = bytearray(whole)
  for _ in range(rng.integers(1, 5)):
    at = int(rng.integers(0, min(most, len(data))))
    kind = rng.integers(0, 4)
    if kind == 0:
      data[at] = rng.integers(0, 256)
    elif kind == 1:
      data[at:at] = data[at : at + int(rng.integers(1, 40))]
    elif kind == 2:
      del data[at : at + int(rng.integers(1, 40))]
    else:
      digits = str(rng.integers(0, 2**63 - 1)).encode()
      data[at : at + len(digits)] = digits
  return bytes(data)


def read_all(path):
  opened = checkpoints.open_checkpoint(path)
  for tensor in opened.tensors.values():
    if tensor.dtype is not None:
      tensor.read()


def survive(path, whole, most, read, seed=0):
  """Counts how many of the mutated files were refused."""
  rng, refused = np.random.default_rng(seed), 0
  for _ in range(ROUNDS):
    path.write_bytes(mutated(rng, whole, most))
    try:
      read(path)
    except UserError:
      refused += 1
  return refused


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


@pytest.mark.slow
def test_safetensors(tmp_path):
  path = tmp_path / 'a.safetensors'
  about = {'unitemp': '{"config": {"model": {}}}', 'config': '{"num_heads": 3}'}
  safetensors.numpy.save_file(arrays(), path, metadata=about)
  whole = path.read_bytes()
  read_all(path)  # The control: it is read as it is.
  weights_of(path)
  assert survive(path, whole, len(whole), read_all) > ROUNDS / 10
  assert survive(path, whole, len(whole), weights_of, 1) > ROUNDS / 10


@pytest.mark.slow
def test_indices(tmp_path):
  """Of PyTorch's parts, and of ours."""
  safetensors.numpy.save_file(arrays(), tmp_path / 'p.safetensors')
  index = {'weight_map': dict.fromkeys(arrays(), 'p.safetensors')}
  path = tmp_path / 'm.safetensors.index.json'
  whole = json.dumps(index).encode()
  assert survive(path, whole, len(whole), read_all) > ROUNDS / 10
  ours = {'axes': {'head': 0}, 'files': ['p.safetensors', 'p.safetensors']}
  whole = json.dumps(ours).encode()

  def read(path):
    weights_of(tmp_path / 'm.safetensors')

  assert survive(path, whole, len(whole), read) > ROUNDS / 10


@pytest.mark.slow
def test_torch_files(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'a.pt'
  state = {name: torch.tensor(value) for name, value in arrays().items()}
  torch.save({'generator': state, 'step': 3}, path)
  whole = path.read_bytes()
  read_all(path)
  assert survive(path, whole, len(whole), read_all) > ROUNDS / 10


@pytest.mark.slow
def test_cards(tmp_path):
  whole = (model_folder.TINY / 'model.json').read_bytes()
  path = tmp_path / 'model.json'
  refused = survive(
    path,
    whole,
    whole.index(b'provenance'),
    lambda p: model_folder.read_card(tmp_path),
  )
  assert ROUNDS / 2 < refused < ROUNDS
