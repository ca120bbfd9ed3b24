"""The files of a clip: their names, whose they are, and how they are written.

A clip is finished when its sidecar is there, which is written last. What
another command, another program or the user wrote is never replaced. Frames
come piece by piece and are forgotten at once, so that a long clip takes no more
memory than a short one.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import unitemp_jax
from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.generate.request import Given, Request, describe_blocks
from unitemp_jax.plans import drawing, text
from unitemp_jax.video import frames as pixels
from unitemp_jax.video.read import read_metadata
from unitemp_jax.video.write import open_video, write_image

_TILES = 64  # at most, in a strip
_VIDEOS = ('.mp4', '.mkv', '.mov', '.webm', '.gif', '.avi')
_ROOM = 2**20  # bytes for sidecars and pictures


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """One clip to be made.

  Attributes:
    path: of the mp4; sidecar, poster and strip lie beside it.
    request: what to make.
    decode: one of `plans.decoding.MODES`.
    lossless: write an mkv too, with every pixel as it was made.
  """

  path: Path
  request: Request
  decode: str = 'joint'
  lossless: bool = False

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
      [(given.frame, len(given.video)) for given in request.given],
      self.decode,
      self.lossless,
    ]
    digest.update(json.dumps(words).encode())
    for given in request.given:
      digest.update(np.ascontiguousarray(given.video).tobytes())
    digest.update(text.to_json(request.plan).encode())
    return digest.hexdigest()[:16]

  def beside(self, ending: str) -> Path:
    """A file of the clip.

    `.json`, the sidecar, marks it as finished; `.rows` keeps its blocks until
    then, and `.partial.mp4` shows what was made before an interruption.
    """
    return self.path.with_suffix(ending)

  @property
  def outputs(self) -> list[Path]:
    """All files of the finished clip."""
    endings = ['.mp4', *['.mkv'] * self.lossless, '.png', '.strip.png', '.json']
    return [self.beside(ending) for ending in endings]


def clip_name(index: int, prompt: str) -> str:
  """A file name that sorts and can be read: number, start of the prompt."""
  words = re.sub(r'[^a-z0-9]+', '-', prompt.lower()).strip('-')
  return f'{index:04d}-{words[:60].rstrip("-")}.mp4'


def out_folder(text: str) -> Path:
  """The folder of `--out`, not made yet.

  Raises:
    UserError: it is a file, is named like one, or is no place on this machine.
  """
  if files.is_web_address(text):
    raise UserError(
      f'--out={text} is no folder of this machine; write to one, and copy it '
      'there, or mount it.'
    )
  path = Path(text)
  if path.exists() and not path.is_dir():
    raise UserError(f'--out={path} is a file; name a folder.')
  if path.suffix.lower() in _VIDEOS and not path.exists():
    raise UserError(
      f'--out={path} is the name of a video; name a folder, in which each clip '
      'gets a name of its own.'
    )
  return path


def unfinished(jobs: Sequence[Job], model: str) -> list[Job]:
  """Leaves out what is there already, whole; touches nothing.

  Raises:
    UserError: two jobs share a file, or a file is not this request's.
  """
  owners: set[Path] = set()
  left = []
  for job in jobs:
    if job.path in owners:
      raise UserError(f'two clips would be written to {job.path}; rename one.')
    owners.add(job.path)
    sidecar = job.beside('.json')
    there = [path for path in job.outputs if os.path.lexists(path)]
    key = job.key(model) if there else ''
    if sidecar in there and _recorded_key(sidecar) != key:
      raise UserError(
        f'{job.path} was made with other settings or another model, as '
        f'{sidecar.name} says; choose another --out, or delete both.'
      )
    if len(there) == len(job.outputs):
      continue
    left.append(job)
    if job.path in there and tagged_key(job.path) != key:
      raise foreign(job.path)
    if there and not {job.path, sidecar} & set(there):
      raise foreign(there[0])
  return left


def foreign(path: Path) -> UserError:
  """The complaint about a file that is not this request's."""
  return UserError(
    f'{path} is there already and was not made by this command; choose another '
    '--out, or move it away.'
  )


