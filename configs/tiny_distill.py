"""Bidirectional self-forcing DMD: the student learns to need 4 steps.

  unitemp train --config=configs/tiny_distill.py --workdir=runs/tiny_distill

Shipped, with shares of hops and turns of .2 and .15: 44 min on 2 CPU cores.
What comes out: unitemp_jax/evaluation/results.md.
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
    'closing': 10.0,
    'anchor_match': 1.0,
    'through_cache': False,
    'anchor_drop': 0.2,
    'critic_updates': 4,
    'critic_warmup': 40,
  }
  settings = {'learning_rate': 3e-4, 'b1': 0.0, 'b2': 0.99}
  config.optimizer = common.optimizer_config(**settings)
  config.critic_optimizer = common.optimizer_config(
    **{**settings, 'learning_rate': 5e-4}
  )
  if arg == 'test':
    config.loss.critic_warmup = 1
    config.loss.critic_updates = 2
    return config
  config.num_steps = 1_000
  config.batch_size = 32
  return config
