"""The bidirectional Wan 2.1 T2V 1.3B: sampled as it is, or tuned further.

  unitemp convert --teacher=Wan2.1-T2V-1.3B --text=... --out=...
  unitemp train --config=configs/wan_1p3b_teacher.py --workdir=runs/wan_teacher

Not run. Needs the weights and 8 accelerators of 80 GB or a slice of as much.
"""

from configs import common, wan


def get_config(arg: str | None = None):
  config = wan.config_for('teacher', wan.DIT_1P3B, arg)
  # Section 4: shift 8 to 12, guidance 6, UniPC with 50 steps for the 1.3B.
  config.sampling = wan.sampling(shift=8.0, guidance=6.0)
  # Section 4 (shift of the levels that losses are drawn at). Dropping the text
  # is not published for Wan; one in ten is usual.
  config.loss = {'shift': 5.0, 'text_drop': 0.1}
  # Section 6.3: rate and decay rates of further training in Causal-Forcing
  # and CausVid; weight decay and clipping of Self-Forcing, 6.2.
  config.optimizer = common.optimizer_config(
    learning_rate=2e-6,
    b1=0.9,
    b2=0.999,
    weight_decay=0.01,
    clip_norm=10.0,
  )
  config.ema_decay = 0.99  # 6.2
  config.num_steps = 2_000  # 6.3: at least so many
  config.batch_size = 64  # 6.2
  config.mesh = {'data': -1, 'fsdp': 8}
  return config
