"""From configs to what models, plans, batches and trainings are made of."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax import orders, plans, timeline
from unitemp_jax.data import latents
from unitemp_jax.data.falling_digits import FallingDigitsSpec
from unitemp_jax.data.video_list import VideoFolderSpec, read_buckets
from unitemp_jax.diffusion import flow, guidance
from unitemp_jax.errors import UserError, check_known
from unitemp_jax.models import sizes, vae3d
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.models.vae3d import VAEConfig
from unitemp_jax.sampling.model_folder import ModelCard

ANCHOR_KINDS = ('raw', 'windowed')
_NETWORKS = {VAEConfig: 'vae', DiTConfig: 'dit', TextConfig: 'text'}


def model_config(kind: type, values: ConfigDict | dict[str, Any]) -> Any:
  """Returns `kind(**values)`, a frozen dataclass; lists become tuples."""
  try:
    made = sizes.config_from(kind, dict(values))
  except TypeError as error:
    raise UserError(
      f'the config of {kind.__name__} does not fit ({error}); remove or '
      'rename that key.'
    ) from error
  name = _NETWORKS.get(kind)
  problem = name and sizes.problem_of(made, name)
  if problem:
    raise UserError(f'config.model: {problem}; change it.')
  return made


def frame_size(data: ConfigDict) -> tuple[int, int]:
  """Rows and columns of a `config.data`'s clips; one `size` is both."""
  if 'size' in data:
    return data.size, data.size
  return data.height, data.width


def vae_config(model: ConfigDict) -> VAEConfig:
  """The VAE of a `config.model`."""
  return model_config(VAEConfig, model['vae'])


def dit_config(model: ConfigDict) -> DiTConfig:
  """The transformer of a `config.model`."""
  return model_config(DiTConfig, model['dit'])


def text_config(model: ConfigDict) -> TextConfig:
  """The text encoder of a `config.model`."""
  return model_config(TextConfig, model['text'])


# Kind of a network -> what reads its size.
SIZES = {'dit': dit_config, 'vae': vae_config, 'umt5': text_config}


def clip_spec(data: ConfigDict) -> FallingDigitsSpec:
  """The training clips of a `config.data`."""
  return FallingDigitsSpec(
    num_frames=data.num_frames,
    size=data.size,
    hop_share=data.hop_share,
    turn_share=data.turn_share,
  )


def video_spec(data: ConfigDict) -> VideoFolderSpec:
  """The clips of one's own videos of a `config.data`."""
  height, width = frame_size(data)
  return VideoFolderSpec(
    videos=data.videos,
    fps=data.fps,
    height=height,
    width=width,
    num_frames=data.num_frames,
    captions=data.captions or None,
    columns=tuple(data.get('columns', ('file', 'caption'))),
    short=data.get('short', 'drop'),
    buckets=read_buckets(data.get('buckets', '')),
  )


def rows(
  config: ConfigDict, shapes: Mapping[str, tuple[tuple[int, ...], Any]]
) -> dict[str, jax.ShapeDtypeStruct]:
  """A global batch of rows of these shapes and dtypes."""
  return {
    name: jax.ShapeDtypeStruct((config.batch_size, *shape), dtype)
    for name, (shape, dtype) in shapes.items()
  }


def latent_shape(
  config: ConfigDict, frames: int | None = None
) -> tuple[int, int, int]:
  """Frames, rows and columns of the latents of a config's clips."""
  count = timeline.num_latents(frames or config.data.num_frames)
  height, width = frame_size(config.data)
  rows, columns = vae3d.latent_grid(vae_config(config.model), height, width)
  patch = config.model.dit.patch if 'dit' in config.model else 1
  if rows % patch or columns % patch:
    raise UserError(
      f'config.data of {height}x{width} pixels does not divide into patches of '
      f"{patch} (config.model.dit.patch) of the VAE's {rows}x{columns}; "
      'change one of them.'
    )
  return count, rows, columns


