"""The bidirectional Wan 2.1 T2V 1.3B: sizes, sampling, further training.

  unitemp convert --teacher=Wan2.1-T2V-1.3B --out=weights/teacher.safetensors
  unitemp parity --checkpoint=Wan2.1-T2V-1.3B

  unitemp train --config=configs/wan_1p3b_teacher.py --workdir=runs/wan_teacher

Not run. It comes trained and is used as it is; training goes on from the
weights, on latents of one's own videos, with the prompts' embeddings.
"""

from configs import common, wan


def get_config(arg: str | None = None):
  config = wan.config_for('teacher', wan.DIT_1P3B, arg)
  config.pretrained = config.teacher
  # Wan-Video/Wan2.1, README: shift 8 to 12, guidance 6, UniPC with 50 steps.
  config.sampling = wan.sampling(shift=8.0, guidance_scale=6.0)
  # The shift of the levels that losses are drawn at is Self-Forcing's. Guidance
  # leads away from a prompt, so no text is dropped to train a side without.
  config.loss = {'shift': 5.0, 'text_drop': 0.0}
  # Rate and decay rates of further training: Causal-Forcing (arXiv 2602.02214)
  # and CausVid (arXiv 2412.07772); weight decay and clipping: Self-Forcing.
  config.optimizer = common.optimizer_config(
    learning_rate=2e-6, b1=0.9, b2=0.999, weight_decay=0.01, clip_norm=10.0
  )
  config.ema_decay = 0.99  # Self-Forcing
  config.num_steps = 2_000  # Causal-Forcing: at least as many
  config.batch_size = 64  # Self-Forcing
  config.accumulate = 8
  config.mesh = {'data': 1, 'fsdp': -1, 'context': 2}
  return config
