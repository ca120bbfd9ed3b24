"""How often the training loop does what it does besides training."""

import dataclasses

from unitemp_jax.training.guard import GuardSettings


@dataclasses.dataclass(frozen=True)
class LoopSettings:
  """What a run may be continued with other values of: no step depends on them.

  Attributes:
    num_steps: steps in all, those before a resume included.
    log_every: steps per line of metrics.
    checkpoint_every: steps between checkpoints; 0 for none.
    checkpoint_minutes: minutes between them; the last step has one anyway.
    keep: how many of the newest checkpoints are kept.
    keep_every: checkpoints of every so many steps are kept as well; 0 for none.
    sample_every: steps between samples; 0 for none.
    profile_step: the first step that is traced.
    profile_steps: how many are; 0 for none.
    guard: which steps are skipped.
  """

  num_steps: int
  log_every: int = 50
  checkpoint_every: int = 0
  checkpoint_minutes: float = 0.0
  keep: int = 2
  keep_every: int = 0
  sample_every: int = 0
  profile_step: int = 10
  profile_steps: int = 0
  guard: GuardSettings = dataclasses.field(default_factory=GuardSettings)