def student_sigmas(config: ConfigDict) -> np.ndarray:
  """Sigmas of the few-step student, the last one 0."""
  return flow.student_sigmas(
    tuple(config.student.timesteps), config.student.shift
  )


def model_card(
  config: ConfigDict, index: dict[str, Any], provenance: dict[str, Any]
) -> ModelCard:
  """What a model folder says about itself."""
  vae = dataclasses.replace(
    vae_config(config.model),
    latent_mean=tuple(index['latent_mean']),
    latent_std=tuple(index['latent_std']),
  )
  height, width = frame_size(config.data)
  return ModelCard(
    vae=vae,
    dit=dit_config(config.model),
    text=text_config(config.model),
    timesteps=tuple(config.student.timesteps),
    shift=config.student.shift,
    teacher_shift=config.sampling.teacher_shift,
    guidance_scale=guidance.config_scale(config, 'sampling'),
    frames=config.data.num_frames,
    height=height,
    width=width,
    fps=config.sampling.fps,
    block=config.orders.block,
    anchors=config.orders.anchors,
    anchor_kind=config.orders.anchor_kind,
    start=config.orders.start,
    draft_sigma=config.orders.get('draft_sigma', 0.0),
    provenance=provenance,
  )


def training_plans(
  settings: ConfigDict, num_latents: int
) -> tuple[list[plans.Plan], list[float]]:
  """Plans of equal shape and their sampling weights.

  Args:
    settings: `weights` maps names of `orders.ORDERS` to weights, a name may end
      in `+first` or `+last` for a given first or last frame, in `+window` for
      rows that see one block alone. A `loop` begins with an image latent here,
      as all that a teacher knows; its end sees that one alone, or with
      `+overlap` its whole first block. `anchors` and `start` are the arguments
      of the order functions.
    num_latents: N.
  """
  known = {
    'first': {'given_first': 1},
    'last': {'given_last': 1},
    'overlap': {'overlap': settings.block},
    'window': {'window': settings.block},
  }
  # How loops are trained.
  special = {'loop': {'side': 'past', 'closed': True, 'overlap': 1}}
  made, weights = [], []
  for name, weight in settings.weights.items():
    order, *extras = name.split('+')
    check_known('config.orders.weights names', order, orders.ORDERS)
    keywords = dict(special.get(order, {}))
    for extra in extras:
      if extra not in known:
        raise UserError(
          f'config.orders.weights names {name!r}; after the order use '
          f'{", ".join(f"+{one}" for one in known)}.'
        )
      keywords.update(known[extra])
    made.append(
      orders.ORDERS[order](
        num_latents,
        block=settings.block,
        anchors=settings.anchors,
        start=settings.start,
        **keywords,
      )
    )
    weights.append(float(weight))
  return plans.align(*made), weights


def windowed(settings: ConfigDict) -> bool:
  """Whether a `config.orders` asks for windowed anchors."""
  kind = settings.anchor_kind
  check_known('config.orders.anchor_kind is', kind, ANCHOR_KINDS)
  return settings.anchors > 0 and settings.anchor_kind == 'windowed'


def anchor_windows(settings: ConfigDict, num_frames: int) -> list[slice]:
  """Frames of the anchors of every block but the first; none if they are raw.

  Anchors at positions a .. a + P - 1 stand for the frames 4a .. 4 (a + P - 1).
  """
  if not windowed(settings):
    return []
  num_latents = timeline.num_latents(num_frames)
  firsts = range(settings.block, num_latents, settings.block)
  return [
    slice(
      timeline.last_frame(first - settings.anchors),
      timeline.last_frame(first - 1) + 1,
    )
    for first in firsts
  ]


_DTYPES = {
  'latents': np.float32,
  'last_image': np.float32,
  'anchors': np.float32,
  'trajectory': np.float32,
  'ids': np.int32,
  'mask': bool,
  'text': np.float32,
}


