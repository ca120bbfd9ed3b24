"""A finished model on disk: configs, weights and tokenizer in one folder.

model.json            configs, sizes, provenance
vae.safetensors       student.safetensors       text.safetensors
teacher.safetensors   (optional)                tokenizer.json
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import unitemp_jax
from unitemp_jax import files, timeline
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, vae3d, weights
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.models.vae3d import VAEConfig
from unitemp_jax.sampling.step import StepOptions

INDEX = 'model.json'
TINY = unitemp_jax.TINY


@dataclasses.dataclass(frozen=True)
class ModelCard:
  """What `model.json` says."""

  vae: VAEConfig  # size of the VAE, with the latents' statistics
  dit: DiTConfig  # size of the transformer
  text: TextConfig  # size of the text encoder
  timesteps: tuple[int, ...]  # nominal timesteps of the student
  shift: float  # of the student's and the teacher's noise levels
  teacher_shift: float  # of the teacher's noise levels
  guidance_scale: float  # of the teacher, w in u + w (c - u)
  frames: int  # pixel frames of a clip
  height: int  # pixels
  width: int  # pixels
  fps: float  # frames per second
  block: int  # latents per block
  anchors: int  # P
  anchor_kind: str  # 'raw' or 'windowed' (`unitemp_jax/README.md`, Anchors)
  start: int  # level at which a block starts from carried anchors; 0 for never
  provenance: dict[str, Any]  # how the weights were made
  orders: tuple[str, ...] = ()  # that the student was trained on; empty for all
  # Latents that a block sees at most, as in training; None for all.
  window: int | None = None
  # Ends of a long video that stay in view unless asked otherwise.
  sinks: str = 'both'
  # See `step.StepOptions`; 0 in models that were trained without.
  draft_sigma: float = 0.0

  def untrained(self, order: str) -> str | None:
    """A warning about an order that the student was not trained on."""
    if not self.orders or order in self.orders:
      return None
    return (
      f'this model was trained on the order {", ".join(self.orders)} only; '
      f'{order} works, with worse pictures to expect'
    )

  @property
  def size_step(self) -> int:
    """Height and width are multiples of so many pixels."""
    return self.vae.spatial_stride * self.dit.patch

  @property
  def step_options(self) -> StepOptions:
    """What the sampler's step must know of this model."""
    return StepOptions(
      draft_from=int(self.anchor_kind == 'windowed'),
      draft_sigma=self.draft_sigma,
    )

  def latent_grid(self, height: int, width: int) -> tuple[int, int]:
    """Latent rows and columns; UserError if the model cannot make the size."""
    step = self.size_step
    if max(height, width) > timeline.MOST_SIDE:
      raise UserError(
        f'{height}x{width} pixels are too many; use at most '
        f'{timeline.MOST_SIDE} for height and width.'
      )
    if min(height, width) < step or height % step or width % step:
      near = [max(round(side / step), 1) * step for side in (height, width)]
      raise UserError(
        f'{height}x{width} pixels: height and width must be multiples of '
        f'{step} for this model; use {near[0]}x{near[1]}.'
      )
    return vae3d.latent_grid(self.vae, height, width)

  def best_size(self, aspect: float) -> tuple[int, int]:
    """Height and width at the model's area that come nearest to a shape.

    Args:
      aspect: height over width.

    Returns:
      Multiples of `size_step`; the model's own size where that is as near.
    """
    own = (self.height, self.width)
    step, area = self.size_step, self.height * self.width

    def distance(size):
      height, width = size
      shape = abs(math.log(height / width / aspect))
      # An area that is off by a factor of 2 is as bad as a shape by 1.4.
      return shape + 0.5 * abs(math.log(height * width / area)), size != own

    heights = range(step, 4 * max(own) + 1, step)
    sizes = [(h, max(round(h / aspect / step), 1) * step) for h in heights]
    return min([own, *sizes], key=distance)


def param_shapes(card: ModelCard) -> dict[str, Any]:
  """Shapes of every network's parameters, by the name of its file."""
  return _by_file(card, sizes.param_shapes)


def inference_shapes(card: ModelCard) -> dict[str, Any]:
  """The same in the dtypes that a finished model is held in."""
  return _by_file(card, sizes.inference_shapes)


def _by_file(card: ModelCard, of: Callable[[Any], Any]) -> dict[str, Any]:
  dit = of(card.dit)
  return {
    'vae': of(card.vae),
    'student': dit,
    'text': of(card.text),
    'teacher': dit,
  }


def write_card(folder: Path, card: ModelCard) -> Path:
  """Writes `model.json` atomically."""
  return files.write_json(folder / INDEX, dataclasses.asdict(card), indent=2)


