"""The bidirectional Wan 2.1 T2V 1.3B: sizes, sampling, further training.

  unitemp convert --teacher=Wan2.1-T2V-1.3B --out=weights/teacher.safetensors
  unitemp parity --checkpoint=Wan2.1-T2V-1.3B

Not run. It comes trained, and is used as it is: the objective `teacher` starts
from random weights and trains a text encoder along, which Wan's is not. The
settings of a training are here for an objective that goes on from the weights.
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
  config.accumulate = 8
  config.mesh = {'data': 1, 'fsdp': -1, 'context': 2}
  return config
