"""FLOPs of plans and rollouts, per sample.

What a training step draws (plan, exit level, whether anchors are dropped) is
averaged over.
"""

import dataclasses
from collections.abc import Sequence

from ml_collections import ConfigDict

from unitemp_jax.models import flops
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.flops import Flops
from unitemp_jax.plans import Plan
from unitemp_jax.training.programs import builders


@dataclasses.dataclass(frozen=True)
class Clip:
  """Size of what is trained on."""

  frames: int  # N, latents of a clip
  frame: int  # tokens of a latent
  text: int  # E, tokens of a prompt

  @classmethod
  def of(cls, config: ConfigDict) -> 'Clip':
    """Returns the size of a config's clips."""
    frames, *grid = builders.latent_shape(config)
    dit = builders.dit_config(config.model)
    text = builders.text_config(config.model).length
    return cls(frames, dit.tokens_per_frame(*grid), text)

  def bidirectional(self, config: DiTConfig) -> Flops:
    """A pass over the whole clip, everything seeing everything."""
    keys = self.frames * self.frame
    return flops.dit_pass(config, 1, self.frames, self.frame, keys, self.text)

  def context(self, config: DiTConfig) -> Flops:
    """Text keys and values of its prompt."""
    return flops.text_context(config, 1, self.text)


@dataclasses.dataclass(frozen=True)
class Row:
  """What one row of a plan takes, for one sample."""

  denoise: Flops  # one pass at one noise level; nothing for a given row
  write: Flops  # the pass that stores its clean keys
  start: int  # the noise level that it starts from

  def passes(self, exit_level: int) -> int:
    """Denoising passes up to and with the one at a level."""
    return exit_level + 1 - min(self.start, exit_level)


def plan_rows(
  config: DiTConfig,
  plan: Plan,
  frame: int,
  text: int,
  *,
  draft_from: int,
  anchored: bool = True,
) -> list[Row]:
  """Returns what the rows of a plan take that compute anything.

  `frame` and `text` are the tokens of a latent and of a prompt;
  `anchored=False` leaves the anchors out that can be dropped.
  """
  found = []
  for row in range(plan.num_rows):
    count, visible = int(plan.count[row]), int(plan.visible[row])
    if not count or plan.idle(row):
      continue
    keys = (visible + count) * frame
    write = flops.dit_pass(config, 1, plan.block, frame, keys, text)
    if plan.conditioning[row]:
      found.append(Row(Flops(), write, 0))
      continue
    # A short row runs with a full block and sees its valid entries.
    keeps = plan.anchor[row] and (anchored or not visible)
    more = plan.num_anchors if keeps else 0
    frames, keys = plan.block + more, keys + more * frame
    denoise = flops.dit_pass(config, 1, frames, frame, keys, text)
    # Anchors, and what is before the draft, start from noise.
    whole = more > 0 or draft_from > 0 or not anchored
    start = 0 if whole else int(plan.start[row])
    found.append(Row(denoise, write, start))
  return found


def sample(rows: list[Row], exit_level: int, last_write: bool = True) -> Flops:
  """Generates all rows up to one noise level, and writes them.

  `last_write`: training writes what the last row made too, sampling does not.
  """
  total = Flops()
  for row in rows:
    total += row.passes(exit_level) * row.denoise
  for row in rows if last_write else rows[:-1]:
    total += row.write
  return total


def rollout(
  config: DiTConfig,
  plans: Sequence[tuple[Plan, float]],
  clip: Clip,
  *,
  passes: int,
  anchor_drop: float,
  draft_from: int,
) -> tuple[Flops, Flops]:
  """Averages over plans, exit levels and dropped anchors.

  `plans` come with the weights that they are drawn by; each of `passes` is as
  often the last one.

  Returns:
    Of the passes above the exit level and those that write, and of the passes
    at the exit level, through which gradient flows.
  """
  before, last = Flops(), Flops()
  whole = sum(weight for _, weight in plans)
  for plan, weight in plans:
    for anchored, share in ((True, 1 - anchor_drop), (False, anchor_drop)):
      probability = share * weight / whole
      for row in plan_rows(
        *(config, plan, clip.frame, clip.text),
        draft_from=draft_from,
        anchored=anchored,
      ):
        last += probability * row.denoise
        before += probability * row.write
        before_exit = (
          sum(row.passes(level) - 1 for level in range(passes)) / passes
        )
        before += probability * before_exit * row.denoise
  return before, last
