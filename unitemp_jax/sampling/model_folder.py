"""A finished model on disk: configs, weights and tokenizer in one folder.

model.json            configs, sizes, provenance
vae.safetensors       student.safetensors       text.safetensors
teacher.safetensors   (optional)                tokenizer.json
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, text_to_video, vae3d, weights
from unitemp_jax.models.dit import DiT, DiTConfig
from unitemp_jax.models.umt5 import TextConfig, TextEncoder
from unitemp_jax.models.vae3d import VAEConfig
from unitemp_jax.sampling.step import StepOptions

INDEX = 'model.json'
TINY = Path(__file__).parent.parent / 'assets' / 'tiny'


@dataclasses.dataclass(frozen=True)
class ModelCard:
  """What `model.json` says.

  Attributes:
    vae: size of the VAE, with the latents' statistics.
    dit: size of the transformer.
    text: size of the text encoder.
    timesteps: nominal timesteps of the student.
    shift: of the student's and the teacher's noise levels.
    teacher_shift: of the teacher's noise levels.
    guidance: standard guidance scale of the teacher.
    frames: pixel frames of a clip.
    height: pixels.
    width: pixels.
    fps: frames per second.
    block: latents per block.
    anchors: P.
    anchor_kind: 'raw' or 'windowed' (`unitemp_jax/README.md`, Anchors).
    start: level at which a block starts from carried anchors; 0 for never.
    provenance: how the weights were made.
  """

  vae: VAEConfig
  dit: DiTConfig
  text: TextConfig
  timesteps: tuple[int, ...]
  shift: float
  teacher_shift: float
  guidance: float
  frames: int
  height: int
  width: int
  fps: int
  block: int
  anchors: int
  anchor_kind: str
  start: int
  provenance: dict[str, Any]

  @property
  def size_step(self) -> int:
    """Height and width are multiples of so many pixels."""
    return self.vae.spatial_stride * self.dit.patch

  @property
  def step_options(self) -> StepOptions:
    """What the sampler's step must know of this model."""
    return StepOptions(draft_from=int(self.anchor_kind == 'windowed'))

  def latent_grid(self, height: int, width: int) -> tuple[int, int]:
    """Latent rows and columns; UserError if the model cannot make the size."""
    step = self.size_step
    if min(height, width) < step or height % step or width % step:
      near = [max(round(side / step), 1) * step for side in (height, width)]
      raise UserError(
        f'{height}x{width} pixels: height and width must be multiples of '
        f'{step} for this model; use {near[0]}x{near[1]}.'
      )
    return vae3d.latent_grid(self.vae, height, width)


def param_shapes(card: ModelCard) -> dict[str, Any]:
  """Shapes of every network's parameters, by the name of its file."""
  vae = vae3d.VAE(card.vae)
  pixels = (1, card.frames, card.height, card.width, 3)
  video = jax.ShapeDtypeStruct(pixels, jnp.float32)
  frames = vae3d.num_latents(card.frames, card.vae.temporal_stride)
  grid = vae3d.latent_grid(card.vae, card.height, card.width)
  teacher = jax.eval_shape(
    lambda key: text_to_video.init_teacher(
      DiT(card.dit), TextEncoder(card.text), key, frames, *grid
    ),
    jax.random.key(0),
  )
  return {
    'vae': jax.eval_shape(vae.init, jax.random.key(0), video)['params'],
    'student': teacher['dit'],
    'text': teacher['text'],
    'teacher': teacher['dit'],
  }


def held_shapes(card: ModelCard) -> dict[str, Any]:
  """The same in the dtypes that a finished model is held in."""
  dit = sizes.held_shapes(card.dit)
  return {
    'vae': sizes.held_shapes(card.vae),
    'student': dit,
    'text': sizes.held_shapes(card.text),
    'teacher': dit,
  }


def write_card(folder: Path, card: ModelCard) -> Path:
  """Writes `model.json` atomically."""
  return files.write_json(folder / INDEX, dataclasses.asdict(card), indent=2)


def read_card(folder: Path) -> ModelCard:
  """Reads `model.json`.

  Raises:
    UserError: no such file, or it does not describe a model.
  """
  path = folder / INDEX
  if not path.exists():
    raise UserError(
      f'{folder} is not a model folder ({INDEX} is missing); give the folder '
      'that "unitemp export" wrote.'
    )
  fields = files.read_json(path, 'a model', 'restore or export it again')
  try:
    kinds: dict[str, Any] = {
      'vae': VAEConfig,
      'dit': DiTConfig,
      'text': TextConfig,
    }
    for name, kind in kinds.items():
      fields[name] = sizes.config_from(kind, fields[name])
    fields['timesteps'] = tuple(fields['timesteps'])
    return ModelCard(**fields)
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f'{path} does not describe a model of this version ({error}); export the '
      'model again.'
    ) from error


def fingerprint(folder: Path) -> str:
  """Hash of all that decides what the model generates, 16 hex digits."""
  found = []
  names = [f'{name}.safetensors' for name in ('vae', 'student', 'text')]
  for name in (*names, INDEX, 'tokenizer.json'):
    path = folder / name
    parts = [path]
    if weights.index_path(path).is_file():  # Weights in parts.
      stem = path.name.removesuffix('.safetensors')
      parts = sorted(folder.glob(f'{stem}-*.safetensors'))
    for part in parts:
      if not part.is_file():
        raise UserError(f'{part} is missing; export the model again.')
    found += parts
  return files.file_sha256(*found)[:16]
