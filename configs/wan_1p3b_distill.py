"""Bidirectional self-forcing DMD of the Wan 2.1 T2V 1.3B student.

The numbers are Self-Forcing's (section 6.2), but for the teacher: theirs is
the 14B, ours has the student's size, as in CausVid, SiD and Self-Forcing++
(6.3). Not run. They took under 2 hours on 64 H100.

  unitemp train --config=configs/wan_1p3b_distill.py --workdir=runs/wan_distill
"""

from configs import common, wan


def get_config(arg: str | None = None):
  config = wan.config_for('distill', wan.DIT_1P3B, arg)
  config.sampling = wan.sampling(shift=8.0, guidance=6.0)
  config.student_init = 'runs/wan_student_init/weights/student.safetensors'
  config.loss = {
    'shift': 5.0,
    'sigma_min': 0.02,
    'sigma_max': 0.98,
    # c + w (c - u) with w = 3: the standard guidance scale is 4 (section 4).
    'guidance': 3.0,
    'critic_updates': 5,
    # Our own settings, as in the tiny model.
    'pin': 1.0,
    'closing': 10.0,
    'anchor_match': 1.0,
    'through_cache': False,
    'anchor_drop': 0.2,
    'critic_warmup': 0,
  }
  settings = {'b1': 0.0, 'b2': 0.999, 'weight_decay': 0.01, 'clip_norm': 10.0}
  config.optimizer = common.optimizer_config(learning_rate=2e-6, **settings)
  config.critic_optimizer = common.optimizer_config(
    learning_rate=4e-7, **settings
  )
  config.ema_decay = 0.99
  # 600 updates of the critic, every fifth with one of the student.
  config.num_steps = 600
  config.batch_size = 64
  config.checkpoint_every = 50
  config.mesh = {'data': -1, 'fsdp': 8}
  return config
