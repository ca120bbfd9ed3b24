"""Any-order teacher forcing of Wan 2.1 T2V 1.3B: the initial student.

The published recipes initialise by regression on ODE pairs (CausVid, arXiv
2412.07772) or by teacher forcing on real latents (Causal-Forcing, arXiv
2602.02214); this is the second, over all orders. Not run. Needs the weights,
latents of real videos, and a pod.

  unitemp convert --teacher=Wan2.1-T2V-1.3B --out=weights/teacher.safetensors
  unitemp encode captions.txt --checkpoint=models_t5_umt5-xxl-enc-bf16.pth \\
    --tokenizer=google/umt5-xxl/tokenizer.json --out=data/wan_prompts
  unitemp train --config=configs/wan_1p3b_student_init.py \\
    --workdir=runs/wan_student_init
"""

from configs import common, wan


def get_config(arg: str | None = None):
  config = wan.config_for('student_init', wan.DIT_1P3B, arg)
  config.sampling = wan.sampling(shift=8.0, guidance_scale=6.0)
  # The shift is Self-Forcing's; the rest are ours, as in the tiny model.
  config.loss = {'shift': 5.0, 'anchor_drop': 0.2, 'draft_share': 0.5}
  # CausVid (rate, decay rates) and Causal-Forcing (rate).
  config.optimizer = common.optimizer_config(
    learning_rate=2e-6, b1=0.9, b2=0.999, weight_decay=0.01, clip_norm=10.0
  )
  config.ema_decay = 0.99  # Self-Forcing
  config.num_steps = 3_000  # CausVid
  config.batch_size = 128  # CausVid: 2 on each of 64 devices
  config.accumulate = 8
  config.mesh = {'data': 1, 'fsdp': -1, 'context': 2}
  return config
