"""The files of a clip: video, poster, strip and sidecar, and whose they are.

Frames come piece by piece and are forgotten at once, so that a long clip takes
no more memory than a short one. The sidecar has a mark of each file beside it,
and the mp4 says in its tags what the sidecar says. Older sidecars have no
marks: there the key among the mp4's tags speaks for all files.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import unitemp_jax
from unitemp_jax import errors, files
from unitemp_jax.errors import UserError, check_known, foreign
from unitemp_jax.generate import noise
from unitemp_jax.generate.request import Conditioning, Request
from unitemp_jax.plans import decoding, drawing, switches, text
from unitemp_jax.video import formats
from unitemp_jax.video import frames as pixels
from unitemp_jax.video.read import read_metadata
from unitemp_jax.video.write import open_video, write_image

_TILES = 64  # at most, in a strip
_WORST = 51  # quality of H.264
_FASTEST = 240  # frames per second

MARKS = 'files'  # of a sidecar: what follows the clip's name -> mark
_START, _END = 2**10, 2**16  # bytes that are hashed of a file of any size
_MARK = re.compile(r'\d{1,18}-\w+-\w+')
_PICTURE = re.compile(r'\.frames/\d{5,}\.png')


@dataclasses.dataclass(frozen=True)
class Output:
  """How a video is written.

  Attributes:
    formats: beside the mp4, which is always there: gif, webm, mkv (lossless),
      png (a folder of numbered pictures).
    frame: 'first' or 'last', written as a picture by itself; None for none.
    playback_fps: frames per second of the files; None for the model's.
    crf: quality of mp4 and webm, 0 (best) to 51.
    repeat: turns of a loop in a file of its own; 0 for none.
  """

  formats: tuple[str, ...] = ()
  frame: str | None = None
  playback_fps: float | None = None
  crf: int = 18
  repeat: int = 0

  @classmethod
  def parse(cls, listed: str, **settings) -> 'Output':
    """Reads names of formats with commas, and checks the other settings.

    Raises:
      UserError: a format or a setting is none that can be.
    """
    names = dict.fromkeys(name.strip() for name in listed.split(','))
    for name in names:
      check_known('--format names', name, formats.FORMATS, 'some')
    made = cls(tuple(name for name in names if name != 'mp4'), **settings)
    if not 0 <= made.crf <= _WORST:
      raise UserError(f'--crf={made.crf} must lie in 0 (best) .. {_WORST}.')
    fps = made.playback_fps
    if fps is not None and not 0.1 <= fps <= _FASTEST:
      raise UserError(f'--playback_fps={fps:g} must lie in 0.1..{_FASTEST}.')
    if not 0 <= made.repeat <= 100:
      raise UserError(f'--repeat={made.repeat} must lie in 0..100.')
    return made

  def endings(self, loops: bool) -> list[str]:
    """What the names of the further files end with."""
    names = {'png': '.frames'}
    found = [names.get(name, f'.{name}') for name in self.formats]
    found += [f'.{self.frame}.png'] if self.frame else []
    return found + (['.loop.mp4'] if self.repeat and loops else [])


MP4 = Output()  # nothing else


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """One clip to be made."""

  path: Path  # of the mp4; sidecar, poster and strip lie beside it
  request: Request  # what to make
  decode: str = 'joint'  # one of `plans.decoding.MODES`
  output: Output = MP4  # the files beside, and how they are written
  latents: bool = False  # write an npz of the latents too

  def key(self, model: str) -> str:
    """Hash of all that decides the clip's content."""
    request, digest = self.request, hashlib.sha256()
    words = [
      model,
      request.workflow,
      request.prompts,
      request.seed,
      request.height,
      request.width,
      [(given.frame, len(given.video)) for given in request.conditioning],
      self.decode,
      'mkv' in self.output.formats,
    ]
    if request.nag is not None:
      words.append(dataclasses.astuple(request.nag))
    # An mkv has a word of its own, which is older.
    names = tuple(name for name in self.output.formats if name != 'mkv')
    if (rest := dataclasses.replace(self.output, formats=names)) != MP4:
      words.append(dataclasses.astuple(rest))
    digest.update(json.dumps(words).encode())
    for given in request.conditioning:
      digest.update(np.ascontiguousarray(given.video).tobytes())
    for array in (request.sound, request.noise):
      if array is not None:
        digest.update(array.tobytes())
    digest.update(text.to_json(request.plan).encode())
    return digest.hexdigest()[:16]

  def beside(self, ending: str) -> Path:
    """A file of the clip.

    `.json`, the sidecar, tells of the others; `.rows` keeps its blocks until
    then, and `.partial.mp4` shows what was made before an interruption.
    """
    return self.path.with_suffix(ending)

  @property
  def endings(self) -> list[str]:
    """What the names of all files of the clip end with, but the sidecar's."""
    endings = ['.mp4', '.png', '.strip.png']
    endings += self.output.endings(self.request.plan.loops)
    return endings + ['.latents.npz'] * self.latents


