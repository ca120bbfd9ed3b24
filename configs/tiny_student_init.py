"""Any-order teacher forcing: the tiny teacher becomes a block-wise student.

  unitemp train --config=configs/tiny_student_init.py \\
    --workdir=runs/tiny_student_init

Shipped: 42 min on 2 CPU cores beside other work, a loss of .272 (blocks .281,
anchors .237).
"""

from configs import tiny


def get_config(arg: str | None = None):
  config = tiny.config_for('student_init', arg)
  tiny.latent_stage(config, arg)
  config.loss = {'shift': 5.0, 'anchor_drop': 0.2, 'draft_share': 0.5}
  if arg == 'test':
    return config
  config.num_steps = 1_800
  config.batch_size = 32
  config.optimizer.update(
    {
      'name': 'muon',
      'learning_rate': 1.5e-3,
      'warmup_steps': 50,
      'decay_steps': 1_800,
      'final_fraction': 0.05,
      'b2': 0.99,
      'weight_decay': 1e-3,
    }
  )
  return config
