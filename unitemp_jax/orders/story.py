"""A story: scenes that grow from a key block each, and what connects them."""

import dataclasses
from collections.abc import Sequence

from unitemp_jax.errors import UserError
from unitemp_jax.orders.fill import check_side, new_script
from unitemp_jax.orders.rows import compile_plan
from unitemp_jax.orders.script import Given, Settings
from unitemp_jax.orders.window import Item
from unitemp_jax.plans import Plan


@dataclasses.dataclass(frozen=True)
class Scene:
  """One scene of a story.

  Attributes:
    length: latents.
    prompt: index of its prompt.
    given_first: latents given at its start: 1 = an image, more = a clip.
    given_last: latents given at its end.
  """

  length: int
  prompt: int = 0
  given_first: int = 0
  given_last: int = 0


@dataclasses.dataclass(frozen=True)
class Connection:
  """What leads from one scene to the next.

  Attributes:
    length: latents between the scenes; 0 = a cut.
    switch: how many of them have the prompt of the scene before; None = half.
  """

  length: int
  switch: int | None = None


def story(
  scenes: Sequence[Scene],
  connections: int | Sequence[Connection | int] = 3,
  *,
  loop: bool = False,
  side: str = 'outside_in',
  overlap: int = 1,
  **settings,
) -> Plan:
  """Returns the plan of a story in one continuous video.

  The key block of each scene comes first, in the middle of it, then each scene
  grows to both sides of its key block, then the connections are filled, from
  the first to the last. A scene sees nothing but itself; a connection sees the
  two scenes that it connects. A loop leads from the last scene back to the
  first frame of the first.

  Args:
    scenes: by time.
    connections: length in latents, for all, or one for each: n - 1 for n
      scenes, n for a loop, the last one back to the first scene.
    loop: whether the story ends where it begins.
    side: from which side connections are filled, as for `inbetween`.
    overlap: see `loop`.
    **settings: see `Settings`; prompts follow from the scenes.

  Raises:
    UserError: the sizes do not fit together.
  """
  check_side(side)
  links = _links(scenes, connections, loop)
  starts = _starts(scenes, links)
  setting = _with_prompts(scenes, links, starts, settings)
  script = new_script(0, starts[-1], setting, _given(scenes, starts))
  if loop:
    if not 1 <= overlap <= scenes[0].length:
      raise UserError(
        f'order story: an overlap of {overlap} latents does not fit the first '
        f'scene; use 1..{scenes[0].length}'
      )
    script.copies = [Item(starts[-1] - 1 + k, k) for k in range(overlap)]
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
    seen = high + (overlap if last else scenes[i + 1].length)
    script.blocks += script.cut(low, high, side, (starts[i], seen))
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
      'order story: needs at least 2 scenes, or 1 that loops; for one scene '
      'use forward or backward'
    )
  if isinstance(connections, int):
    connections = [connections] * wanted
  links = [
    Connection(one) if isinstance(one, int) else one for one in connections
  ]
  if len(links) != wanted:
    raise UserError(
      f'order story: {len(scenes)} scenes{" in a loop" if loop else ""} have '
      f'{wanted} connections, but {len(links)} are given'
    )
  for i, link in enumerate(links):
    least = int(loop and i + 1 == wanted)
    if link.length < least:
      raise UserError(
        f'order story: connection {i} has {link.length} latents; use at least '
        f'{least}'
      )
    if not 0 <= _switch(link) <= link.length:
      raise UserError(
        f'order story: connection {i} cannot switch its prompt after '
        f'{link.switch} latents; use 0..{link.length}'
      )
  return links


def _switch(link):
  return link.length // 2 if link.switch is None else link.switch


def _starts(scenes, links):
  """The first position of every scene, and the length of the video."""
  starts, end = [], 0
  for i, scene in enumerate(scenes):
    if scene.length < 1 or min(scene.given_first, scene.given_last) < 0:
      raise UserError(
        f'order story: scene {i} has {scene.length} latents, '
        f'{scene.given_first} given first and {scene.given_last} last; use at '
        'least 1, 0 and 0'
      )
    if scene.given_first + scene.given_last > scene.length:
      raise UserError(
        f'order story: scene {i} has {scene.length} latents, but '
        f'{scene.given_first} are given first and {scene.given_last} last; '
        f'make it at least {scene.given_first + scene.given_last} long'
      )
    starts.append(end)
    end += scene.length + (links[i].length if i < len(links) else 0)
  return [*starts, end]


def _with_prompts(scenes, links, starts, settings):
  if settings.get('prompts'):
    raise UserError(
      'order story: its prompts are those of its scenes; leave prompts out'
    )
  switches = []
  for i, scene in enumerate(scenes):
    switches.append((starts[i], scene.prompt))
    if i < len(links):
      following = scenes[(i + 1) % len(scenes)].prompt
      switch = starts[i] + scene.length + _switch(links[i])
      if switch < starts[i + 1]:
        switches.append((switch, following))
  kept = [
    switch
    for i, switch in enumerate(switches)
    if i == 0 or switch[1] != switches[i - 1][1]
  ]
  return Settings(**settings, prompts=tuple(kept))


def _given(scenes, starts):
  given = []
  for start, scene in zip(starts, scenes, strict=False):
    if scene.given_first:
      given.append(Given(start, scene.given_first))
    if scene.given_last:
      first = start + scene.length - scene.given_last
      given.append(Given(first, scene.given_last))
  return given