def clip_name(index: int, prompt: str) -> str:
  """A file name that sorts and can be read: number, start of the prompt."""
  words = re.sub(r'[^a-z0-9]+', '-', prompt.lower()).strip('-')
  return f'{index:04d}-{words[:60].rstrip("-")}.mp4'


class Watch:
  """Statistics, thumbnails and poster of the frames of a clip as they stream.

  Attributes:
    tiles: every third frame, or fewer of a long clip.
    poster: the middle frame.
  """

  def __init__(self, request: Request):
    self.request = request
    self.count = 0
    self.steps: list[float] = []
    self.tiles: list[np.ndarray] = []
    self.poster = np.zeros((1, 1, 3), np.uint8)
    self._errors = [0.0] * len(request.conditioning)
    self._every = 3 * -(-request.num_frames // (3 * _TILES))
    self._last = np.zeros((0,), np.uint8)
    self._sum, self._contrast = 0.0, 0.0

  def add(self, decoded: np.ndarray) -> np.ndarray:
    """Takes decoded frames and returns them with the given ones in place."""
    shown = self.request.paste(self.count, decoded)
    for i, given in enumerate(self.request.conditioning):
      self._errors[i] += _squared_error(given, self.count, decoded)
    for index, frame in enumerate(shown, start=self.count):
      if index:
        pair = np.stack([self._last, frame])[None]
        self.steps.append(float(pixels.frame_steps(pair)[0, 0]))
      if index % self._every == 1:
        self.tiles.append(frame.copy())
      if index == self.request.num_frames // 2:
        self.poster = frame.copy()
      self._sum += float(frame.mean())
      self._contrast = max(self._contrast, float(frame.std(axis=(0, 1)).max()))
      self._last = frame
    self.count += len(decoded)
    return shown

  def facts(self) -> dict[str, Any]:
    """What is known once all frames went by.

    `given` says where frames were given and how near decoded latents come to
    them (PSNR in dB, 100 at most), `frame_difference` the mean change from each
    frame to the next in 0..1, `brightness` the mean and `contrast` the largest
    standard deviation within a frame, of 0..255.
    """
    given = []
    for clip, error in zip(
      self.request.conditioning, self._errors, strict=True
    ):
      mean = error / clip.video.size
      psnr = 100.0 if mean < 1e-10 else min(-10 * np.log10(mean), 100.0)
      about = {'frame': clip.frame, 'frames': len(clip.video)}
      given.append({**about, 'psnr': round(float(psnr), 2)})
    return {
      'given': given,
      'frame_difference': [round(step, 6) for step in self.steps],
      'brightness': round(self._sum / max(self.count, 1), 2),
      'contrast': round(self._contrast, 2),
    }


def _squared_error(
  given: Conditioning, first: int, decoded: np.ndarray
) -> float:
  """Sum of squared differences where decoded frames meet given ones."""
  low = max(first, given.frame)
  high = min(first + len(decoded), given.frame + len(given.video))
  if low >= high:
    return 0.0
  wanted = given.video[low - given.frame : high - given.frame]
  difference = pixels.unit_pixels(decoded[low - first : high - first])
  difference = difference - pixels.unit_pixels(wanted)
  return float(np.square(difference, dtype=np.float64).sum())


def about(
  request: Request, fps: float, decode: str, model: str, key: str
) -> dict[str, Any]:
  """What a clip says about itself, in its tags and in its record."""
  ends = [0, 0]
  for given in request.conditioning:
    if given.frame == 0:
      ends[0] = len(given.video)
    if given.frame + len(given.video) == request.num_frames:
      ends[1] = len(given.video)
  several = {'prompts': list(request.prompts)} if request.prompts[1:] else {}
  return {
    'prompt': request.prompts[0],
    **several,
    'seed': request.seed,
    'order': request.workflow,
    'frames': request.num_frames,
    'fps': fps,
    **decoding.describe_blocks(request.plan),
    'given_frames': ends,
    'decode': decode,
    'checkpoint': model,
    'version': unitemp_jax.__version__,
    'key': key,
  }


def write_video(
  path: Path,
  request: Request,
  decoded: Iterable[np.ndarray],
  tags: dict[str, Any],
  *,
  scale: int | None = None,
  output: Output = MP4,
) -> Watch:
  """Writes the video of a clip."""
  watch = Watch(request)
  with contextlib.ExitStack() as stack:
    fps = output.playback_fps or tags['fps']
    sound = None if output.playback_fps else request.sound
    others = formats.open_others(
      *(path, output.formats, fps, request.num_frames, request.plan.loops),
      metadata=tags,
      sound=sound,
      frame=output.frame,
      crf=output.crf,
      repeat=output.repeat,
    )
    outs = list(stack.enter_context(others))
    opened = open_video(
      path, fps, tags, scale=scale, crf=output.crf, sound=sound
    )
    outs.append(stack.enter_context(opened))
    for frames in decoded:
      shown = watch.add(frames)
      for append in outs:
        append(shown)
  return watch


def write_all(
  path: Path,
  request: Request,
  decoded: Iterable[np.ndarray],
  tags: dict[str, Any],
  timings: dict[str, float],
  *,
  output: Output = MP4,
  latents: np.ndarray | None = None,
) -> None:
  """Writes all files of a clip; they get their names when all are whole.

  The sidecar comes first, so that it tells of each other one whose it is.
  """
  tags = {**tags, 'plan': json.loads(text.to_json(request.plan))}
  place = path.parent
  with files.writing(place, folder=True, within=place, merge=True) as folder:
    path = folder / path.name
    watch = write_video(path, request, decoded, tags, output=output)
    if latents is not None:
      noise.save_latents(path.with_suffix('.latents.npz'), latents)
    write_image(path.with_suffix('.png'), watch.poster)
    if watch.tiles:
      strip = np.concatenate(watch.tiles, axis=1)
      write_image(path.with_suffix('.strip.png'), strip)
    more: dict[str, Any] = {'plan_svg': drawing.draw(request.plan)}
    if request.remarks:
      more['remarks'] = list(request.remarks)
    more[MARKS] = marks(folder, path.stem)
    sidecar = {**tags, **watch.facts(), **more, 'timings': timings}
    files.write_json(path.with_suffix('.json'), sidecar)


def mark(path: Path) -> str:
  """Size of a file, and hashes of its start and of its end."""
  with path.open('rb') as file:
    start, size = file.read(_START), file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END))
    return f'{size}-{_short(start)}-{_short(file.read())}'


