"""Bidirectional self-forcing DMD of the tiny model: 4 passes are enough.

  unitemp train --config=configs/tiny_distill.py --workdir=runs/tiny_distill

Shipped: 20 min on 2 CPU cores beside other work. What comes out:
unitemp_jax/evaluation/results.md. After 1,000 steps what is made first moved
less (configs/README.md).
"""

from configs import common, tiny


def get_config(arg: str | None = None):
  config = tiny.config_for('distill', arg)
  tiny.latent_stage(config, arg)
  config.student_init = 'runs/tiny_student_init/weights/student.safetensors'
  # Loops whose end also sees how the beginning moves.
  config.orders.weights.update({'loop': 0.12, 'loop+overlap': 0.18})
  config.ema_decay = 0.98
  config.loss = {
    'shift': 5.0,
    'sigma_min': 0.02,
    'sigma_max': 0.98,
    # w in u + w (c - u).
    'guidance_scale': 3.0,
    'pin': 3.0,
    # Only the pixels of a given last frame are known, not all four frames that
    # its latent codes.
    'pin_last': 10.0,
    'closing': 10.0,
    # One aim for anchors: the teacher's score expects raw latents in their
    # place, .3 rms from the windowed ones that they are matched to.
    'anchor_match': 1.0,
    'score_anchors': False,
    'anchor_drop': 0.2,
    # Where the released code of Self-Forcing differs from its paper. Gradient
    # stops at the cache, as the paper says.
    'through_cache': False,
    # Context is clean, as in sampling; its code trains with sigma .00498.
    'context_sigma': 0.0,
    # As its code: 9 % of the critic's levels would lie where it is not asked.
    'critic_clamp': True,
    # As its code: given frames have a loss of their own, `pin`.
    'mask_given': True,
    'critic_updates': 4,
    'critic_warmup': 40,
  }
  settings = {'learning_rate': 3e-4, 'b1': 0.0, 'b2': 0.99}
  config.optimizer = common.optimizer_config(**settings)
  config.critic_optimizer = common.optimizer_config(
    **{**settings, 'learning_rate': 5e-4}
  )
  # Every pass draws its own plan and exit level: four of them in an update.
  config.accumulate = 4
  if arg == 'test':
    config.loss.critic_warmup = 1
    config.loss.critic_updates = 2
    return config
  config.num_steps = 450
  config.batch_size = 32
  return config
