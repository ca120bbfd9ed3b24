"""Which videos a folder holds, and their captions.

A tar in the folder is read as WebDataset writes them: `KEY.mp4` with its
caption in `KEY.txt`, or as `caption` in `KEY.json`.
"""

import csv
import dataclasses
import functools
import io
import os
import pathlib
import re
import tarfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from unitemp_jax import files, timeline
from unitemp_jax.errors import Remark, UserError, check_known

SUFFIXES = ('.mp4', '.mov', '.webm', '.gif', '.mkv', '.avi', '.m4v')
SHORT = ('drop', 'pad')

Skip = Callable[[str, str], None]
Bucket = tuple[int, int, int]  # height, width, frames


@dataclasses.dataclass(frozen=True)
class VideoFolderSpec:
  """What to make of a folder of videos."""

  videos: str  # folder, searched with all its subfolders
  fps: float  # frames per second of the clips
  height: int  # pixels
  width: int  # pixels
  num_frames: int  # T, frames per clip
  # CSV or JSONL file with the columns `columns`; or where the caption of
  # `FOLDER/NAME.mp4` lies below `videos`, such as `texts/{folder}/{name}.txt`.
  # None reads `NAME.txt` beside the video.
  captions: str | None = None
  # of the file (its path below the folder), and of the caption
  columns: tuple[str, str] = ('file', 'caption')
  # what becomes of the last frames of a scene that are fewer than T: 'drop', or
  # 'pad': the last one is shown on, if half of T are there
  short: str = 'drop'
  # height, width and frames of the sets that share the clips out among them,
  # this one included: each goes to the nearest shape, and to the longest number
  # of frames that it has. () is this one alone.
  buckets: tuple[Bucket, ...] = ()

  def __post_init__(self):
    for name, most in (
      ('fps', timeline.MOST_FPS),
      ('height', timeline.MOST_SIDE),
      ('width', timeline.MOST_SIDE),
      ('num_frames', timeline.MOST_FRAMES),
    ):
      if not 0 < getattr(self, name) <= most:  # No number is none of them.
        raise UserError(
          f'{name} is {getattr(self, name)}; it must be positive and at most '
          f'{most}.'
        )
    check_known('short is', self.short, SHORT)
    if self.buckets and self.bucket not in self.buckets:
      raise UserError(f'{self.bucket} is not among {self.buckets}.')
    if not os.path.isdir(self.videos):
      raise UserError(f'There is no folder {self.videos}.')

  @property
  def bucket(self) -> Bucket:
    """Height, width and frames of the clips."""
    return self.height, self.width, self.num_frames

  @property
  def pattern(self) -> str | None:
    """Where captions lie beside their videos; None if in one file."""
    if self.captions is None:
      return '{folder}/{name}.txt'
    return self.captions if '{name}' in self.captions else None


def read_buckets(text: str) -> tuple[Bucket, ...]:
  """Reads '480x832x81,832x480x81': height, width and frames of each.

  UserError if it is written in another way.
  """
  found = []
  for part in filter(None, text.split(',')):
    numbers = part.strip().split('x')
    if len(numbers) != 3 or not all(
      n.isdecimal() and len(n) < 9 and int(n) for n in numbers
    ):
      raise UserError(
        f'{part!r} is no bucket: write height x width x frames, such as '
        '480x832x81,832x480x81.'
      )
    found.append((int(numbers[0]), int(numbers[1]), int(numbers[2])))
  return tuple(found)


