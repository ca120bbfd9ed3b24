"""Bidirectional self-forcing DMD of the Wan 2.1 T2V 1.3B student.

The numbers are Self-Forcing's (arXiv 2506.08009; guandeh17/Self-Forcing,
`configs/self_forcing_dmd.yaml`). `:14b` takes the 14B as the teacher, as they
did; without it the teacher has the student's size, as in CausVid and
Self-Forcing++ (arXiv 2510.02283). Not run. They took under 2 hours on 64 H100.
The prompts must hold Wan's negative prompt as a line of its own.

  unitemp convert --teacher=Wan2.1-T2V-1.3B --out=weights/teacher.safetensors
  unitemp convert --teacher=Wan2.1-T2V-14B --fsdp=16 --out=weights/14b
  unitemp train --config=configs/wan_1p3b_distill.py:14b \\
    --workdir=runs/wan_distill
"""

from configs import common, wan


def get_config(arg: str | None = None):
  if arg not in (None, '14b'):
    raise ValueError(f'the argument is {arg!r}; leave it out or use "14b"')
  config = wan.config_for('distill', wan.DIT_1P3B, None)
  if arg == '14b':
    config.teacher_model = {'dit': wan.dit_config(wan.DIT_14B)}
    config.critic_init = config.teacher
    config.teacher = 'weights/14b/teacher.safetensors'
  config.sampling = wan.sampling(shift=8.0, guidance_scale=6.0)
  config.student_init = 'runs/wan_student_init/weights/student.safetensors'
  config.loss = {
    'shift': 5.0,
    'sigma_min': 0.02,
    'sigma_max': 0.98,
    # w in u + w (c - u); Self-Forcing's 3 is in c + w (c - u).
    'guidance_scale': 4.0,
    'critic_updates': 5,
    # Our own settings, as in the tiny model.
    'pin': 1.0,
    'closing': 10.0,
    'anchor_match': 1.0,
    'anchor_drop': 0.2,
    # One aim for anchors, as in the tiny model.
    'score_anchors': False,
    # The last latent is pinned whole: a decoder with gradient through 81 frames
    # at this size is more than fits.
    'pin_last': 0.0,
    # Where Self-Forcing's released code differs from its paper: gradient stops
    # at the cache as in the paper, since a rollout that holds one block at a
    # time cannot let it through; the rest is as released.
    'through_cache': False,
    'context_sigma': 0.00498,
    'critic_clamp': True,
    'mask_given': True,
    'critic_warmup': 0,
    # A backward pass holds one block of the rollout at a time, and the VAE
    # one latent of the frames that anchors stand for.
    'checkpoint_rollout': True,
    'decode_by_latent': True,
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
  # Eight rows on 16 chips at a time; fewer passes on more of them.
  config.accumulate = 8
  config.mesh = {'data': 1, 'fsdp': -1, 'context': 2}
  return config
