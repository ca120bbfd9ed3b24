"""The text encoder by itself, split over this host's devices."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unitemp_jax.models import sizes
from unitemp_jax.models.umt5 import TextConfig, TextEncoder
from unitemp_jax.parallel.mesh import MODEL_RULES, make_mesh, shardings_for


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
  files = sorted(path.iterdir()) if path.is_dir() else [path]
  digest = hashlib.sha256()
  for file in files:
    size = file.stat().st_size
    digest.update(f'{size} '.encode())
    with file.open('rb') as content:
      digest.update(content.read(2**20))
      content.seek(max(0, size - 2**20))
      digest.update(content.read())
  return digest.hexdigest()[:16]


class PromptEncoder:
  """Token ids to the rows of embeddings before the end of each text."""

  def __init__(
    self, config: TextConfig, dtype: str, load: Callable[[Any], Any]
  ):
    """Loads the weights in the dtype that the encoder computes in.

    Args:
      config: its size.
      dtype: 'float32' or 'bfloat16', of weights, arithmetic and embeddings.
      load: from shapes with shardings to weights.
    """
    self.config = dataclasses.replace(config, dtype=dtype)
    mesh = local_mesh(config)
    shapes = sizes.param_shapes(config, dtype)
    self._params = load(
      jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        shardings_for(shapes, mesh, MODEL_RULES),
      )
    )
    self._everywhere = NamedSharding(mesh, PartitionSpec())
    encoder = TextEncoder(self.config)
    self._encode = jax.jit(
      lambda params, ids, mask: encoder.apply({'params': params}, ids, mask),
      out_shardings=self._everywhere,
    )

  def __call__(
    self, ids: np.ndarray, mask: np.ndarray, batch: int
  ) -> Iterator[np.ndarray]:
    """Yields `[tokens, D]` for each of the texts `[B, E]`."""
    for first in range(0, len(ids), batch):
      here = slice(first, first + batch)
      rows, ends = ids[here], mask[here]
      # The last batch is filled up, so that all share one compilation.
      fill = [(0, batch - len(rows)), (0, 0)]
      arrays = (
        np.pad(rows, fill, mode='edge'),
        np.pad(ends, fill, mode='edge'),
      )
      made = np.asarray(
        self._encode(self._params, *jax.device_put(arrays, self._everywhere))
      )
      for row, end in zip(made, ends, strict=False):
        yield row[: int(end.sum())]
