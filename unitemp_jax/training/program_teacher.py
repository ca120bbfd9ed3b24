"""The teacher stage: bidirectional flow matching, text encoder included."""

import jax
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax.models import text_to_video, vae3d
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.objectives import flow_match
from unitemp_jax.training import builders, program_samples
from unitemp_jax.training.program_single import SingleLossProgram


def latent_shape(config: ConfigDict) -> tuple[int, int, int]:
  """Frames, rows and columns of the latents of a config's clips."""
  vae = builders.vae_config(config.model)
  frames = vae3d.num_latents(config.data.num_frames, vae.temporal_stride)
  return frames, *vae3d.latent_grid(vae, *builders.frame_size(config.data))


def teacher_program(config: ConfigDict, mesh) -> SingleLossProgram:
  """Flow matching on latents; the trained tree is {'dit', 'text'}."""
  del mesh
  dit = DiT(builders.dit_config(config.model))
  encoder = TextEncoder(builders.text_config(config.model))

  def loss(params, frozen, batch, key):
    del frozen
    key_drop, key_flow = jax.random.split(key)
    text = text_to_video.encode_text(
      encoder, params['text'], batch['ids'], batch['mask']
    )
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
    init_params=lambda key: text_to_video.init_teacher(
      dit, encoder, key, *latent_shape(config)
    ),
    loss=loss,
    optimizer=builders.optimizer(config.optimizer),
    ema_decay=config.ema_decay,
    accumulate=config.accumulate,
    sample_fn=program_samples.teacher_samples(config),
  )


def latent_batch(examples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Keeps latents, last images and tokens or text of a loader's batch."""
  kept = {
    'latents': np.float32,
    'last_image': np.float32,
    'ids': np.int32,
    'mask': bool,
    'text': np.float32,
  }
  return {
    name: np.asarray(examples[name], dtype)
    for name, dtype in kept.items()
    if name in examples
  }
