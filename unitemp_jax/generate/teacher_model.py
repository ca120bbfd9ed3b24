"""A teacher on the devices: what `unitemp teacher` runs.

It needs no student, so that a folder with converted Wan 2.1 weights is enough.
Kernels are held in the dtype that they are used in and split over all devices;
vectors and tables stay in float32.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from unitemp_jax import timeline
from unitemp_jax.data.prompt_embeddings import PromptEmbeddings
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, weights
from unitemp_jax.parallel import mesh as device_mesh
from unitemp_jax.parallel.mesh import MODEL_RULES
from unitemp_jax.sampling import model_folder
from unitemp_jax.sampling.decode import Codec
from unitemp_jax.sampling.teacher_sampler import TeacherSampler


def _load(path: Path, config: Any, mesh) -> Any:
  shapes = sizes.inference_shapes(config)
  shardings = device_mesh.shardings_for(shapes, mesh, MODEL_RULES)

  def placed(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  return weights.load(path, jax.tree.map(placed, shapes, shardings))


class TeacherModel:
  """Teacher, text encoder and VAE of a model folder."""

  def __init__(self, folder: str | Path, embeddings: str | Path | None = None):
    """Loads a folder; with embeddings the text encoder is not needed.

    Raises:
      UserError: a file is missing or does not fit.
    """
    folder = Path(folder)
    self.card = card = model_folder.read_card(folder)
    if not weights.exist(folder / 'teacher.safetensors'):
      raise UserError(f'{folder} has no teacher.safetensors to sample.')
    self.embeddings = (
      None if embeddings is None else (PromptEmbeddings(embeddings))
    )
    networks: dict[str, Any] = {'teacher': card.dit, 'vae': card.vae}
    if self.embeddings is None:
      networks['text'] = card.text
    parts = jax.device_count()
    even = all(
      size % parts == 0
      for size in (card.dit.dim, card.text.dim, card.text.head_dim)
    )
    self._mesh = device_mesh.make_mesh(
      {'data': 1, 'fsdp': -1} if even else {'data': -1}
    )
    self._params = {
      name: _load(folder / f'{name}.safetensors', config, self._mesh)
      for name, config in networks.items()
    }
    tokenizer = Tokenizer.from_file(folder / 'tokenizer.json')
    self._sampler = TeacherSampler(card, tokenizer)
    self._codec = Codec(card.vae)

  def _spread(self, rows: np.ndarray) -> jax.Array:
    rows = np.asarray(rows)
    if rows.shape[0] % self._mesh.size == 0:
      return device_mesh.put_batch(rows, self._mesh)
    return jax.device_put(
      rows, jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec())
    )

  def sample(
    self, prompts: Sequence[str], seeds: Sequence[int], **settings: Any
  ) -> np.ndarray:
    """Latents `[B, N, h, w, C]`; settings as for `TeacherSampler.sample`."""
    card = self.card
    shape = (
      timeline.num_latents(card.frames, card.vae.temporal_stride),
      *card.latent_grid(card.height, card.width),
      card.dit.channels,
    )
    return self._sampler.sample(
      self._params,
      prompts,
      seeds,
      shape,
      self._spread,
      embeddings=self.embeddings,
      **settings,
    )

  def decode(self, latents: np.ndarray) -> np.ndarray:
    """Latents `[F, h, w, C]` to uint8 `[T, H, W, 3]`."""
    return np.asarray(self._codec.decode(self._params['vae'], latents[None]))[0]
