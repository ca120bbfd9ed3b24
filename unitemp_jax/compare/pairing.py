"""Pairs of clips: those of one prompt and sample, by several systems.

File names lose something of a prompt: its end, dots, slashes. So a clip's own
record goes first, then the list of prompts, then what other folders know. A
clip that could belong to two prompts is paired with none.
"""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import folder, naming
from unitemp_jax.evaluation.clips.folder import ClipFile, Listing
from unitemp_jax.evaluation.clips.layout import Blocks
from unitemp_jax.evaluation_sets.manifests import Prompt
from unitemp_jax.report.pages import plural


@dataclasses.dataclass(frozen=True)
class System:
  """The clips of one system under the name that tables use."""

  name: str
  clips: tuple[ClipFile, ...]


@dataclasses.dataclass(frozen=True)
class Pair:
  """Clips of one prompt and sample."""

  prompt: str  # the longest form of it that is known
  sample: int  # number
  clips: Mapping[str, ClipFile]  # by system; two at least


@dataclasses.dataclass(frozen=True)
class Unpaired:
  """A clip that stands alone, and why."""

  system: str
  clip: ClipFile
  reason: str


@dataclasses.dataclass(frozen=True)
class Pairing:
  """Pairs in the order of the first system, and what is left."""

  pairs: tuple[Pair, ...]  # with clips of two systems or more
  unpaired: tuple[Unpaired, ...]  # all other clips
  notes: tuple[str, ...]  # sentences about what was assumed


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
      for cut in naming.CUTS:
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
    asked = [clip.asked for clip in clips]
    if identity.isdecimal() and any(asked):
      return max(asked, key=len)
    known = self._texts.get(identity)
    return known or max(texts, key=len) or f'prompt number {identity[1:]}'


Found = list[tuple[System, Path]]


def named(text: str) -> tuple[str, Path]:
  """Splits NAME=DIR; a folder with `=` in its name is one."""
  name, separator, path = text.partition('=')
  if not separator or Path(text).is_dir():
    return '', Path(text)
  return name, Path(path)


def read(
  folders: Sequence[str], baseline: str, blocks: Blocks | None
) -> tuple[Found, list[str]]:
  """Returns the systems, with the folder of each, and what was left out.

  Args:
    folders: `NAME=DIR` or `DIR` each; one that holds a set is its videos.
    baseline: who named the clips of all folders but the first, or with commas
      of each, of `naming.KINDS`.
    blocks: boundaries of clips that do not tell theirs.

  Raises:
    UserError: an unknown kind, a folder without clips, or a single system.
  """
  found: Found = []
  problems: list[str] = []
  kinds = _kinds(baseline, len(folders))
  for text, kind in zip(folders, kinds, strict=True):
    told, path = named(text)
    if (path / 'set.json').is_file():
      path = path / 'videos'
    listing = folder.list_clips(path, kind, blocks)
    problems += listing.problems
    own = path.resolve()
    name = told or (own.parent.name if own.name == 'videos' else own.name)
    # The orders of a single folder need not say whose they are.
    name = '' if len(folders) == 1 else name
    found += [(system, path) for system in split(name, listing)]
  if len(found) < 2:
    raise UserError(
      'there is a single system; name two folders, or one with several orders.'
    )
  return _distinct(found), problems


def _kinds(text: str, count: int) -> list[str]:
  kinds = text.split(',')
  for kind in kinds:
    if kind not in naming.KINDS:
      raise UserError(
        f'--baseline={text}: {kind!r} is none of {", ".join(naming.KINDS)}.'
      )
  if len(kinds) == 1:
    return ['folder', *kinds * (count - 1)]
  if len(kinds) != count:
    raise UserError(
      f'--baseline={text} names {len(kinds)} kinds for {count} folders; give '
      'one, or one for each.'
    )
  return kinds


def split(name: str, listing: Listing) -> list[System]:
  """The systems in a folder: one, or one for each temporal order in it.

  Args:
    name: of the folder's system; '' names orders alone.
    listing: of its clips.
  """
  orders = dict.fromkeys(clip.order for clip in listing.clips)
  if len(orders) < 2:
    return [System(name, listing.clips)]
  return [
    System(
      f'{name}{": " if name else ""}{order or "unnamed order"}',
      tuple(clip for clip in listing.clips if clip.order == order),
    )
    for order in orders
  ]


def _distinct(systems: Found) -> Found:
  """Numbers systems of one name."""
  seen: dict[str, int] = {}
  named = []
  for system, path in systems:
    seen[system.name] = seen.get(system.name, 0) + 1
    count = seen[system.name]
    name = system.name if count == 1 else f'{system.name} ({count})'
    named.append((System(name, system.clips), path))
  return named


def summary(systems: Found, paired: Pairing) -> Iterator[str]:
  """Yields lines that say how many clips of each system are in pairs."""
  for system, path in systems:
    mine = [p for p in paired.pairs if system.name in p.clips]
    yield (
      f'{system.name}: {plural(len(system.clips), "clip")} in {path}, '
      f'{len(mine)} paired'
    )
  reasons: dict[tuple[str, str], list[str]] = {}
  for alone in paired.unpaired:
    names = reasons.setdefault((alone.system, alone.reason), [])
    names.append(alone.clip.name)
  for (name, reason), clips in reasons.items():
    yield f'not paired: {len(clips)} of {name}, {reason}: {clips[0]}'


def why_unpaired(systems: Found, paired: Pairing) -> str:
  """One sentence for when no two clips belong together."""
  kinds = {
    naming.guess(clip.path.stem)
    for system, _ in systems
    for clip in system.clips
    if not clip.recorded
  }
  kinds -= {'folder'}
  mend = 'give --prompts=FILE, or another --baseline'
  if kinds:
    mend = f'some names look like those of --baseline={",".join(sorted(kinds))}'
  first = paired.unpaired[0]
  return (
    f'no two clips have the same prompt and sample ({first.clip.name}: '
    f'{first.reason}); {mend}.'
  )
