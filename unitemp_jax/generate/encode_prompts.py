"""Prompts to embeddings, shard by shard, by a text encoder on this host."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unitemp_jax import files, progress, storage
from unitemp_jax.convert import checkpoints, fit, load_torch
from unitemp_jax.data import prompt_embeddings
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError, shown
from unitemp_jax.generate import text as texts
from unitemp_jax.generate.text import LayeredEncoder
from unitemp_jax.models import sizes, weights
from unitemp_jax.models.umt5 import TextConfig, TextEncoder
from unitemp_jax.parallel.mesh import MODEL_RULES, make_mesh, placed
from unitemp_jax.sampling import model_folder

# From shapes, and the name of a branch or None, to weights.
Load = Callable[[Any, str | None], Any]
Encode = Callable[..., np.ndarray]


def local_mesh(config: TextConfig) -> Mesh:
  """This host's devices, all on `fsdp` if the width divides, else one.

  Hosts encode other prompts each, so that they need not wait for each other.
  """
  devices = jax.local_devices()
  if config.dim % len(devices) or (config.num_heads * config.head_dim) % len(
    devices
  ):
    devices = devices[:1]
  return make_mesh({'fsdp': len(devices)}, devices)


def fingerprint(path: Path) -> str:
  """Tells weight files apart by size, first and last MiB; 16 hex digits."""
  parts = sorted(path.iterdir()) if path.is_dir() else [path]
  digest = hashlib.sha256()
  for file in parts:
    size = file.stat().st_size
    digest.update(f'{size} '.encode())
    with file.open('rb') as content:
      digest.update(content.read(2**20))
      content.seek(max(0, size - 2**20))
      digest.update(content.read())
  return digest.hexdigest()[:16]


def _encoder(config: TextConfig, dtype: str, load: Load) -> Encode:
  """Token ids and masks `[B, E]` to embeddings, computed in `dtype`.

  Weights that this host does not hold whole are read layer by layer for every
  batch.
  """
  config = dataclasses.replace(config, dtype=dtype)
  shapes = sizes.param_shapes(config, dtype)
  mesh = local_mesh(config)
  everywhere = NamedSharding(mesh, PartitionSpec())
  if not texts.holds_whole(sizes.num_bytes(shapes) / mesh.size, 0):
    return LayeredEncoder(config, lambda name: load(shapes, name)).encode
  params = load(placed(shapes, mesh, MODEL_RULES), None)
  encoder = TextEncoder(config)
  encode = jax.jit(
    lambda params, ids, mask: encoder.apply({'params': params}, ids, mask),
    out_shardings=everywhere,
  )
  return lambda *batch: np.asarray(
    encode(params, *jax.device_put(batch, everywhere))
  )


def _rows(
  encode: Encode, ids: np.ndarray, mask: np.ndarray, batch: int
) -> Iterator[np.ndarray]:
  """Yields `[tokens, D]` for each of the texts `[B, E]`."""
  for first in range(0, len(ids), batch):
    here = slice(first, first + batch)
    # The last batch is filled up, so that all share one compilation.
    fill = [(0, batch - len(ids[here])), (0, 0)]
    made = encode(*(np.pad(x[here], fill, mode='edge') for x in (ids, mask)))
    for row, end in zip(made, mask[here], strict=False):
      yield row[: int(end.sum())]


_SHARD = 256  # prompts


def model_encoder(folder: Path) -> tuple[TextConfig, Path, Load]:
  """Size, path and loader of a model folder's text encoder."""
  path = folder / 'text.safetensors'
  config = model_folder.read_card(folder).text
  return config, path, functools.partial(weights.load, path)


def torch_encoder(
  checkpoint: Path, config: TextConfig | None = None
) -> tuple[TextConfig, Path, Load]:
  """Size, path and loader of PyTorch's weights, checked to fit."""
  found = fit.find(checkpoints.open_checkpoint(checkpoint), 'umt5')
  config = config or fit.recognise(found)

  def load(shapes: Any, branch: str | None) -> Any:
    return load_torch(checkpoint, 'umt5', shapes, branch=branch)

  return config, checkpoint, load


def _tokens(path: Path, prompts: Sequence[str], config: TextConfig):
  """Ids and masks of the prompts, those that tokenize alike only once."""
  tokenizer = Tokenizer.from_file(path)
  if tokenizer.vocab_size > config.vocab:
    raise UserError(
      f'{path} has {tokenizer.vocab_size} tokens and the text encoder '
      f'{config.vocab}; they do not belong together.'
    )
  ids, mask = tokenizer.encode(prompts, config.length)
  seen: dict[str, int] = {}
  twins = []
  for number, row in enumerate(zip(ids, mask, strict=True)):
    first = seen.setdefault(prompt_embeddings.key_of(*row), number)
    if first != number:
      twins.append((shown(prompts[number]), shown(prompts[first])))
  rows = np.fromiter(seen.values(), int)
  if twins:
    print(
      f'{len(prompts)} prompts are {len(rows)} to the tokenizer; {len(twins)} '
      'are alike, the first "{}" and "{}"'.format(*twins[0])
    )
  full = int(mask[rows].all(1).sum())
  if full:
    print(f'{full} prompts fill all {config.length} positions or were cut')
  return ids[rows], mask[rows], list(seen)


def encode(
  encoder: tuple[TextConfig, Path, Load],
  tokenizer: Path,
  prompts: Sequence[str],
  out: Path,
  *,
  dtype: str | None = None,
  batch_size: int = 8,
  part: tuple[int, int] = (0, 1),
  dry_run: bool = False,
) -> None:
  """Encodes prompts, and prints what is done.

  `part` (I, N) makes every N-th shard from the I-th on; `dtype` is a name of
  `prompt_embeddings.DTYPES`, the encoder's own if None.
  """
  config, path, load = encoder
  dtype = dtype or config.dtype
  ids, mask, keys = _tokens(tokenizer, prompts, config)
  count = -(-len(keys) // _SHARD)
  mine = range(part[0], count, part[1])
  print(
    f'{len(keys)} prompts to {count} shards in {out}; {len(mine)} are of part '
    f'{part[0]}/{part[1]}'
  )
  if dry_run:
    return
  about = {
    'text': fingerprint(path),
    'tokenizer': files.file_sha256(tokenizer)[:16],
    'dtype': dtype,
    'length': config.length,
    'width': config.dim,
    'shards': count,
    'per_shard': _SHARD,
  }
  prompt_embeddings.write_index(out, about, keys)
  paths = [prompt_embeddings.shard_path(out, shard) for shard in range(count)]
  missing = [shard for shard in mine if not paths[shard].exists()]
  if missing:
    run = _encoder(config, dtype, load)
  for shard in progress.track(missing, 'shard'):
    here = slice(shard * _SHARD, (shard + 1) * _SHARD)
    made = list(_rows(run, ids[here], mask[here], batch_size))
    prompt_embeddings.write_shard(paths[shard], made)
  there = len(storage.existing(paths))
  if there < count:
    print(f'{there} of {count} shards are there; run the other parts as well')
  print(out)