def _short(content: bytes) -> str:
  return files.sha256(content)[:16]


def marks(folder: Path, stem: str) -> dict[str, str]:
  """Marks of all files of a clip in a folder that holds nothing else."""
  found = sorted(path for path in folder.rglob('*') if path.is_file())
  names = [path.relative_to(folder).as_posix() for path in found]
  return {
    name.removeprefix(stem): mark(path)
    for name, path in zip(names, found, strict=True)
  }


def marks_of(record: Mapping[str, Any]) -> dict[str, str]:
  """What a sidecar says; {} if it is of before, or was damaged."""
  told = record.get(MARKS)
  return {
    name: text
    for name, text in (told.items() if isinstance(told, dict) else ())
    if isinstance(text, str) and _MARK.fullmatch(text)
  }


def is_told(
  video: Path, record: Mapping[str, Any], tags: Mapping[str, Any]
) -> bool:
  """Whether an mp4 with such tags is the clip that a sidecar tells of."""
  told = marks_of(record).get('.mp4')
  same = told is None or mark(video) == told
  # Another program's tags mean other things; a set's size has its own checks.
  names = {*tags} & {*record} - {'scale'} if 'key' in tags else ()
  return same and all(record[name] == tags[name] for name in names)


def are_whole(
  video: Path, endings: Sequence[str], record: Mapping[str, Any], key: str
) -> bool:
  """Whether all files of a clip are there as they were written.

  One that is missing, empty or cut short will be made again.

  Args:
    video: path of the mp4.
    endings: of the clip's files, without the sidecar's.
    record: the sidecar, which has this key; empty where there is none.
    key: of the request.

  Raises:
    UserError: a file was not written for this request; nothing replaces it.
  """
  tags = tags_of(video)
  own, told = tags.get('key') == key, marks_of(record)
  whole = bool(record)
  for ending in endings:
    path = video.with_suffix(ending)
    if path.is_symlink() and path.is_dir():
      raise foreign(path)
    there = _files_of(path, ending)
    for name, path in there.items():
      usual = name == ending or _PICTURE.fullmatch(name)
      if not told and own and usual and (record or name == '.mp4'):
        whole &= path.is_file() and path.stat().st_size > 0
      elif name not in told or not is_ours(path, told[name]):
        raise foreign(path) if name != '.mp4' or not record else _other(video)
      else:
        whole &= mark(path) == told[name]
    lost = {name for name in told if name.split('/')[0] == ending} - {*there}
    whole &= bool(there) and not lost
  if record and tags and not is_told(video, {**record, MARKS: {}}, tags):
    raise _other(video)
  return whole


