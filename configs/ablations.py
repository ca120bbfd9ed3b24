"""The paper's claims on the tiny model: specialised students, three seeds each.

  unitemp ablate --config=configs/ablations.py --out=runs/ablations

Trains a student per arm and seed on the VAE and the teacher of a finished model
(`--model`), measures it, and writes the numbers of each to
configs/ablations/results/ as soon as it is there; the command continues where
it stopped. All arms have the same budget, SHARE of the steps of the shipped
schedule: by the rates in configs/README.md about half an hour each on 2 CPU
cores. What has run stands in the table there.

One stage alone, also elsewhere (`unitemp ablate --dry_run` prints them all):

  unitemp train --config=configs/ablations.py:distill,forward,0 --workdir=...
"""

from ml_collections import ConfigDict

from configs import tiny_distill, tiny_student_init

SHARE = 0.5
SEEDS = (0, 1, 2)
STAGES = {'init': tiny_student_init, 'distill': tiny_distill}
# What a student is trained on: weights of orders (None: the shipped ones), P.
ARMS = {
  'any_order': (None, 3),
  'forward': ({'forward': 0.7, 'forward+first': 0.3}, 3),
  'backward_p0': ({'backward+last': 1.0}, 0),
  'backward_p3': ({'backward': 0.5, 'backward+last': 0.5}, 3),
}
BACK = 'backward, last frame given'
BARE = f'{BACK}, P = 0'
VOID = 'backward from nothing, P = 0 (void)'
# What is measured of the student of an arm: the weights of which stage, what
# is changed of the model's card, and which plans.
MEASURES = {
  'any_order': ('any_order', 'distill', {}, ('forward', BACK)),
  'forward': ('forward', 'distill', {}, ('forward',)),
  'backward_p0': ('backward_p0', 'distill', {}, (BARE,)),
  'backward_p3': ('backward_p3', 'distill', {}, (BACK,)),
  'initialisation': ('any_order', 'init', {}, ('forward', BACK)),
  'void': ('any_order', 'distill', {}, (VOID,)),
  'p0': ('any_order', 'distill', {}, (BARE,)),
  **{
    f'p{number}': ('any_order', 'distill', {'anchors': number}, (BACK,))
    for number in (1, 2)
  },
  **{
    f'draft_{name}': ('any_order', 'distill', {'draft_sigma': sigma}, (BACK,))
    for name, sigma in (('off', 0.0), ('high', 0.2))
  },
  '2_passes': ('any_order', 'distill', {'passes': 2}, ('forward', BACK)),
  '1_pass': ('any_order', 'distill', {'passes': 1}, ('forward', BACK)),
  'initialisation_1_pass': ('any_order', 'init', {'passes': 1}, ('forward',)),
  # Of no student: controls and what to compare with.
  'beside': (
    *('', '', {}),
    ('real clips', 'swapped block', 'teacher, 50 steps', 'teacher, 2 steps'),
  ),
}
# First - second: one measure and plan, another one, over all that both have.
CLAIMS = {
  'distilled - initialised': (
    *('any_order', 'forward', 'initialisation', 'forward'),
  ),
  'any order - forward only': (
    *('any_order', 'forward', 'forward', 'forward'),
  ),
  'any order - backward only': (*('any_order', BACK, 'backward_p3', BACK),),
  'P = 3 - P = 0, each trained for it': (
    'backward_p3',
    BACK,
    'backward_p0',
    BARE,
  ),
  'P = 3 - P = 0, one student': ('any_order', BACK, 'p0', BARE),
  'P = 3 - P = 1, one student': ('any_order', BACK, 'p1', BACK),
  'P = 3 - P = 2, one student': ('any_order', BACK, 'p2', BACK),
  'draft held - drawn anew': (*('any_order', BACK, 'draft_off', BACK),),
  'draft held, sigma low - high': (*('any_order', BACK, 'draft_high', BACK),),
  '4 passes - 2 passes': ('any_order', 'forward', '2_passes', 'forward'),
  '4 passes - 1 pass': ('any_order', 'forward', '1_pass', 'forward'),
  'distilled - control: initialised, 1 pass': (
    *('any_order', 'forward', 'initialisation_1_pass', 'forward'),
  ),
  'teacher - control: 2 steps': (
    *('beside', 'teacher, 50 steps', 'beside', 'teacher, 2 steps'),
  ),
  'real clips - control: swapped block': (
    *('beside', 'real clips', 'beside', 'swapped block'),
  ),
  'P = 3 - control: P = 0 from nothing': ('any_order', BACK, 'void', VOID),
}


def get_config(arg: str | None = None) -> ConfigDict:
  """The table of arms; or with `STAGE,ARM,SEED[,test]` one training."""
  if arg not in (None, 'test'):
    return _training(*arg.split(','))
  config = ConfigDict()
  config.seeds = SEEDS if arg is None else (0, 1)
  config.arms = tuple(ARMS) if arg is None else ('forward', 'backward_p0')
  config.stages = tuple(STAGES)
  config.num_clips = 64 if arg is None else 3
  config.size = arg or ''
  config.measures = {
    name: list(row)
    for name, row in MEASURES.items()
    if not row[0] or (row[0] in config.arms and (arg is None or not row[2]))
  }
  config.claims = {title: list(row) for title, row in CLAIMS.items()}
  return config


def _training(stage: str, arm: str, seed: str, size: str = '') -> ConfigDict:
  weights, anchors = ARMS[arm]
  config = STAGES[stage].get_config(size or None)
  config.seed = int(seed)
  config.orders.anchors = anchors
  if weights is not None:
    config.orders.weights = ConfigDict(weights)
  if not size:
    config.num_steps = round(SHARE * config.num_steps)
    if config.optimizer.decay_steps:
      config.optimizer.decay_steps = config.num_steps
  return config