def latents_dirs(config: ConfigDict) -> list[str]:
  """Where clips are: the folders that `latents.dir` names, with commas.

  If it is one, and nothing is there, the first of `latents.also` there is.
  """
  own = config.latents.dir.split(',')
  if len(own) > 1:
    return own
  return [str(latents.first_of([*own, *config.latents.get('also', ())]))]


def latents_dir(config: ConfigDict) -> str:
  """The first of `latents_dirs`, whose mean and deviation are those of all."""
  return latents_dirs(config)[0]


def of_shape(config: ConfigDict, shape: tuple[int, ...]) -> ConfigDict:
  """The config for clips whose latents are `[F, h, w]`."""
  frames, *grid = shape
  stride = vae_config(config.model).spatial_stride
  resized = config.copy_and_resolve_references()
  with resized.unlocked():
    if 'size' in resized.data:
      del resized.data.size
    resized.data.num_frames = timeline.num_frames(frames)
    resized.data.height, resized.data.width = (stride * n for n in grid)
  return resized


def needs_clips(config: ConfigDict) -> bool:
  """Whether a stage learns from clips, and not from prompts alone.

  Distillation takes them for the frames that its orders are given.
  """
  if config.objective != 'distill':
    return True
  made, _ = training_plans(config.orders, latent_shape(config)[0])
  return any(len(plan.preloaded()[0]) for plan in made)


def latent_spec(
  config: ConfigDict, trajectories: bool = False
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of a global batch of what `latent_batch` returns."""
  frames, *grid = latent_shape(config)
  latent = (*grid, vae_config(config.model).z_dim)
  orders = config.orders
  blocks = len(range(orders.block, frames, orders.block))
  text = text_config(config.model)
  shapes: dict[str, tuple[int, ...]] = {}
  if needs_clips(config):
    shapes['latents'] = (frames, *latent)
    shapes['last_image'] = (1, *latent)
    shapes['anchors'] = (blocks, orders.anchors, *latent)
  if trajectories:
    count = len(config.student.timesteps)
    shapes['trajectory'] = (count, frames, *latent)
  if config.latents.get('embeddings'):
    width = dit_config(config.model).text_dim
    shapes['text'] = (text.length, width)
  else:
    shapes |= {'ids': (text.length,), 'mask': (text.length,)}
  return rows(
    config, {name: (shape, _DTYPES[name]) for name, shape in shapes.items()}
  )


def text_batch(examples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns of a loader's batch the prompts alone."""
  names = ('ids', 'mask', 'text')
  return {
    n: np.asarray(examples[n], _DTYPES[n]) for n in names if n in examples
  }


def latent_batch(
  examples: dict[str, np.ndarray],
  orders: ConfigDict,
  trajectories: bool = False,
) -> dict[str, np.ndarray]:
  """Returns of a loader's batch what stages learn from.

  Returns:
    latents `[B, N, h, w, C]`; last_image `[B, 1, h, w, C]`; anchors `[B, blocks
    - 1, P, h, w, C]` of the kind that `orders` wants; ids and mask `[B, E]`, or
    text `[B, E, Dt]`; with `trajectories` trajectory `[B, sigmas, N, h, w,
    C]`.
  """
  if trajectories and 'trajectory' not in examples:
    raise UserError(
      'config.latents.dir holds no trajectories of a teacher; make them with '
      '"unitemp ode_pairs".'
    )
  batch = {
    name: np.asarray(examples[name], dtype)
    for name, dtype in _DTYPES.items()
    if name in examples and (trajectories or name != 'trajectory')
  }
  if not windowed(orders):
    clips = batch['latents']
    firsts = range(orders.block, clips.shape[1], orders.block)
    rows = [clips[:, first - orders.anchors : first] for first in firsts]
    batch['anchors'] = np.stack(rows, axis=1)
  elif 'anchors' not in batch:
    raise UserError(
      'config.orders.anchor_kind is "windowed", but the latents in '
      'config.latents.dir hold no windows; encode them again elsewhere.'
    )
  return batch
