"""Lists the clips of a folder that any system wrote, and what is known of each.

What a clip's own record says (the JSON beside it, or the tags in the file) goes
before what its name says. Nothing is decoded here but headers; what cannot be
used is named and left out.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av

from unitemp_jax import files
from unitemp_jax.data import video_list
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import naming
from unitemp_jax.evaluation.clips.layout import Blocks, Layout
from unitemp_jax.video import read
from unitemp_jax.video.container import stream_rate, video_stream

# What lies beside clips and is none: records, pictures, reports, prompts.
_BESIDE = (
  *('.json', '.jsonl', '.png', '.jpg', '.html', '.js', '.md', '.csv', '.npz'),
)


@dataclasses.dataclass(frozen=True, slots=True)
class ClipFile:
  """One clip."""

  path: Path  # of the file
  name: str  # path below the folder, with '/'
  # what it is known by: the short prompt, or the file name; '' without
  prompt: str
  cut: bool  # whether the prompt is the beginning of a longer one
  index: int | None  # place in the list of prompts, or None
  sample: int  # number of the clip of that prompt
  order: str  # temporal order, '' if unknown
  frames: int  # number of frames as the header says, 0 if it does not
  fps: float  # frames per second
  height: int  # pixels as made, before the file's were repeated
  width: int  # the same
  scale: int  # how many times each was repeated, 1 for most
  layout: Layout  # blocks and given frames
  asked: str  # the prompt that its record says the model was given, '' without
  recorded: bool  # whether there is a record


@dataclasses.dataclass(frozen=True)
class Listing:
  """The clips of a folder by name, and one sentence per thing left out."""

  folder: Path
  clips: tuple[ClipFile, ...]
  problems: tuple[str, ...]


def list_clips(
  folder: Path, kind: str = 'folder', blocks: Blocks | None = None
) -> Listing:
  """Lists every clip below a folder.

  Args:
    folder: searched with its subfolders; hidden files are skipped.
    kind: naming rule, one of `naming.KINDS`, for clips without a record.
    blocks: for clips that do not say; None takes blocks of 3 latents (8 at 24
      frames per second).

  Raises:
    UserError: there is no such folder, or not one usable clip in it.
  """
  if not folder.is_dir():
    raise UserError(f'{folder} is not a folder; give one that holds clips.')
  found: dict[Path, ClipFile | str] = {}
  twins, others, stages = [], [], set()
  for path in sorted(video_list.below(folder)):
    suffix, mp4 = path.suffix.lower(), path.with_suffix('.mp4')
    if suffix in _BESIDE or not _is_visible(path, folder):
      continue
    if suffix == '.txt' and mp4.is_file():
      continue  # LongLive's prompts
    if not path.is_file():
      if suffix in video_list.SUFFIXES:
        found[path] = str(files.no_file(path))
    elif suffix not in video_list.SUFFIXES:
      others.append(path.relative_to(folder).as_posix())
    elif suffix in ('.mkv', '.webm', '.gif') and mp4.is_file():
      twins.append(path)  # the same in another format
    elif path.name.endswith('.loop.mp4'):
      twins.append(path)  # turns of the same
    else:
      record = files.read_known(path.with_suffix('.json'))
      # Clips of unfinished stages are no clips of their own.
      names = record.get('stages')
      stages |= {
        path.parent / str(n) for n in (names if isinstance(names, list) else ())
      }
      try:
        found[path] = _read(folder, path, record, kind, blocks)
      except UserError as error:
        found[path] = str(error)
  whole = [clip for path, clip in found.items() if path not in stages]
  clips = [clip for clip in whole if isinstance(clip, ClipFile)]
  problems = [problem for problem in whole if isinstance(problem, str)]
  if twins:
    problems.insert(
      0,
      f'{len(twins)} clips are there as mp4 too, such as {twins[0].name}: the '
      'mp4 is measured, as it is of systems that write nothing else.',
    )
  if others:
    problems.append(
      f'{len(others)} other files were not read, such as {others[0]}.'
    )
  if not clips:
    why = f' (first problem: {problems[0]})' if problems else ''
    raise UserError(f'there is no usable clip in {folder}{why}.')
  return Listing(folder, tuple(clips), tuple(problems))


def _is_visible(path: Path, folder: Path) -> bool:
  """Whether a file is neither hidden nor a copy for a blind comparison."""
  parts = path.relative_to(folder).parts
  if any(part.startswith('.') for part in parts) or path.is_dir():
    return False
  return not any(
    above.name == 'blind' and (above.parent / 'blind_key.json').is_file()
    for above in path.parents[: len(parts) - 1]
  )


def _read(
  folder: Path,
  path: Path,
  about: dict[str, Any],
  kind: str,
  blocks: Blocks | None,
) -> ClipFile:
  with read.reading(path), av.open(str(path)) as container:
    stream = video_stream(path, container)
    frames, context = stream.frames, stream.codec_context
    fps = float(stream_rate(stream))
    height, width = context.height, context.width
    tags = read.parse_tags(container.metadata)
  scale = _scale(tags.get('scale'), height, width)
  # Other programs keep whole graphs under this name.
  if not about and isinstance(tags.get('prompt'), str):
    about = tags
  name = naming.parse(kind, path.stem)
  relative = path.relative_to(folder).as_posix()
  prompt, cut = _prompt(path, about)
  if not prompt and name is None:
    raise UserError(
      f'{relative} has no record and is not named as {kind} names clips; '
      f'these names are understood as those of {naming.guess(path.stem)!r}.'
    )
  if not prompt and name is not None:
    prompt, cut = name.prompt, name.cut
  sample = about.get('sample')
  if not isinstance(sample, int):
    # The name of a clip with a record is a number and words, not a sample.
    sample = 0 if about or name is None else name.sample
  index = None if name is None else name.index
  if about and index is None:
    # `unitemp generate` and plain sets begin names with the prompt's number.
    number = re.match(r'(\d{4,})-', path.stem)
    index = int(number[1]) if number else None
  try:
    layout = Layout.read(about, frames, fps, blocks)
  except UserError as error:
    raise UserError(f'{relative}: {error}') from error
  return ClipFile(
    path=path,
    name=relative,
    prompt=prompt,
    cut=cut,
    index=index,
    sample=sample,
    order=str(about.get('order') or ''),
    frames=frames,
    fps=fps,
    height=height // scale,
    width=width // scale,
    scale=scale,
    layout=layout,
    asked=str(about.get('prompt') or ''),
    recorded=bool(about),
  )


def _scale(told: Any, height: int, width: int) -> int:
  """How many times the writer of the file repeated pixels, as its tag says."""
  scale = told if type(told) is int else 1
  whole = scale > 0 and height % scale == 0 and width % scale == 0
  return scale if whole else 1


def _prompt(path: Path, about: Mapping[str, Any]) -> tuple[str, bool]:
  """The whole prompt, if the clip's own record has it."""
  # A set's clip is known by its short prompt, whatever the model was given.
  for key in ('name', 'prompt'):
    if isinstance(about.get(key), str) and about[key]:
      return about[key], False
  beside = path.with_suffix('.txt')
  if beside.is_file():
    try:
      prompts = naming.read_blocks(beside.read_text(encoding='utf-8'))
    except (OSError, ValueError):
      prompts = []
    if prompts:
      return prompts[0], False
  return '', False
