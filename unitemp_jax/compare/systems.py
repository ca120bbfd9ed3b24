"""The systems that are compared: folders of clips, and the orders in them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from unitemp_jax.compare.pairing import Pairing, System
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import folder, naming
from unitemp_jax.evaluation.clips.folder import Listing
from unitemp_jax.evaluation.clips.layout import Blocks
from unitemp_jax.report.pages import plural

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
    if not clip.about
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
