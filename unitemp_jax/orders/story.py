"""Multi-scene videos: scenes around key blocks, and what connects them."""

import dataclasses
import functools
from collections.abc import Sequence

from unitemp_jax import timeline
from unitemp_jax.errors import UserError
from unitemp_jax.orders.loop import loop_script
from unitemp_jax.orders.rows import compile_plan
from unitemp_jax.orders.script import (
  Conditioning,
  Settings,
  check_word,
  new_script,
)
from unitemp_jax.plans import Plan


@dataclasses.dataclass(frozen=True)
class Scene:
  """One scene of a story."""

  length: int  # latents
  prompt: int = 0  # index of its prompt


@dataclasses.dataclass(frozen=True)
class Connection:
  """What leads from one scene to the next."""

  length: int  # latents between the scenes; 0 = a cut
  # How many of them have the prompt of the scene before, the rest that of the
  # scene behind; None = half.
  switch: int | None = None
  prompt: int | None = None  # index of a prompt of its own, for all of it


def story(
  scenes: Sequence[Scene],
  connections: int | Sequence[Connection | int] = 3,
  *,
  given: Sequence[Conditioning | tuple[int, int]] = (),
  loop: bool = False,
  side: str = 'outside_in',
  **settings,
) -> Plan:
  """Returns the plan of a story in one continuous video.

  The key block of each scene comes first, in the middle of it, then each scene
  grows to both sides of its key block, then the connections are filled, from
  the first to the last. A scene sees nothing but itself; a connection sees the
  two scenes that it connects. A loop leads from the last scene back to the
  first, see `loop_script`.

  Args:
    scenes: by time.
    connections: length in latents, for all, or one for each: n - 1 for n
      scenes, n for a loop, the last one back to the first scene.
    loop: whether the story ends where it begins.
    side: from which side connections are filled, as for `inbetween`.
    **settings: see `Settings`; prompts follow from the scenes.
  """
  check_word('side', side)
  links = _links(scenes, connections, loop)
  starts = _starts(scenes, links)
  setting = _with_prompts(scenes, links, starts, settings)
  make = loop_script if loop else functools.partial(new_script, 0)
  script = make(starts[-1], setting, [Conditioning(*one) for one in given])
  grown = [
    _grow(script, start, start + one.length)
    for start, one in zip(starts, scenes, strict=False)
  ]
  script.blocks += [block for blocks in grown for block in blocks[:1]]
  script.blocks += [block for blocks in grown for block in blocks[1:]]
  for i, link in enumerate(links):
    low = starts[i] + scenes[i].length
    high = low + link.length
    last = i + 1 == len(scenes)
    seen = high + (setting.block if last else scenes[i + 1].length)
    for gap in script.free(low, high):
      script.blocks += script.cut(*gap, side, (starts[i], seen))
  return compile_plan(script)


def _grow(script, start, end):
  """The blocks of a scene: its key block, then its two sides in turn."""
  gaps = script.free(start, end)
  gaps.sort(key=lambda gap: gap[0] - gap[1])  # the longest has the key block
  return [
    block
    for low, high in gaps
    for block in script.cut(low, high, 'middle_out', (start, end))
  ]


def _links(scenes, connections, loop):
  wanted = len(scenes) if loop else len(scenes) - 1
  if wanted < 1:
    raise UserError(
      'a story needs at least 2 scenes, or 1 that loops (--loop); for one '
      'scene use forward or backward.'
    )
  if isinstance(connections, int):
    connections = [connections] * wanted
  links = [
    Connection(one) if isinstance(one, int) else one for one in connections
  ]
  if len(links) != wanted:
    raise UserError(
      f'{len(scenes)} scenes{" in a loop" if loop else ""} have {wanted} '
      f'connections, but {len(links)} are given; give one length for all, or '
      'one for each (--connections).'
    )
  for i, link in enumerate(links):
    least = int(loop and i + 1 == wanted)
    if link.length < least:
      raise UserError(
        f'connection {i + 1} has {timeline.STRIDE * link.length} frames; use '
        f'at least {timeline.STRIDE * least}.'
      )
    if not 0 <= _switch(link) <= link.length:
      raise UserError(
        f'connection {i + 1} cannot change its prompt after '
        f'{timeline.STRIDE * _switch(link)} frames; use 0..'
        f'{timeline.STRIDE * link.length}.'
      )
  return links


def _switch(link):
  return link.length // 2 if link.switch is None else link.switch


def _starts(scenes, links):
  """The first position of every scene, and the length of the video."""
  starts, end = [], 0
  for i, scene in enumerate(scenes):
    if scene.length < 1:
      raise UserError(
        f'scene {i + 1} has {timeline.STRIDE * scene.length} frames; use '
        f'{timeline.STRIDE} or more.'
      )
    starts.append(end)
    end += scene.length + (links[i].length if i < len(links) else 0)
  return [*starts, end]


def _with_prompts(scenes, links, starts, settings):
  if settings.pop('prompts', ()):
    raise UserError(
      'the prompts of a story are those of its scenes; leave others out '
      '(--prompts).'
    )
  switches = []
  for i, scene in enumerate(scenes):
    switches.append((starts[i], scene.prompt))
    if i == len(links) or not links[i].length:
      continue
    low = starts[i] + scene.length
    if links[i].prompt is not None:
      switches.append((low, links[i].prompt))
    elif _switch(links[i]) < links[i].length:
      following = scenes[(i + 1) % len(scenes)].prompt
      switches.append((low + _switch(links[i]), following))
  kept = [
    switch
    for i, switch in enumerate(switches)
    if i == 0 or switch[1] != switches[i - 1][1]
  ]
  return Settings(**settings, prompts=tuple(kept))
