"""Regression on the teacher's ODE trajectories: the initial student.

The recipe of CausVid (arXiv 2412.07772) and Self-Forcing (arXiv 2506.08009), in
any order: 48 Euler steps with the student's shift, guidance 6, states at the
student's levels. Not run. A pair of 81 frames at 480x832 is about 21 MB in
float16; CausVid took 1,500 pairs, others 16,000.

  unitemp convert --teacher=Wan2.1-T2V-1.3B --out=weights/teacher.safetensors
  unitemp encode prompts.txt --checkpoint=models_t5_umt5-xxl-enc-bf16.pth \\
    --tokenizer=google/umt5-xxl/tokenizer.json --out=data/wan_prompts
  unitemp ode_pairs prompts.txt --config=configs/wan_1p3b_ode_init.py \\
    --out=data/wan_ode
  unitemp train --config=configs/wan_1p3b_ode_init.py \\
    --workdir=runs/wan_student_init

The prompts must hold Wan's negative prompt as a line of its own.
"""

from configs import wan, wan_1p3b_student_init


def get_config(arg: str | None = None):
  config = wan_1p3b_student_init.get_config(arg)
  config.objective = 'ode_init'
  config.sampling = wan.sampling(shift=5.0, guidance_scale=6.0)
  config.latents.dir, config.latents.also = 'data/wan_ode', ()
  # Every level is drawn as often, so that no shift is needed.
  config.loss = {'anchor_drop': 0.2, 'draft_share': 0.5}
  return config
