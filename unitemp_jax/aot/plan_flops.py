"""Operations of what a plan describes, row by row."""

import dataclasses

from unitemp_jax.aot.flops import Flops, dit_pass
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.plans import Plan


@dataclasses.dataclass(frozen=True)
class Row:
  """What one row of a plan takes, for one sample.

  Attributes:
    denoise: one pass at one noise level; nothing for a given row.
    write: the pass that stores its clean keys.
    start: the noise level that it starts from.
  """

  denoise: Flops
  write: Flops
  start: int

  def passes(self, exit_level: int) -> int:
    """Denoising passes up to and with the one at a level."""
    return exit_level + 1 - min(self.start, exit_level)


def rows(
  config: DiTConfig,
  plan: Plan,
  frame: int,
  text: int,
  *,
  draft_from: int,
  anchored: bool = True,
) -> list[Row]:
  """Returns what the rows of a plan take that compute anything.

  Args:
    config: of the transformer.
    plan: any.
    frame: tokens of a latent frame.
    text: tokens of a prompt.
    draft_from: see `generate.step.StepOptions`.
    anchored: False leaves the anchors out of rows with context, as dropping
      them in training does.
  """
  found = []
  for row in range(plan.num_rows):
    count, visible = int(plan.count[row]), int(plan.visible[row])
    if not count or plan.idle(row):
      continue
    keys = (visible + count) * frame
    write = dit_pass(config, 1, plan.block, frame, keys, text)
    if plan.given[row]:
      found.append(Row(Flops(), write, 0))
      continue
    # A short row runs with a full block and sees its valid entries.
    has = bool(plan.anchor[row]) and (anchored or visible == 0)
    more = plan.num_anchors if has else 0
    frames, keys = plan.block + more, keys + more * frame
    denoise = dit_pass(config, 1, frames, frame, keys, text)
    # Anchors, and what is before the draft, start from noise.
    whole = more > 0 or draft_from > 0 or not anchored
    start = 0 if whole else int(plan.start[row])
    found.append(Row(denoise, write, start))
  return found


def sample(found: list[Row], exit_level: int) -> Flops:
  """Generates all rows up to one noise level, and writes them."""
  total = Flops()
  for row in found:
    total += row.passes(exit_level) * row.denoise + row.write
  return total
