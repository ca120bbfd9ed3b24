"""Checks of folders: what a benchmark would score wrongly, or without."""

import bisect
import collections
import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files, timeline
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import clips
from unitemp_jax.evaluation_sets.store import Store
from unitemp_jax.generate import clip_file
from unitemp_jax.video import read

_READERS = min(8, os.cpu_count() or 1)
_FLAT, _DARK = 1.0, 8.0  # of 255; codecs leave some noise
_STILL = 1e-4  # of 1, likewise
_CUT = 20  # characters from which on a name may be the start of another
_AROUND = 8  # names before and after one that are compared with it


@dataclasses.dataclass(frozen=True)
class Problem:
  """Something wrong with one file."""

  # 'missing', 'unfinished', 'damaged', 'unreadable', 'black', 'constant',
  # 'frozen', 'wrong length', 'wrong rate', 'wrong size', 'misnamed', 'stray' or
  # 'repeated'
  kind: str
  file: str  # its path below the folder
  what: str  # one sentence


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What every clip must be; None where anything will do."""

  frames: int | None = None
  fps: float | None = None
  height: int | None = None
  width: int | None = None

  @classmethod
  def parse(
    cls, frames: int | None, fps: float | None, size: str | None
  ) -> 'Wanted':
    """Reads a size HxW, and checks the rate."""
    sides = re.fullmatch(r'([1-9]\d{0,4})x([1-9]\d{0,4})', size or '')
    if size is not None and not sides:
      raise UserError(f'--size={size} is not HxW, as 480x832.')
    if fps is not None and not 0 < fps <= timeline.MOST_FPS:
      raise UserError(f'--fps={fps}: use more than 0, such as 16.')
    return cls(frames, fps, *(map(int, sides.groups()) if sides else ()))


def verify_set(root: Path) -> tuple[int, list[Problem]]:
  """Checks a set that `unitemp evaluate generate` made.

  Returns:
    How many clips there should be, and what is wrong.

  Raises:
    UserError: this is no set.
  """
  store = Store(root)
  settings = store.read_settings()
  wanted = Wanted(*(settings[field.name] for field in _FIELDS))
  listed = store.read_clips()
  lines = {line['video']: line for line in listed}
  unfinished: dict[str, str] = {}

  def read_record(name: str) -> Mapping[str, Any]:
    record = store.read_record(root / lines[name]['record'])
    poster = store.root / 'posters' / f'{_path(name)}.png'
    if record.get('key') != lines[name]['key']:
      what = 'its record is missing or that of another clip'
      unfinished[name] = what
    elif '.png' in clip_file.marks_of(record) and not poster.is_file():
      unfinished[name] = 'its poster is missing'
    return record

  found = verify_folder(root, lines, wanted, read_record, below='videos')
  found += [
    Problem('unfinished', name, unfinished[name])
    for name in lines
    if name in unfinished
  ]
  count = settings.get('clips', len(listed))
  if count != len(listed):
    what = f'it lists {len(listed)} clips, and set.json says {count}; run '
    what += '"unitemp evaluate generate" with its settings again to restore it'
    found.append(Problem('damaged', 'clips.jsonl', what))
  return count, found


def verify_foreign(
  folder: Path,
  suite_name: str,
  manifest: Path,
  samples: int | None,
  wanted: Wanted,
) -> tuple[int, list[Problem]]:
  """As `verify_set`, of a folder that any system wrote for a suite."""
  suite = clips.SUITES[suite_name]
  if suite.conditioning == 'image':
    raise UserError('use --suite=vbench: the names are the same.')
  caption = 'unknown' if suite.conditioning == 'clip' else None
  prompts = clips.find(suite_name, manifest, prompt=caption)
  listed = clips.list_clips(suite, prompts, ['.'], samples=samples)
  names = [f'{clip.path.removeprefix("./")}.mp4' for clip in listed]
  return len(names), verify_folder(folder, names, wanted)


def to_lines(problems: Sequence[Problem], most: int | None) -> Iterator[str]:
  """Problems to be read, at most so many of a kind."""
  shown: collections.Counter = collections.Counter()
  for problem in problems:
    shown[problem.kind] += 1
    if most is None or shown[problem.kind] <= most:
      yield f'{problem.kind}: {problem.file}: {problem.what}'
  for kind, number in shown.items():
    if most is not None and number > most:
      yield f'{kind}: {number - most} more; see --all'


def summary(problems: Sequence[Problem]) -> str:
  """How many problems there are of each kind."""
  counts = collections.Counter(problem.kind for problem in problems)
  found = ', '.join(f'{number} {kind}' for kind, number in counts.items())
  return found or 'all there and whole'


_FIELDS = dataclasses.fields(Wanted)


def verify_folder(
  root: Path,
  names: Iterable[str],
  wanted: Wanted,
  read_record: Callable[[str], Mapping[str, Any]] = lambda _: {},
  below: str = '',
) -> list[Problem]:
  """Checks a folder of clips, whoever made it.

  Args:
    root: the folder.
    names: paths of all clips that must be there, below it.
    wanted: what each must be.
    read_record: what is known of one, with `sha256`; others are decoded.
    below: the subfolder that may hold nothing else.

  Raises:
    UserError: there is no such folder.
  """
  if not root.is_dir():
    raise UserError(f'{root} is not a folder; give one that holds clips.')
  names = list(dict.fromkeys(names))
  there = {
    path.relative_to(root).as_posix()
    for path in (root / below).rglob('*')
    if path.is_file()
  }
  missing = [name for name in names if name not in there]
  stray = sorted(there - set(names))
  found = _name_strays(stray, missing)
  taken = {problem.what for problem in found if problem.kind == 'misnamed'}
  found += [
    Problem('missing', name, 'it is not there')
    for name in missing
    if _should_be(name) not in taken
  ]
  present = [name for name in names if name in there]
  first: dict[str, str] = {}
  repeated = []
  with futures.ThreadPoolExecutor(_READERS) as pool:
    looked = pool.map(
      lambda name: _look(root, name, wanted, read_record(name)), present
    )
    for name, (problems, digest) in zip(present, looked, strict=True):
      found += problems
      # Equal files under several names: samples that share a seed.
      owner = first.setdefault(digest, name)
      if owner != name:
        repeated.append(Problem('repeated', name, f'the same file as {owner}'))
  return found + repeated


def forget(store: Store, problems: Sequence[Problem]) -> int:
  """Removes bad clips, so that they are made again.

  Returns:
    How many there were. Files that nothing asks for stay, and those that the
    set did not write.
  """
  bad = {problem.file for problem in problems}
  bad -= {p.file for p in problems if p.kind in ('stray', 'misnamed')}
  lines = {line['video']: line for line in store.read_clips()}
  store.check_no_links([*lines.values()])
  for name in bad & {*lines}:
    place, key = store.root / lines[name]['record'], lines[name]['key']
    record, path = store.read_record(place), _path(name)
    for file, own in store.written(path, record, key).items():
      # One that was damaged may have its tags still.
      if own or clip_file.tags_of(file).get('key') == key:
        file.unlink()
    place.unlink(missing_ok=True)
  return len(bad & {*lines})


def _path(name: str) -> str:
  """`Clip.path` of a video of a set."""
  return name.removeprefix('videos/').removesuffix('.mp4')


def _look(
  root: Path, name: str, wanted: Wanted, record: Mapping[str, Any]
) -> tuple[list[Problem], str]:
  """Checks one file; returns the hash of its content too.

  A file that is as its record says is decoded only if that does not say what
  its pixels are like.
  """
  path = root / name
  try:
    digest = files.file_sha256(path)
  except OSError as error:
    return [Problem('unreadable', name, str(error.strerror))], name
  as_written = digest == record.get('sha256')
  if as_written and _is_told(record):
    seen = Wanted(*(record.get(field.name) for field in _FIELDS))
    steps = record.get('frame_difference') or [1.0]
    found = _compare(name, seen, wanted)
    brightness, contrast = (record[level] for level in _LEVELS)
    return found + _shown(name, brightness, contrast, max(steps)), digest
  try:
    seen, levels = _decode(path)
  except UserError as error:
    return [Problem('unreadable', name, str(error))], digest
  found = _compare(name, seen, wanted) + _shown(name, *levels)
  if record.get('sha256') and not as_written:
    what = 'its bytes are not those that were written'
    found.append(Problem('damaged', name, what))
  return found, digest


def _is_told(record: Mapping[str, Any]) -> bool:
  """Whether a record says what its clip is and what its pixels are like."""
  names = (*_LEVELS, *(field.name for field in _FIELDS))
  numbers = [record.get(name) for name in names]
  steps = record.get('frame_difference')
  if isinstance(steps, list):
    numbers += steps
  elif steps is not None:
    return False
  return all(isinstance(number, int | float) for number in numbers)


_LEVELS = ('brightness', 'contrast')  # in records, see `clip_file.Watch.facts`


def _shown(
  name: str, brightness: float, contrast: float, change: float
) -> list[Problem]:
  """What is wrong with a clip that shows nothing.

  Args:
    name: of the file.
    brightness: mean of all pixels, 0..255.
    contrast: largest standard deviation within a frame.
    change: largest mean difference of neighbouring frames, 0..1.
  """
  if contrast < _FLAT:
    kind = 'black' if brightness < _DARK else 'constant'
    what = f'no frame shows anything (brightness {brightness:.0f} of 255)'
    return [Problem(kind, name, what)]
  if change < _STILL:
    return [Problem('frozen', name, 'all its frames are the same')]
  return []


def _decode(path: Path) -> tuple[Wanted, tuple[float, float, float]]:
  """What a file is, and the numbers that `_shown` takes."""
  count, total, contrast, change, last = 0, 0.0, 0.0, 0.0, None
  shape, fps = (0, 0), 0.0
  for _, rate, picture in read.decode(path):
    count, shape, fps = count + 1, picture.shape, rate
    total += float(picture.mean())
    contrast = max(contrast, float(picture.std(axis=(0, 1)).max()))
    if last is not None and picture.shape == last.shape:
      moved = np.abs(picture.astype(np.int16) - last).mean() / 255
      change = max(change, float(moved))
    last = picture
  change = change if count > 1 else 1.0
  return Wanted(count, fps, *shape[:2]), (total / count, contrast, change)


def _compare(name: str, seen: Wanted, wanted: Wanted) -> list[Problem]:
  found = []
  if wanted.frames not in (None, seen.frames):
    what = f'{seen.frames} frames instead of {wanted.frames}'
    found.append(Problem('wrong length', name, what))
  if wanted.fps is not None and abs((seen.fps or 0) - wanted.fps) > 0.01:
    what = f'{seen.fps:g} frames per second instead of {wanted.fps:g}'
    found.append(Problem('wrong rate', name, what))
  size, right = (seen.height, seen.width), (wanted.height, wanted.width)
  if wanted.height is not None and size != right:
    what = f'{size[0]}x{size[1]} pixels instead of {right[0]}x{right[1]}'
    found.append(Problem('wrong size', name, what))
  return found


def _should_be(name: str) -> str:
  return f'it should probably be {name}'


def _name_strays(stray: Sequence[str], missing: Sequence[str]) -> list[Problem]:
  """Tells files that nothing asks for from those under a wrong name."""
  found, names = [], _Missing(missing)
  for name in stray:
    guess = names.take(name) if name.endswith('.mp4') else None
    if guess is None:
      what = 'nothing asks for it, and benchmarks may stumble over it'
      found.append(Problem('stray', name, what))
    else:
      found.append(Problem('misnamed', name, _should_be(guess)))
  return found


class _Missing:
  """The missing clip that a file under another name may be.

  Tools cut long prompts, strip what ends them, replace characters, or change
  their case; the number of the sample stays. Only names that begin or end
  nearly alike are compared, so that thousands take no time.
  """

  def __init__(self, missing: Sequence[str]):
    self._names: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name in missing:
      folder, stem, sample = _split(name)
      of_sample = self._names.setdefault((folder, sample), {})
      of_sample.setdefault(_plain(stem), []).append(name)
    self._sorted = {
      key: [sorted(plain), sorted(p[::-1] for p in plain)]
      for key, plain in self._names.items()
    }

  def take(self, name: str) -> str | None:
    """The clip that `name` may be, which is no longer missing."""
    folder, stem, sample = _split(name)
    names = self._names.get((folder, sample), {})
    if not names:
      return None
    plain = _plain(stem)
    begins, ends = self._sorted[folder, sample]
    if len(names.get(plain, ())) == 1:
      return names.pop(plain)[0]
    near = _near(begins, plain)
    near += [word[::-1] for word in _near(ends, plain[::-1])]
    near = [word for word in dict.fromkeys(near) if word in names]
    fits = [word for word in near if word.startswith(plain)]
    if len(plain) < _CUT or not fits:
      fits = difflib.get_close_matches(plain, near, n=2, cutoff=0.9)
    if len(fits) == 1 and len(names[fits[0]]) == 1:
      return names.pop(fits[0])[0]
    return None


def _near(words: Sequence[str], word: str) -> list[str]:
  """Words that stand around the place of one in a sorted list."""
  place = bisect.bisect_left(words, word)
  return list(words[max(0, place - _AROUND) : place + _AROUND])


def _split(name: str) -> tuple[str, str, str]:
  folder, _, file = name.rpartition('/')
  match = re.fullmatch(r'(.*)-(\d+)\.\w+', file)
  return (folder, match[1], match[2]) if match else (folder, file, '')


def _plain(stem: str) -> str:
  return re.sub(r'[\W_]+', ' ', stem).strip().casefold()