def tags_of(video: Path) -> dict[str, Any]:
  """The tags of a video; {} where there is none that can be read."""
  with contextlib.suppress(UserError):
    return read_metadata(video) if video.is_file() else {}
  return {}


def _other(video: Path) -> UserError:
  sidecar = video.with_suffix('.json').name
  return UserError(
    f'{video} is not the clip that {sidecar} tells of; choose another --out, '
    'or move both away.'
  )


def _files_of(path: Path, ending: str) -> dict[str, Path]:
  """The files of an output that are there, by what follows the clip's name."""
  if path.is_dir() and ending == '.frames':
    return {
      f'{ending}/{own.name}': own
      for own in sorted(path.iterdir())  # What a desktop adds is hidden.
      if own.name != 'Thumbs.db' and not own.name.startswith('.')
    }
  return {ending: path} if os.path.lexists(path) else {}


def is_ours(path: Path, told: str) -> bool:
  """Whether a file is what was written, or what a fault has left of it."""
  if not path.is_file():
    return False
  now, (size, start, _) = mark(path), told.split('-')
  if now == told:
    return True
  left, begins, _ = now.split('-')
  cut = _START <= int(left) < int(size) and begins == start
  return left == '0' or cut


def show(jobs: Iterable[Job]) -> None:
  """Prints the plans, each with the clips that it makes."""
  shown = None
  for job in jobs:
    request = job.request
    if request.plan is not shown:
      shown = request.plan
      print(f'{request.workflow}:\n{text.table(shown)}')
    size = f'{request.height}x{request.width}'
    print(
      f'  {job.path}  seed {request.seed}  {size}, {request.num_frames} frames'
    )
    for prompt in request.prompts:
      print(f'    {errors.shown(prompt)}')
    for switch in switches.switches(request.plan):
      begin, seen = switch.frames(request.plan)
      print(
        f'    prompt {switch.prompt} holds from the block of frame {begin} on, '
        f'and shows from about frame {seen}'
      )
    for given in request.conditioning:
      last = given.frame + len(given.video) - 1
      print(f'    given: frames {given.frame}..{last}')
    if request.sound is not None:
      print('    sound: of the clip, in its place; silence elsewhere')
    for ending in [*job.endings, '.json']:
      print(f'    writes {job.beside(ending).name}')
