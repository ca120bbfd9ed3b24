"""When a prompt that takes over within a video is seen.

A block that sees what comes before it goes on with that, so that what its
prompt asks for shows some frames later: `LATE` latents if it sees no future,
one less if it does, as by a sink. Where it is the block before that sees what
comes after it, as backward, the prompt shows `LATE` latents earlier. Of 0 to 3
latents these are nearest for colour and digit together; measured on the tiny
model (suite `schedule`, `unitemp_jax/evaluation/README.md`).
"""

from collections.abc import Callable, Mapping
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


Prompts = tuple[tuple[int, int], ...]  # (first position, prompt)


def on_time(make: Callable[[Prompts], Plan], asked: Prompts) -> Prompts:
  """The switches moved so that they show where asked, or as near as can be.

  One that moves may see other blocks, so what is moved is judged by its own
  plan, and moved again.

  Args:
    make: the plan of such switches.
    asked: these, by time.
  """
  found, prompts = [], asked
  for _ in range(4):
    plan = make(prompts)
    lag = {one.prompt: one.lag for one in switches(plan)}
    off = sum(
      abs(first + lag.get(prompt, 0) - position)
      for (first, prompt), (position, _) in zip(prompts, asked, strict=True)
    )
    found.append((off, prompts))
    prompts = _moved(plan, lag, asked)
    if not off or prompts in [others for _, others in found]:
      break
  return min(found[1:] + found[:1], key=lambda one: one[0])[1]


def _moved(plan: Plan, lag: Mapping[int, int], asked: Prompts) -> Prompts:
  """Moves them by their lags; each prompt, and what is given, keeps a block."""
  end, wanted = 1 + int(plan.timeline()[0][-1]), []
  for position, prompt in reversed(asked):
    end = max(position, end - plan.block)
    end = min(position - lag.get(prompt, 0), end)
    wanted.insert(0, end)
  moved, least = [], plan.begin + plan.block
  for (position, prompt), first in zip(asked, wanted, strict=True):
    first = max(first, min(position, least))
    moved.append((first, prompt))
    least = first + plan.block
  return tuple(moved)
