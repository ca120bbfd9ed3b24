"""Readers of prompt lists: text, CSV, JSON lines, VBench's JSON, folders.

A suite is the user's own file; none is part of this package. Every format ends
as a list of `Prompt`. Lines are split at line feeds only, as the benchmarks do.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.data import video_list
from unitemp_jax.errors import UserError, is_blank

TABLES = ('.csv', '.json', '.jsonl', '.tsv')  # .tsv is refused
# Options of "unitemp generate" that a table may have for each prompt.
_SETTINGS = ('image', 'seed', 'negative_prompt', 'length', 'order')
IMAGES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')


@dataclasses.dataclass(frozen=True)
class Prompt:
  """One entry of a prompt suite."""

  name: str  # the short prompt, by which benchmarks name files
  text: str  # what the model is given; the name, or a longer version of it
  id: str  # what the clips' seeds are derived from
  # of the benchmark that this entry serves; may be empty
  dimensions: tuple[str, ...] = ()
  image: Path | None = None  # file of the first frame, or None
  clip: Path | None = None  # file of a real clip, or None
  settings: tuple[str, ...] = ()  # that its record names beside its text


def read(path: Path, long_prompts: Path | None = None) -> list[Prompt]:
  """Reads a prompt suite.

  Args:
    path: .txt (one prompt a line), .csv or .jsonl (columns `prompt`, and maybe
      `name`, `id`, `dimension`, `image`), .json (VBench's list of records), or
      a folder of .txt files, each named after its dimension.
    long_prompts: what the model is given instead of the short prompts: a text
      file with as many lines, or a folder of such files beside a folder.

  Raises:
    UserError: unreadable, empty, of an unknown kind, or not aligned.
  """
  if path.is_dir():
    return _read_folder(path, long_prompts)
  kind = path.suffix.lower()
  if kind not in _READERS:
    raise UserError(
      f'{path}: unknown kind; use one of {", ".join(_READERS)}, or a folder of '
      '.txt files.'
    )
  prompts = list(_READERS[kind](path))
  if not prompts:
    raise UserError(f'{path} holds no prompt; write one per line.')
  owners: dict[str, Prompt] = {}
  for prompt in prompts:
    other = owners.setdefault(prompt.id, prompt)
    if other.name != prompt.name:
      raise UserError(
        f'{path}: {other.name[:60]!r} and {prompt.name[:60]!r} both '
        f'have the id {prompt.id!r}, which decides their noise; give each its '
        'own.'
      )
  return _lengthen(prompts, path, long_prompts)


def read_clips(
  folder: Path, captions: Path | None = None, prompt: str | None = None
) -> list[Prompt]:
  """Lists a folder of real clips, each with its caption.

  Args:
    folder: searched with its subfolders.
    captions: CSV or JSONL file with the columns `file` and `caption`; None
      reads `name.txt` beside each `name.mp4`.
    prompt: for clips without a caption.

  Raises:
    UserError: no clip, or one without a caption when `prompt` is None.
  """
  if not folder.is_dir():
    raise UserError(
      f'--manifest={folder} is not a folder; this suite wants a folder of real '
      'clips.'
    )
  known = video_list.read_captions(captions) if captions else {}
  found = []
  for path in sorted(video_list.below(folder)):
    if path.suffix.lower() not in video_list.SUFFIXES or path.is_dir():
      continue
    if not path.is_file():
      raise files.no_file(path)
    name = path.relative_to(folder).as_posix()
    beside = path.with_suffix('.txt')
    text = known.get(name)
    if text is None and beside.is_file():
      text = ' '.join(files.read_text(beside).split())
    text = text or prompt
    if not text:
      raise UserError(
        f'{path} has no caption; write {beside.name} beside it, or give one '
        'for all with --prompt.'
      )
    flat = name[: -len(path.suffix)].replace('/', '_')
    found.append(Prompt(name=flat, text=text, id=name, clip=path))
  if not found:
    raise UserError(
      f'--manifest={folder} holds no video; it must be one of '
      f'{", ".join(video_list.SUFFIXES)}.'
    )
  return found


def with_images(prompts: list[Prompt], folder: Path) -> list[Prompt]:
  """Finds every prompt's first frame in a folder.

  It is the file that the manifest names, or else `NAME.jpg` (or .png, ...).
  UserError if one is missing.
  """
  found = []
  for prompt in prompts:
    if prompt.image is not None:
      tried = [folder / prompt.image]
    else:
      tried = [folder / (prompt.name + suffix) for suffix in IMAGES]
    path = next((path for path in tried if os.path.isfile(path)), None)
    if path is None:
      raise UserError(
        f'there is no image {tried[0]} for the prompt {prompt.name!r}; put it '
        'there or give its folder with --images.'
      )
    found.append(dataclasses.replace(prompt, image=path))
  return found


def _prompt(name: str, text: str = '', **more: Any) -> Prompt:
  more['id'] = more.get('id') or name
  return Prompt(name=name, text=text or name, **more)


def _read_lines(path: Path) -> list[Prompt]:
  return [_prompt(line) for line in files.read_lines(path)]


def _read_rows(path: Path) -> Iterator[Prompt]:
  for where, row in video_list.read_rows(path):
    if path.suffix.lower() == '.csv' and 'prompt' not in row:
      raise UserError(
        f'{path} has no column "prompt" (but {list(row)}); name the columns in '
        'its first line.'
      )
    yield _from_record(row, where)


def _read_json(path: Path) -> Iterator[Prompt]:
  mend = "give one as VBench's is"
  records = files.read_json(path, 'a list of prompts', mend, kind=list)
  for number, record in enumerate(records, 1):
    yield _from_record(record, f'{path} entry {number}')


_READERS: dict[str, Callable[[Path], Iterable[Prompt]]] = {
  '.txt': _read_lines,
  '.csv': _read_rows,
  '.jsonl': _read_rows,
  '.json': _read_json,
}


def _from_record(record: Any, where: str) -> Prompt:
  if isinstance(record, str):
    record = {'prompt': record}
  if not isinstance(record, dict):
    raise UserError(f'{where} is neither a text nor a table of keys.')
  text = record.get('prompt')
  name = record.get('prompt_en') or record.get('name') or text
  text = text or name
  if not isinstance(name, str) or not isinstance(text, str):
    name = text = ''
  if is_blank(name) or is_blank(text):
    raise UserError(
      f'{where} has no prompt; give it the key "prompt" (or VBench\'s '
      '"prompt_en").'
    )
  dimensions = record.get('dimension') or ()
  if isinstance(dimensions, str):
    dimensions = [word.strip() for word in dimensions.split(';')]
  if not isinstance(dimensions, list | tuple):
    raise UserError(f'{where}: dimension is {dimensions!r:.60}, no list.')
  image = record.get('image') or record.get('image_name')
  if image is not None and not isinstance(image, str):
    raise UserError(f'{where}: image is {image!r:.60}, not the name of a file.')
  number = record.get('id')
  return _prompt(
    name,
    text,
    id=None if number is None else str(number),
    dimensions=tuple(map(str, dimensions)),
    image=Path(image) if image else None,
    settings=tuple(n for n in _SETTINGS if record.get(n) not in (None, '')),
  )


def _read_folder(folder: Path, long_prompts: Path | None) -> list[Prompt]:
  """Reads one text file per dimension."""
  found = []
  for path in sorted(folder.glob('*.txt')):
    beside = None if long_prompts is None else long_prompts / path.name
    prompts = _lengthen(_read_lines(path), path, beside)
    found += [
      dataclasses.replace(prompt, dimensions=(path.stem,)) for prompt in prompts
    ]
  if not found:
    raise UserError(
      f'--manifest={folder} holds no prompt; a folder must hold one .txt file '
      'per dimension.'
    )
  return found


def _lengthen(prompts, path, long_prompts) -> list[Prompt]:
  """Replaces the texts by the lines of an aligned file."""
  if long_prompts is None:
    return prompts
  texts = files.read_text(long_prompts).rstrip('\n').split('\n')
  if len(texts) != len(prompts):
    raise UserError(
      f'{long_prompts} has {len(texts)} lines, but {path} has {len(prompts)} '
      'prompts; line n must be the long version of prompt n.'
    )
  for number, text in enumerate(texts, 1):
    if not text.strip():
      raise UserError(f'{long_prompts} line {number} is empty.')
  return [
    dataclasses.replace(prompt, text=text.strip())
    for prompt, text in zip(prompts, texts, strict=True)
  ]
