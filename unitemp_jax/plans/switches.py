"""When a prompt that takes over within a video is seen.

A block that sees what comes before it goes on with that, so that what its
prompt asks for shows some frames later: `LATE` latents if it sees no future,
one less if it does, as by a sink. Where it is the block before that sees what
comes after it, as backward, the prompt shows `LATE` latents earlier. Of 0 to 3
latents these are nearest for colour and digit together; measured on the tiny
model (suite `schedule`, `unitemp_jax/evaluation/README.md`).
"""

from collections.abc import Sequence
from typing import NamedTuple

from unitemp_jax import timeline
from unitemp_jax.plans.plan import Plan

LATE = 2  # latents


class Switch(NamedTuple):
  """A prompt that takes over."""

  position: int  # first one whose row has it
  prompt: int  # its index
  lag: int  # latents after which it shows; negative: before

  def frames(self, plan: Plan) -> tuple[int, int]:
    """The first frame made by it, and the one from which on it shows."""
    first = self.position - plan.begin
    latents = first, max(first + self.lag, 0)
    begin, shown = map(timeline.first_frame, latents)
    return begin, min(shown, plan.num_frames - 1)


def switches(plan: Plan) -> list[Switch]:
  """Returns all switches of a plan by time."""
  if (plan.prompt == plan.prompt[0]).all():
    return []
  made = {
    position: row
    for row in range(plan.num_rows)
    if not plan.conditioning[row]
    for position, _ in plan.entries(row)
  }
  context, found = plan.context(), []
  for position in sorted(made):
    row, before = made[position], made.get(position - 1)
    if before is None or plan.prompt[row] == plan.prompt[before]:
      continue
    lag = 0
    if position - 1 in context[row]:
      lag = LATE - (max(context[row]) > position)
    elif max(context[made[position - 1]], default=position - 1) >= position:
      lag = -LATE
    while position - lag not in made:
      lag -= 1 if lag > 0 else -1
    found.append(Switch(position, int(plan.prompt[row]), lag))
  return found


def on_time(
  plan: Plan, asked: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
  """Switches (first position, prompt), moved so that they show where asked.

  Every prompt keeps a block, and what is given its prompt.

  Args:
    plan: with the switches as asked.
    asked: these, by time.
  """
  lag = {one.position: one.lag for one in switches(plan)}
  end, wanted = 1 + int(plan.timeline()[0][-1]), []
  for position, _ in reversed(asked):
    end = max(position, end - plan.block)
    end = min(position - lag.get(position, 0), end)
    wanted.insert(0, end)
  moved, least = [], plan.begin + plan.block
  for (position, prompt), first in zip(asked, wanted, strict=True):
    first = max(first, min(position, least))
    moved.append((first, prompt))
    least = first + plan.block
  return tuple(moved)
