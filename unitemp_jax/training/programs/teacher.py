"""The teacher stage: bidirectional flow matching, text encoder included."""

import jax
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, text_to_video, vae3d
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.objectives import flow_match
from unitemp_jax.training.programs import builders, samples
from unitemp_jax.training.programs.lazy_weights import LazyWeights
from unitemp_jax.training.programs.plan_sets import windowed
from unitemp_jax.training.programs.single import SingleLossProgram


def latent_shape(config: ConfigDict) -> tuple[int, int, int]:
  """Frames, rows and columns of the latents of a config's clips."""
  vae = builders.vae_config(config.model)
  frames = vae3d.num_latents(config.data.num_frames, vae.temporal_stride)
  return frames, *vae3d.latent_grid(vae, *builders.frame_size(config.data))


def teacher_program(
  config: ConfigDict, mesh, abstract: bool = False
) -> SingleLossProgram:
  """Flow matching on latents; the trained tree is {'dit', 'text'}.

  With `config.latents.embeddings` it is the transformer alone. With
  `config.pretrained` the training goes on from these weights.
  """
  del mesh, abstract
  dit = DiT(builders.dit_config(config.model))
  encoder = TextEncoder(builders.text_config(config.model))
  embedded = bool(config.latents.get('embeddings'))
  initial = {}
  if config.get('pretrained'):
    shapes = sizes.param_shapes(dit.config)
    if not embedded:
      shapes = {'dit': shapes, 'text': sizes.param_shapes(encoder.config)}
    initial['teacher'] = LazyWeights(config.pretrained, shapes)

  def init_params(key, initial):
    if initial:
      return initial['teacher']
    tree = text_to_video.init_teacher(dit, encoder, key, *latent_shape(config))
    return tree['dit'] if embedded else tree

  def loss(params, frozen, batch, key):
    del frozen
    key_drop, key_flow = jax.random.split(key)
    if embedded:
      params = {'dit': params, 'text': {}}
    text = text_to_video.batch_text(encoder, params['text'], batch)
    # Without its text a clip trains the unconditional side of guidance.
    shape = (text.shape[0], 1, 1)
    keep = jax.random.uniform(key_drop, shape) >= config.loss.text_drop
    text = text * keep.astype(text.dtype)
    context = text_to_video.text_context(dit, params['dit'], text)
    return flow_match.loss(
      params['dit'],
      batch['latents'],
      key_flow,
      denoise=lambda p, x, sigma: text_to_video.bidirectional(
        dit, p, x, sigma, context
      ),
      shift=config.loss.shift,
    )

  return SingleLossProgram(
    'teacher',
    init_params=init_params,
    initial=initial,
    loss=loss,
    optimizer=builders.optimizer(config.optimizer),
    ema_decay=config.ema_decay,
    accumulate=config.accumulate,
    sample_fn=None if embedded else samples.teacher_samples(config),
  )


def latent_batch(
  examples: dict[str, np.ndarray],
  orders: ConfigDict,
  trajectories: bool = False,
) -> dict[str, np.ndarray]:
  """Keeps of a loader's batch what stages learn from.

  Returns:
    latents `[B, N, h, w, C]`; last_image `[B, 1, h, w, C]`; anchors `[B, blocks
    - 1, P, h, w, C]` of the kind that `orders` wants; ids and mask `[B, E]`, or
    text `[B, E, Dt]`; with `trajectories` trajectory `[B, levels, N, h, w,
    C]`.

  Raises:
    UserError: the latents were encoded for anchors of the other kind, or are
      not those of trajectories.
  """
  kept = {
    'latents': np.float32,
    'last_image': np.float32,
    'anchors': np.float32,
    'ids': np.int32,
    'mask': bool,
    'text': np.float32,
  }
  batch = {
    name: np.asarray(examples[name], dtype)
    for name, dtype in kept.items()
    if name in examples
  }
  if trajectories:
    if 'trajectory' not in examples:
      raise UserError(
        'config.latents.dir holds no trajectories of a teacher; make them with '
        '"unitemp ode_pairs".'
      )
    batch['trajectory'] = np.asarray(examples['trajectory'], np.float32)
  if not windowed(orders):
    latents = batch['latents']
    firsts = range(orders.block, latents.shape[1], orders.block)
    rows = [latents[:, first - orders.anchors : first] for first in firsts]
    batch['anchors'] = np.stack(rows, axis=1)
  elif 'anchors' not in batch:
    raise UserError(
      'config.orders.anchor_kind is "windowed", but the latents in '
      'config.latents.dir hold no windows; encode them again elsewhere.'
    )
  return batch
