"""Which clips of two systems belong together: those of one prompt and sample.

File names lose something of a prompt: its end, dots, slashes. So a clip's own
record goes first, then the list of prompts, then what other folders know. A
clip that could belong to two prompts is paired with none.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from unitemp_jax.evaluation.clips import naming
from unitemp_jax.evaluation.clips.folder import ClipFile
from unitemp_jax.evaluation_sets.manifests import Prompt

_CUTS = (100, 180)


@dataclasses.dataclass(frozen=True)
class System:
  """The clips of one system under the name that tables use."""

  name: str
  clips: tuple[ClipFile, ...]


@dataclasses.dataclass(frozen=True)
class Pair:
  """Clips of one prompt and sample.

  Attributes:
    prompt: the longest form of it that is known.
    sample: number.
    clips: by system; two at least.
  """

  prompt: str
  sample: int
  clips: Mapping[str, ClipFile]


@dataclasses.dataclass(frozen=True)
class Unpaired:
  """A clip that stands alone, and why."""

  system: str
  clip: ClipFile
  reason: str


@dataclasses.dataclass(frozen=True)
class Pairing:
  """Pairs in the order of the first system, and what is left.

  Attributes:
    pairs: with clips of two systems or more.
    unpaired: all other clips.
    notes: sentences about what was assumed.
  """

  pairs: tuple[Pair, ...]
  unpaired: tuple[Unpaired, ...]
  notes: tuple[str, ...]


def pair(systems: Sequence[System], prompts: Sequence[Prompt] = ()) -> Pairing:
  """Pairs the clips of all systems by prompt and sample.

  Args:
    systems: with names of their own.
    prompts: the list that file names with numbers point into, and that says
      which long prompt belongs to which short one.
  """
  known = _Known(systems, prompts)
  rows: dict[tuple[str, int], dict[str, ClipFile]] = {}
  unpaired = []
  for system in systems:
    for clip in system.clips:
      identity, reason = known.identify(clip)
      if identity is None:
        unpaired.append(Unpaired(system.name, clip, reason))
        continue
      row = rows.setdefault((identity, clip.sample), {})
      if system.name in row:
        first = row[system.name].name
        reason = f'it has the prompt and sample of {first}'
        unpaired.append(Unpaired(system.name, clip, reason))
      else:
        row[system.name] = clip
  paired = {identity for (identity, _), row in rows.items() if len(row) > 1}
  pairs = []
  for (identity, sample), row in rows.items():
    if len(row) > 1:
      pairs.append(Pair(known.text(identity, row.values()), sample, row))
      continue
    ((name, clip),) = row.items()
    what = 'sample' if identity in paired else 'prompt'
    unpaired.append(Unpaired(name, clip, f'no other system has its {what}'))
  return Pairing(tuple(pairs), tuple(unpaired), tuple(known.notes))


class _Known:
  """All whole prompts, and the ways in which a clip may name one."""

  def __init__(self, systems: Sequence[System], prompts: Sequence[Prompt]):
    self._texts: dict[str, str] = {}
    self._alias: dict[str, str] = {}
    self._numbered = [naming.canonical(prompt.name) for prompt in prompts]
    self.notes: list[str] = []
    for prompt in prompts:
      identity = naming.canonical(prompt.name)
      self._texts[identity] = prompt.name
      self._alias.setdefault(naming.canonical(prompt.text), identity)
    for system in systems:
      for clip in system.clips:
        if clip.prompt and not clip.cut:
          identity = self._identity(clip.prompt)
          self._texts.setdefault(identity, clip.prompt)
    self._starts: dict[str, set[str]] = collections.defaultdict(set)
    for text in [*self._texts.values(), *(p.text for p in prompts)]:
      for cut in _CUTS:
        if len(text) >= cut:
          start = naming.canonical(text[:cut])
          self._starts[start].add(self._identity(text))
    if not prompts and any(
      not clip.prompt for system in systems for clip in system.clips
    ):
      self._learn_numbers(systems)

  def _identity(self, text: str) -> str:
    plain = naming.canonical(text)
    return self._alias.get(plain, plain)

  def _learn_numbers(self, systems: Sequence[System]) -> None:
    """Takes the place of each prompt from clips that have both."""
    places: dict[int, set[str]] = collections.defaultdict(set)
    for system in systems:
      for clip in system.clips:
        if clip.index is not None and clip.prompt and not clip.cut:
          places[clip.index].add(self._identity(clip.prompt))
    if places and all(len(names) == 1 for names in places.values()):
      last = max(places)
      self._numbered = [
        next(iter(places.get(place, {f'#{place}'})))
        for place in range(last + 1)
      ]
      self.notes.append(
        'clips whose names hold a number only were paired by their place in '
        'the list of prompts that other folders show; give --prompts to be '
        'sure.'
      )
    else:
      self.notes.append(
        'clips whose names hold a number only were paired by that number; give '
        '--prompts to pair them with clips named by prompt.'
      )

  def identify(self, clip: ClipFile) -> tuple[str | None, str]:
    """Returns what a clip is known by, or None and why there is nothing."""
    if not clip.prompt:
      if clip.index is None:
        return None, 'its name tells neither prompt nor number'
      if clip.index < len(self._numbered):
        return self._numbered[clip.index], ''
      if self._numbered:
        count = len(self._numbered)
        return None, f'its number is beyond the {count} prompts, counted from 0'
      return f'#{clip.index}', ''
    identity = self._identity(clip.prompt)
    if not clip.cut:
      return identity, ''
    candidates = set(self._starts.get(naming.canonical(clip.prompt), ()))
    if len(candidates) > 1:
      return None, (
        f'{len(candidates)} prompts begin with the {len(clip.prompt)} '
        'characters of its name, where it is cut off; names with numbers '
        '(--save_with_index) tell them apart'
      )
    return (candidates.pop() if candidates else identity), ''

  def text(self, identity: str, clips) -> str:
    """The prompt as a reader sees it."""
    texts = [clip.prompt for clip in clips]
    # Sets of real clips go by file names; what was asked for tells more.
    asked = [str(clip.about.get('prompt') or '') for clip in clips]
    if identity.isdecimal() and any(asked):
      return max(asked, key=len)
    known = self._texts.get(identity)
    return known or max(texts, key=len) or f'prompt number {identity[1:]}'