def read_card(folder: Path) -> ModelCard:
  """Reads `model.json`."""
  path = folder / INDEX
  if files.is_web_address(folder):
    raise files.no_file(folder)
  if not path.exists():
    raise UserError(
      f'{folder} is not a model folder ({INDEX} is missing); give the folder '
      'that "unitemp export" wrote.'
    )
  mend = 'restore it or export the model again'
  fields = files.read_json(path, 'a model card', mend)
  try:
    for name, kind in (
      ('vae', VAEConfig),
      ('dit', DiTConfig),
      ('text', TextConfig),
    ):
      fields[name] = sizes.config_from(kind, fields[name])
    for name in ('timesteps', 'orders'):
      if name in fields:
        if not isinstance(fields[name], list):
          raise TypeError(f'{name} is no list')
        fields[name] = tuple(fields[name])
    if 'guidance' in fields:  # Its former name.
      fields['guidance_scale'] = fields.pop('guidance')
    sizes.check_names(ModelCard, fields)
    card = ModelCard(**fields)
  except (KeyError, TypeError, AttributeError, UserError) as error:
    raise UserError(
      f'{path} does not describe a model of this version ({error}); {mend}.'
    ) from error
  problem = problem_of(card)
  if problem:
    raise UserError(f'{path} does not describe a model: {problem}; {mend}.')
  for name, network in (('student', 'dit'), ('text', 'text')):
    check_heads(folder / f'{name}.safetensors', network, getattr(card, network))
  return card


def check_heads(path: Path, network: str, config: Any) -> None:
  """Refuses weights that say they have another number of heads.

  Shapes are the same for any number of heads.
  """
  if not weights.exist(path):
    return
  with weights.Files(path) as opened:
    heads = weights.heads(opened.metadata, network)
  if heads not in (None, config.num_heads):
    raise UserError(
      f'{path} has {heads} heads of attention by its own header, and the model '
      f'is described with {config.num_heads} ({network}.num_heads); correct '
      'the description.'
    )


def problem_of(card: ModelCard) -> str | None:
  """Says why a model of this description cannot run, None if it can."""
  for name in ('vae', 'dit', 'text'):
    wrong = sizes.problem_of(getattr(card, name), name)
    if wrong:
      return wrong
  return sizes.misfits(card, ModelCard, '') or next(_problems(card), None)


def _problems(card: ModelCard) -> Iterator[str]:
  """What cannot run of a card whose networks can."""
  vae, dit, levels = card.vae, card.dit, card.timesteps
  names = ('frames', 'height', 'width', 'block', 'fps', 'shift')
  found = {name: getattr(card, name) for name in (*names, 'teacher_shift')}
  found['window'] = 1 if card.window is None else card.window
  for name, value in found.items():
    if value <= 0:
      yield f'{name} is {value} and must be above 0'
  for name, word, choices in (
    ('anchor_kind', card.anchor_kind, ('raw', 'windowed')),
    ('sinks', card.sinks, ('none', 'past', 'future', 'both')),
  ):
    if word not in choices:
      yield f'{name} is {word!r:.60}, not one of {", ".join(choices)}'
  if card.height % card.size_step or card.width % card.size_step:
    sides = f'height {card.height} and width {card.width}'
    yield f'{sides} are not multiples of {card.size_step}'
  if max(card.height, card.width) > timeline.MOST_SIDE:
    yield 'height or width is too large'
  if card.fps < 0.01:
    yield f'fps is {card.fps:g}, below 0.01'
  if card.fps > timeline.MOST_FPS:
    yield f'fps is {card.fps:g}, above {timeline.MOST_FPS}'
  if not 0 <= card.draft_sigma < 1:
    yield 'draft_sigma is not from 0 to below 1'
  if (card.frames - 1) % timeline.STRIDE:
    yield f'frames {card.frames} is not 1 + {timeline.STRIDE}k'
  if dit.channels != vae.z_dim:
    yield f'dit.channels is {dit.channels}, but vae.z_dim {vae.z_dim}'
  falling = levels == tuple(sorted(set(levels), reverse=True))
  if not levels or not falling or not 0 < levels[-1] <= levels[0] <= 1000:
    yield f'timesteps {levels} do not fall within 1000 to 1'
  if not 0 <= card.anchors <= card.block:
    yield f'anchors is {card.anchors}, not 0 to block {card.block}'
  if not 0 <= card.start <= len(levels):
    yield f'start is {card.start}, not 0 to {len(levels)} timesteps'


def fingerprint(folder: Path) -> str:
  """Hash of all that decides what the model generates, 16 hex digits."""
  parts: list[Path] = []
  names = [f'{name}.safetensors' for name in ('vae', 'student', 'text')]
  for name in (*names, INDEX, 'tokenizer.json'):
    path = folder / name
    if not path.is_file() and weights.index_path(path).is_file():
      stem = path.name.removesuffix('.safetensors')
      parts += sorted(folder.glob(f'{stem}-*.safetensors'))
    else:
      parts.append(path)
  for part in parts:
    if not part.is_file():
      raise UserError(f'{part} is missing; export the model again.')
  return files.file_sha256(*parts)[:16]