def _recorded_key(path: Path) -> str | None:
  with contextlib.suppress(UserError):
    return files.read_json(path).get('key')
  return None


def tagged_key(path: Path) -> str | None:
  """The key of the request that a video was made for, in its tags."""
  with contextlib.suppress(UserError):
    return read_metadata(path).get('key')
  return None


def check_room(jobs: Sequence[Job]) -> None:
  """Raises UserError where the disk is too full for the clips."""
  need, folder = _ROOM, jobs[0].path.parent
  for job in jobs:
    request = job.request
    raw = 3 * request.num_frames * request.height * request.width
    need += raw // 20 + job.lossless * raw // 2
  while not folder.is_dir():
    folder = folder.parent
  free = shutil.disk_usage(folder).free
  if free < need:
    raise UserError(
      f'{folder} has {free / 2**20:.1f} MiB of room, and the clips need about '
      f'{need / 2**20:.1f} MiB; make room or choose another --out.'
    )


class Watch:
  """What is kept of frames that go by.

  Attributes:
    tiles: every third frame, or fewer of a long clip.
    poster: the middle frame.
  """

  def __init__(self, request: Request):
    """Starts before the first frame."""
    self.request = request
    self.count = 0
    self.steps: list[float] = []
    self.tiles: list[np.ndarray] = []
    self.poster = np.zeros((1, 1, 3), np.uint8)
    self._errors = [0.0] * len(request.given)
    self._every = 3 * -(-request.num_frames // (3 * _TILES))
    self._last = np.zeros((0,), np.uint8)
    self._sum, self._contrast = 0.0, 0.0

  def add(self, decoded: np.ndarray) -> np.ndarray:
    """Takes decoded frames and returns them with the given ones in place."""
    shown = self.request.paste(self.count, decoded)
    for i, given in enumerate(self.request.given):
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
    for clip, error in zip(self.request.given, self._errors, strict=True):
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


def _squared_error(given: Given, first: int, decoded: np.ndarray) -> float:
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
  for given in request.given:
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
    **describe_blocks(request.plan),
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
  exact: Path | None = None,
) -> Watch:
  """Writes the video of a clip.

  Args:
    path: of the mp4.
    request: what was made.
    decoded: frames uint8 `[n, H, W, 3]` in temporal order, nothing pasted.
    tags: see `about`.
    scale: see `video.files.open_video`.
    exact: of an mkv besides, with every pixel as it was made.

  Raises:
    UserError: a file cannot be written, or frames are missing.
  """
  watch = Watch(request)
  with ExitStack() as stack:
    outs = []
    if exact is not None:
      outs.append(
        stack.enter_context(open_video(exact, tags['fps'], lossless=True))
      )
    # Entered last, the mp4 gets its name first: it tells whose the others are.
    outs.append(
      stack.enter_context(open_video(path, tags['fps'], tags, scale=scale))
    )
    for frames in decoded:
      shown = watch.add(frames)
      for append in outs:
        append(shown)
  return watch


def write_job(
  job: Job,
  decoded: Iterable[np.ndarray],
  fps: float,
  model: str,
  timings: dict[str, float],
) -> None:
  """Writes all files of a clip beside each other, last the sidecar.

  Args:
    job: what was made.
    decoded: see `write_video`.
    fps: frames per second.
    model: hash of the model.
    timings: seconds by name.

  Raises:
    UserError: a file cannot be written.
  """
  request, path = job.request, job.path
  tags = about(request, fps, job.decode, model, job.key(model))
  tags['plan'] = json.loads(text.to_json(request.plan))
  exact = job.beside('.mkv') if job.lossless else None
  watch = write_video(path, request, decoded, tags, exact=exact)
  write_image(job.beside('.png'), watch.poster)
  if watch.tiles:
    strip = np.concatenate(watch.tiles, axis=1)
    write_image(job.beside('.strip.png'), strip)
  more: dict[str, Any] = {'plan_svg': drawing.draw(request.plan)}
  if request.remarks:
    more['remarks'] = list(request.remarks)
  sidecar = {**tags, **watch.facts(), **more, 'timings': timings}
  files.write_json(job.beside('.json'), sidecar)
