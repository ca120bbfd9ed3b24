"""Operations of the training steps, per row of a batch, on average.

What a step draws (plan, exit level, whether anchors are dropped) is averaged
over. Rematerialised layers run their forward pass once more.
"""

import dataclasses
from collections.abc import Sequence

from unitemp_jax.aot import flops, plan_flops
from unitemp_jax.aot.flops import Flops, trained
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.plans import Plan


@dataclasses.dataclass(frozen=True)
class Clip:
  """Size of what is trained on.

  Attributes:
    frames: N, latents of a clip.
    frame: tokens of a latent.
    text: E, tokens of a prompt.
  """

  frames: int
  frame: int
  text: int

  def bidirectional(self, config: DiTConfig) -> Flops:
    """A pass over the whole clip, everything seeing everything."""
    keys = self.frames * self.frame
    return flops.dit_pass(config, 1, self.frames, self.frame, keys, self.text)

  def context(self, config: DiTConfig) -> Flops:
    """Text keys and values of its prompt."""
    return flops.text_context(config, 1, self.text)


@dataclasses.dataclass(frozen=True)
class Rollout:
  """The student's own samples, on average.

  Attributes:
    before: passes above the exit level, and those that write.
    last: passes at the exit level, through which gradient flows.
  """

  before: Flops
  last: Flops


def rollout(
  config: DiTConfig,
  plans: Sequence[tuple[Plan, float]],
  clip: Clip,
  *,
  levels: int,
  anchor_drop: float,
  draft_from: int,
) -> Rollout:
  """Averages over plans, exit levels and dropped anchors.

  Args:
    config: of the student.
    plans: with the weights that they are drawn by.
    clip: what they are rolled out over.
    levels: of the student; each is as often the last one.
    anchor_drop: share of rollouts without anchors.
    draft_from: see `generate.step.StepOptions`.
  """
  before, last = Flops(), Flops()
  whole = sum(weight for _, weight in plans)
  for plan, weight in plans:
    for anchored, share in ((True, 1 - anchor_drop), (False, anchor_drop)):
      probability = share * weight / whole
      found = plan_flops.rows(
        *(config, plan, clip.frame, clip.text),
        draft_from=draft_from,
        anchored=anchored,
      )
      for row in found:
        last += probability * row.denoise
        before += probability * row.write
        passes = sum(row.passes(level) - 1 for level in range(levels)) / levels
        before += probability * passes * row.denoise
  return Rollout(before, last)


def critic_update(config: DiTConfig, clip: Clip, own: Rollout, remat: float):
  """Samples without gradient, then a flow-matching step on them.

  `remat` is how many more forward passes the backward pass computes.
  """
  score = trained(clip.bidirectional(config), remat)
  contexts = clip.context(config) + trained(clip.context(config), remat)
  return own.before + own.last + score + contexts


def student_update(
  config: DiTConfig,
  teacher: DiTConfig,
  clip: Clip,
  own: Rollout,
  remat: float,
  matching: Flops,
  again: bool,
) -> Flops:
  """Samples with gradient, and the scores of teacher and critic.

  Args:
    config: of student and critic.
    teacher: of the teacher, which runs with the prompt and without it.
    clip: size of a clip.
    own: of the rollout.
    remat: see `critic_update`.
    matching: of the targets of windowed anchors.
    again: the rollout runs without gradient, and its last passes once more
      with it (`generate.replay`).
  """
  made = own.before + trained(own.last, remat + again)
  made += trained(clip.context(config), remat)
  real = 2 * (clip.bidirectional(teacher) + clip.context(teacher))
  fake = clip.bidirectional(config) + clip.context(config)
  return made + real + fake + matching
