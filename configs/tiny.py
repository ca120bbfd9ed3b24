"""The tiny model: what its stages have in common.

32x32 pixels and 33 frames are 9 latents of 4x4x16, three blocks of three. The
sizes below are the model that ships in unitemp_jax/assets/tiny; `get_config`
of the stage files takes `test` for the still smaller size of the tests.
"""

from ml_collections import ConfigDict

from configs import common

PIXELS = 32
FRAMES = 33


def config_for(objective: str, arg: str | None) -> ConfigDict:
  """Returns the settings that all stages share, for `arg` None or 'test'."""
  if arg not in (None, 'test'):
    raise ValueError(f'the argument is {arg!r}; leave it out or use "test"')
  config = common.training_config()
  config.objective = objective
  config.optimizer = common.optimizer_config(schedule='cosine')
  config.ema_decay = 0.999
  config.data = ConfigDict(
    {
      'name': 'falling_digits',
      'dir': 'data',
      'size': PIXELS,
      'num_frames': FRAMES,
      'num_clips': 12_000,
      'hop_share': 0.25,
      'turn_share': 0.25,
    }
  )
  config.model = ConfigDict(
    {
      'vae': {
        'base_dim': 16,
        'dim_mult': (1, 2, 4),
        'num_res_blocks': 1,
        'temporal_down': (True, True),
        'z_dim': 16,
        'patch': 2,
      }
    }
  )
  if arg == 'test':
    _shrink(config)
  return config


def latent_stage(config: ConfigDict, arg: str | None) -> None:
  """Adds what every stage after the VAE needs: data, model, orders."""
  config.model.update(
    {
      'dit': {
        'dim': 160,
        'ffn_dim': 640,
        'num_heads': 5,
        'num_layers': 6,
        'channels': 16,
        'patch': 2,
        'text_dim': 96,
        'freq_dim': 128,
        'rope_theta': 100.0,
        'unroll': 1,
      },
      'text': {
        'vocab': 68,
        'dim': 96,
        'num_heads': 4,
        'head_dim': 24,
        'ffn_dim': 192,
        'num_layers': 2,
        'length': 20,
      },
    }
  )
  if arg == 'test':
    config.model.dit.update(
      {
        'dim': 32,
        'ffn_dim': 64,
        'num_heads': 2,
        'num_layers': 2,
        'text_dim': 16,
        'unroll': 1,
      }
    )
    config.model.text.update(
      {'dim': 16, 'num_heads': 2, 'head_dim': 8, 'ffn_dim': 32, 'num_layers': 1}
    )
  config.latents = ConfigDict(
    {
      'dir': 'data/tiny_latents',
      # What `unitemp encode` makes them from.
      'vae': 'runs/tiny_vae/weights/vae.safetensors',
      'tokenizer': 'unitemp_jax/assets/tiny/tokenizer.json',
    }
  )
  config.teacher = 'runs/tiny_teacher/weights/teacher.safetensors'
  config.student = ConfigDict(
    {'timesteps': (1000, 750, 500, 250), 'shift': 5.0}
  )
  # How the teacher is sampled.
  config.sampling = ConfigDict(
    {'fps': 12, 'teacher_shift': 3.0, 'guidance_scale': 3.0}
  )
  config.orders = _orders()


def _orders() -> ConfigDict:
  """The plans that students are trained on, and their shares."""
  return ConfigDict(
    {
      'block': 3,
      'anchors': 3,
      # What they stand for: 'windowed', the window before the block encoded by
      # itself, so that the first is an image latent, or 'raw', the latents that
      # the video's own encoding has there.
      'anchor_kind': 'windowed',
      # Blocks start from carried anchors at the third sigma, .625, or with
      # `draft_sigma` at that one, where they are held until the last pass:
      # see the ablations of unitemp_jax/evaluation/README.md.
      'start': 3,
      'draft_sigma': 0.05,
      'weights': {
        'forward': 0.15,
        'backward': 0.15,
        # Rows that see one block alone, as in long videos: an opening that is
        # made last through a small view lost its colour.
        'forward+window': 0.05,
        'backward+window': 0.1,
        'forward+first': 0.05,
        'forward+last': 0.05,
        'backward+last': 0.1,
        'inbetween': 0.1,
        'inbetween_future': 0.1,
        'inbetween_outside_in': 0.05,
        'inbetween_middle_out': 0.05,
        # Its first frame is also its last: that one alone is met.
        'loop': 0.1,
      },
    }
  )


def _shrink(config: ConfigDict) -> None:
  """The size of the tests: seconds per stage, nothing to look at."""
  config.data.num_clips = 64
  config.data.size = 16
  config.num_steps = 6
  config.batch_size = 8
  config.optimizer.warmup_steps = 1
  config.optimizer.decay_steps = 6
  config.model.vae.update({'base_dim': 4, 'dim_mult': (1, 1, 2)})
