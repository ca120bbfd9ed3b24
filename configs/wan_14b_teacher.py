"""The bidirectional Wan 2.1 T2V 14B: sizes, sampling and sharding.

  unitemp convert --teacher=Wan2.1-T2V-14B --fsdp=16 --out=weights/14b
  unitemp train --config=configs/wan_14b_teacher.py --workdir=runs/wan_14b

Not run. In bfloat16 the weights are 29 GB, in float32 with AdamW's state
229 GB, so that they are split over at least 16 devices. It comes trained and is
used as it is; as for the 1.3B model, training goes on from the weights.
"""

from configs import common, wan


def get_config(arg: str | None = None):
  config = wan.config_for('teacher', wan.DIT_14B, arg)
  config.pretrained = 'weights/14b/teacher.safetensors'
  # Wan-Video/Wan2.1, `generate.py`: guidance 5, shift 5, UniPC with 50 steps.
  config.sampling = wan.sampling(shift=5.0, guidance_scale=5.0)
  # As for the 1.3B model; nothing is published on training it further.
  config.loss = {'shift': 5.0, 'text_drop': 0.0}
  config.optimizer = common.optimizer_config(
    learning_rate=2e-6, b1=0.9, b2=0.999, weight_decay=0.01, clip_norm=10.0
  )
  config.ema_decay = 0.99
  config.num_steps = 2_000
  config.batch_size = 64
  config.accumulate = 8
  config.mesh = {'data': 1, 'fsdp': -1, 'context': 2}
  return config
