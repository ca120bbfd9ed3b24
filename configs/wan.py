"""Wan 2.1 at 480x832 and 81 frames: what its stages have in common.

Sizes and constants are the published ones (Wan 2.1, arXiv 2503.20314). Files
named below are those of Wan-Video/Wan2.1, if not said otherwise. None of these
configs was run: no weights and no accelerators of that size were at hand. What
is checked is that the shapes are those of the checkpoints, to the parameter:
1,418,996,800 (1.3B), 14,288,491,584 (14B), 126,892,531 (VAE).

81 frames are 21 latents of 60x104x16, seven blocks of three, 32,760 tokens.
"""

from ml_collections import ConfigDict

from configs import common
from unitemp_jax.sampling.teacher import WAN_NEGATIVE_PROMPT

# wan/configs/wan_t2v_1_3B.py, wan_t2v_14B.py.
DIT_1P3B = {'dim': 1536, 'ffn_dim': 8960, 'num_heads': 12, 'num_layers': 30}
DIT_14B = {'dim': 5120, 'ffn_dim': 13824, 'num_heads': 40, 'num_layers': 40}


def dit_config(size: dict) -> dict:
  """Returns the transformer of a size."""
  return {
    **size,
    'channels': 16,
    'patch': 2,
    'text_dim': 4096,
    'freq_dim': 256,
    'rope_theta': 10000.0,
    # Products in bfloat16, modulation and residual sums in float32, as
    # in wan/modules/model.py.
    'dtype': 'bfloat16',
    'remat': 'full',
  }


def _model(size: dict) -> ConfigDict:
  return ConfigDict(
    {
      'dit': dit_config(size),
      # wan/modules/vae.py. It runs in float32, as Wan's own does, but for
      # decoding: what a decoder remembers in float32 is more than fits on a
      # small chip beside a student and its cache.
      'vae': {
        'base_dim': 96,
        'dim_mult': (1, 2, 4, 4),
        'num_res_blocks': 2,
        'temporal_down': (False, True, True),
        'z_dim': 16,
        'patch': 1,
        'decode_dtype': 'bfloat16',
        'large_frames': True,
        # Statistics of the latents; applied once, by the VAE itself.
        'latent_mean': (
          *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517),
          *(1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497),
          *(0.2503, -0.2921),
        ),
        'latent_std': (
          *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052),
          *(2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253),
          *(2.8251, 1.9160),
        ),
      },
      # wan/modules/t5.py: UMT5-XXL's encoder, 512 positions.
      'text': {
        'vocab': 256384,
        'dim': 4096,
        'num_heads': 64,
        'head_dim': 64,
        'ffn_dim': 10240,
        'num_layers': 24,
        'buckets': 32,
        'max_distance': 128,
        'length': 512,
        'dtype': 'bfloat16',
      },
    }
  )


def config_for(objective: str, dit: dict, arg: str | None) -> ConfigDict:
  """Returns the settings that all stages share."""
  if arg is not None:
    raise ValueError(f'the argument is {arg!r}; these configs take none')
  config = common.training_config()
  config.objective = objective
  config.model = _model(dit)
  # Wan's text encoder is a network of its own, not trained here: prompts are
  # encoded once, by `unitemp encode PROMPTS --out=data/wan_prompts`.
  config.latents = ConfigDict(
    {
      'dir': 'data/wan_latents',
      # Where clips are if not there: those of the ODE stage serve as well.
      'also': ('data/wan_ode',),
      'embeddings': 'data/wan_prompts',
      'vae': 'weights/vae.safetensors',
      'tokenizer': 'weights/tokenizer.json',
    }
  )
  config.data = ConfigDict(
    {
      'name': 'video_folder',
      'dir': 'data',
      # Of one's own, for `unitemp encode`; captions are a CSV or JSONL file, or
      # beside each video.
      'videos': 'videos',
      'captions': '',
      # As the options of `unitemp data video_folder`.
      'columns': ('file', 'caption'),
      'short': 'drop',
      'buckets': '',
      'fps': 16,
      'height': 480,
      'width': 832,
      'num_frames': 81,
    }
  )
  config.teacher = 'weights/teacher.safetensors'
  config.student = ConfigDict(
    # Self-Forcing's: 1000, 937.5, 833.3 and 625 once shifted.
    {'timesteps': (1000, 750, 500, 250), 'shift': 5.0}
  )
  config.orders = ConfigDict(
    {
      'block': 3,
      'anchors': 3,
      # By the ceiling of the tiny VAE (unitemp_jax/evaluation/results.md); not
      # run at this size.
      'anchor_kind': 'windowed',
      'start': 3,
      # Sigma at which such a draft is held until the last pass; 0 draws it anew
      # in every pass, at the level above.
      'draft_sigma': 0.0,
      'weights': {
        'forward': 0.25,
        'backward': 0.25,
        'forward+first': 0.05,
        'backward+last': 0.05,
        'inbetween': 0.1,
        'inbetween_future': 0.1,
        'inbetween_outside_in': 0.1,
        'inbetween_middle_out': 0.1,
      },
    }
  )
  return config


def sampling(shift: float, guidance_scale: float) -> ConfigDict:
  """How the teacher is sampled; `guidance_scale` is w in u + w (c - u)."""
  return ConfigDict(
    {
      'fps': 16,
      'teacher_shift': shift,
      'guidance_scale': guidance_scale,
      'solver': 'unipc',
      'steps': 50,
      'negative_prompt': WAN_NEGATIVE_PROMPT,
    }
  )