def below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """What lies in a folder and its folders; those that vanish are empty.

  Those that may not be read are said.
  """

  def leave_out(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
      why = f'{error.filename} cannot be read ({error.strerror})'
      warnings.warn(Remark(f'{why}; it is left out'), stacklevel=2)

  for place, folders, names in os.walk(folder, onerror=leave_out):
    yield from (pathlib.Path(place, name) for name in (*folders, *names))


def list_videos(spec: VideoFolderSpec, skip: Skip) -> list[tuple[str, str]]:
  """Lists the videos that have a caption.

  Args:
    spec: the folder and where its captions are.
    skip: called with a file and the reason why it is left out.

  Returns:
    (path below the folder, caption) per video, sorted.

  Raises:
    UserError: the caption file is missing or cannot be understood, or the
      folder holds no video.
  """
  root = pathlib.Path(spec.videos)
  found: list[str] = []
  inside: dict[str, str] = {}  # Captions that lie in tars.
  for path in below(root):
    name = path.relative_to(root).as_posix()
    if path.suffix.lower() in SUFFIXES and not path.exists():
      skip(name, 'is a link to a file that is missing')
    elif path.suffix.lower() in SUFFIXES and path.is_file():
      found.append(name)
    elif path.suffix.lower() == '.tar' and path.is_file():
      try:
        captions = _tar_captions(path)
      except (UserError, tarfile.TarError, OSError) as error:
        skip(name, str(error).removeprefix(f'{path} ').rstrip('.'))
        continue
      for member, text in captions.items():
        found.append(f'{name}/{member}')
        inside[f'{name}/{member}'] = text
  found.sort()
  if not found:
    raise UserError(
      f'There is no video in {spec.videos}: looked for '
      f'{", ".join((*SUFFIXES, ".tar"))}.'
    )
  table = None
  if spec.pattern is None and spec.captions is not None:
    table = read_captions(spec.captions, spec.columns)
    for file in sorted(set(table) - set(found)):
      skip(file, f'is named in {spec.captions} but is not in {spec.videos}')
  listed = []
  for file in found:
    if re.search(r'[\ud800-\udfff]', file):
      shown = file.encode('utf-8', 'backslashreplace').decode()
      skip(shown, 'has a name that is no UTF-8: rename it')
      continue
    try:
      caption, wanted = _caption(spec, file, table, inside)
    except (OSError, UnicodeDecodeError) as error:
      skip(file, f'its caption cannot be read: {error}')
      continue
    if caption.strip():
      listed.append((file, ' '.join(caption.split())))
    else:
      skip(file, f'has no caption: write {wanted}')
  return listed


def _caption(
  spec: VideoFolderSpec,
  file: str,
  table: dict[str, str] | None,
  inside: dict[str, str],
) -> tuple[str, str]:
  """The caption of a video, '' for none, and where it belongs."""
  if table is not None:
    return table.get(file, ''), f'a row in {spec.captions}'
  if file in inside:
    return inside[file], f'{pathlib.PurePath(file).stem}.txt in the tar'
  path = pathlib.PurePath(file)
  assert spec.pattern is not None
  name = spec.pattern.replace('{folder}', str(path.parent))
  name = name.replace('{name}', path.stem)
  place = pathlib.Path(spec.videos) / name
  text = place.read_text('utf-8-sig') if place.is_file() else ''
  return text, str(pathlib.PurePath(os.path.normpath(name)))


def read_rows(path: str | os.PathLike[str]) -> Iterator[tuple[str, Any]]:
  """Rows of a CSV or JSON lines file, each with where it stands.

  Lines of JSON end at line feeds only. UserError if the file cannot be read as
  that, or a CSV has two columns of one name or a row of too many values.
  """
  text = files.read_text(path)
  if os.fspath(path).lower().endswith('.csv'):
    yield from _csv_rows(path, text)
    return
  for number, line in enumerate(text.split('\n'), 1):
    if line.strip():
      where = f'{path} line {number}'
      try:
        yield where, files.parse_json(line)
      except (ValueError, RecursionError) as error:
        raise UserError(f'{where} is not JSON ({error}).') from error


def _csv_rows(
  path: str | os.PathLike[str], text: str
) -> Iterator[tuple[str, dict[str, Any]]]:
  reader = csv.DictReader(io.StringIO(text, newline=''), strict=True)
  start = 1
  try:
    names = [name for name in reader.fieldnames or () if name]
    if len(set(names)) < len(names):
      raise UserError(
        f'{path} has two columns of one name (its first line is '
        f'{", ".join(names)[:60]}); rename one.'
      )
    start = reader.line_num + 1
    for row in reader:
      if any(map(str.strip, row.pop(None, []))):
        raise UserError(
          f'{path} line {start} has more values than there are columns '
          f'({", ".join(names)[:60]}); put texts with commas in quotes.'
        )
      yield f'{path} line {reader.line_num}', row
      start = reader.line_num + 1
  except csv.Error as error:
    raise UserError(
      f'{path} line {start} is no CSV ({error}); close its quotes.'
    ) from error


def read_captions(
  path: str | os.PathLike[str], columns: tuple[str, str] = ('file', 'caption')
) -> dict[str, str]:
  """Reads a caption file: file -> caption.

  UserError if it cannot be read, or a row lacks one of the two.
  """
  captions: dict[str, str] = {}
  if not os.fspath(path).endswith(('.csv', '.jsonl', '.json')):
    raise UserError(f'The caption file {path} must end in .csv or .jsonl.')
  for where, row in read_rows(path):
    row = row if isinstance(row, dict) else {}
    name, caption = (row.get(column) for column in columns)
    if not isinstance(name, str) or not isinstance(caption, str):
      raise UserError(
        f'{where} lacks "{columns[0]}" or "{columns[1]}", it has '
        f'{", ".join(map(str, row)) or "neither"}; both are needed ("unitemp '
        'data" takes other names with --columns=FILE,CAPTION).'
      )
    name = pathlib.PurePath(os.path.normpath(name)).as_posix()
    if name in captions:
      raise UserError(f'{where} names {name} a second time.')
    captions[name] = caption
  if not captions:
    raise UserError(f'{path} holds no caption; write one row per video.')
  return captions


@functools.lru_cache(maxsize=64)
def _tar_members(
  path: str, size: int, changed: int
) -> dict[str, tarfile.TarInfo]:
  """The files in a tar by name."""
  del size, changed  # Another tar of this name.
  try:
    with tarfile.open(path, 'r:') as tar:
      return {member.name: member for member in tar if member.isfile()}
  except (tarfile.TarError, OSError) as error:
    raise UserError(f'{path} cannot be read as a tar ({error}).') from error


def _members(path: str | os.PathLike[str]) -> dict[str, tarfile.TarInfo]:
  stat = os.stat(path)
  return _tar_members(os.fspath(path), stat.st_size, stat.st_mtime_ns)


def _open_member(path: str | os.PathLike[str], name: str) -> Any:
  """A file in a tar, to be read where it lies."""
  return tarfile.open(path, 'r:').extractfile(_members(path)[name])


def _tar_captions(path: pathlib.Path) -> dict[str, str]:
  """The videos of a tar and their captions, '' where there is none."""
  members, found = _members(path), {}
  for name in members:
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in SUFFIXES:
      continue
    found[name] = ''
    for other in ('.txt', '.json'):
      if f'{stem}{other}' in members:
        with _open_member(path, f'{stem}{other}') as content:
          found[name] = _member_caption(content.read(), other)
        break
  return found


def _member_caption(content: bytes, suffix: str) -> str:
  try:
    text = content.decode('utf-8-sig')
    if suffix == '.txt':
      return text
    row = files.parse_json(text)
  except (ValueError, RecursionError):
    return ''
  caption = row.get('caption', '') if isinstance(row, dict) else ''
  return caption if isinstance(caption, str) else ''


def open_video(videos: str, file: str) -> tuple[str, BinaryIO | None]:
  """A video's path, and its content if it lies in a tar."""
  path = os.path.join(videos, file)
  tar, dot, member = path.partition('.tar/')
  if not dot:
    return path, None
  tar += '.tar'
  if not os.path.isfile(tar) or member not in _members(tar):
    raise files.no_file(path)
  return path, _open_member(tar, member)


def sha256_of(videos: str, file: str) -> str:
  """Hash of a video's content; UserError if it is missing."""
  path, content = open_video(videos, file)
  if content is None:
    if not os.path.isfile(path):
      raise files.no_file(path)
    return files.file_sha256(path)
  with content:
    return files.sha256(content.read())
