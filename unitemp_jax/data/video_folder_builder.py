"""The user's videos as a data set: a TFDS builder that writes an index.

A record names a file, the frames of it that are a clip, its caption and the
hash of the file, and no pixels: `video_folder.VideoClips` decodes them when
they are needed. TensorFlow is not needed.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from unitemp_jax import files
from unitemp_jax.data import prepared, video_folder, video_list
from unitemp_jax.data.video_folder import Clip, Scan
from unitemp_jax.data.video_list import VideoFolderSpec
from unitemp_jax.errors import UserError

Report = Callable[[str], None]
_FILES = 256  # of a shard
_FILES_PIXELS = 1  # likewise, of a set with pixels
_MOST_PIXELS = 2e9  # bytes
_SKIPPED = 'skipped.json'
SCANS = 'video_scans'  # what was found in files, below the data folder


@dataclasses.dataclass(kw_only=True)
class VideoFolderConfig(tfds.core.BuilderConfig):
  """What one prepared set holds."""

  spec: VideoFolderSpec  # the folder and the shape of the clips
  pixels: bool = False  # whether records hold them
  # (file, caption) of what is looked through
  listed: tuple[tuple[str, str], ...] = ()
  scans: str | None = None  # folder of what was found in files before


class VideoFolder(prepared.LocalBuilder):
  """The user's own videos, cut into captioned clips of equal length."""

  VERSION = tfds.core.Version('2.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    spec, config = self.builder_config.spec, self.builder_config
    features = {
      'caption': tfds.features.Text(),
      'file': tfds.features.Text(),
      'sha256': tfds.features.Text(),
      'first_frame': tfds.features.Scalar(np.int64),
      'frames': tfds.features.Tensor(shape=(spec.num_frames,), dtype=np.int64),
      # As bytes, for all digits.
      'times': tfds.features.Tensor(
        shape=(spec.num_frames,), dtype=np.float64, encoding='bytes'
      ),
    }
    if config.pixels:
      features['video'] = tfds.features.Tensor(
        shape=(spec.num_frames, spec.height, spec.width, 3),
        dtype=np.uint8,
        encoding='zlib',
      )
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.__class__.__doc__,
      features=tfds.features.FeaturesDict(features),
      metadata=tfds.core.MetadataDict(
        fps=spec.fps,
        videos=os.path.abspath(spec.videos),
        height=spec.height,
        width=spec.width,
      ),
    )

  def _shard_iterators_per_split(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    config = self.builder_config
    step = _FILES_PIXELS if config.pixels else _FILES
    return {
      'train': [
        functools.partial(
          _records,
          config.spec,
          config.listed[first : first + step],
          first,
          config.scans,
          config.pixels,
        )
        for first in range(0, len(config.listed), step)
      ]
    }


def _records(
  spec: VideoFolderSpec,
  listed: Sequence[tuple[str, str]],
  first: int,
  scans: str | None,
  pixels: bool,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """The records of some files, the first of which is number `first`."""
  for number, (file, caption) in enumerate(listed, first):
    made = []
    with contextlib.suppress(UserError):  # `_skipped` says so.
      found = video_folder.scan(spec, file, scans)
      made = video_folder.clips(spec, file, caption, found)
    for place, clip in enumerate(made):
      record = {
        'caption': clip.caption,
        'file': clip.file,
        'sha256': clip.sha256,
        'first_frame': int(clip.frames[0]),
        'frames': clip.frames,
        'times': clip.times,
      }
      if pixels:
        record['video'] = video_folder.read_clip(
          spec.videos, clip, spec.height, spec.width
        )
      yield number * 2**20 + place, record


@dataclasses.dataclass(frozen=True)
class PreparedVideos:
  """A prepared set."""

  folder: str  # where it lies
  # len() and [i] -> dict of video, caption, file, first_frame, index
  source: Any
  skipped: list[tuple[str, str]]  # (file, reason) of what was left out


@dataclasses.dataclass
class Found:
  """What the files of a folder hold."""

  listed: list[tuple[str, str]]  # (file, caption) of those that have a caption
  scans: dict[str, Scan]  # of those that can be read, by file
  clips: list[Clip]  # of those that are long enough
  skipped: list[tuple[str, str]]  # (file, reason)


def find_clips(
  spec: VideoFolderSpec,
  *,
  strict: bool = False,
  report: Report = lambda line: None,
  scans: str | None = None,
  part: tuple[int, int] = (0, 1),
) -> Found:
  """Looks through all files on all cores, without writing a set.

  Args:
    spec: the folder and the shape of the clips.
    strict: the first file that would be skipped is an error.
    report: called with a line of progress per file.
    scans: folder of what was found before, and now; None keeps nothing.
    part: (I, N), to look through every N-th file from the I-th on.

  Raises:
    UserError: nothing is usable, or the caption file is wrong, or strict.
  """
  result = Found([], {}, [], [])

  def skip(file: str, reason: str) -> None:
    if strict:
      raise UserError(f'{file} {reason}.')
    result.skipped.append((file, reason))
    report(f'skipped {file}: {reason}')

  result.listed = video_list.list_videos(spec, skip)
  listed = result.listed[part[0] :: part[1]]
  cores = (
    len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1
  )
  # Decoders release the interpreter's lock, so that threads will do.
  with concurrent.futures.ThreadPoolExecutor(cores) as pool:
    futures = [
      pool.submit(video_folder.scan, spec, file, scans) for file, _ in listed
    ]
    try:
      for number, (file, caption) in enumerate(listed):
        try:
          found = futures[number].result()
          result.scans[file] = found
          made = video_folder.clips(spec, file, caption, found)
        except UserError as error:
          if strict:
            raise
          skip(file, str(error).rstrip('.'))
          continue
        result.clips += made
        report(
          f'{number + 1}/{len(listed)} {file}: {len(made)} clips, '
          f'{len(found.cuts)} scene changes'
        )
    finally:
      pool.shutdown(cancel_futures=True)
  if not result.clips and part[1] == 1:
    _refuse(spec, result)
  return result


class EmptyBucket(UserError):
  """None of the clips of a folder is of this shape; others are."""


def _refuse(spec: VideoFolderSpec, found: Found) -> None:
  if set(found.scans) - {file for file, _ in found.skipped}:
    height, width, frames = spec.bucket
    raise EmptyBucket(
      f'No clip in {spec.videos} is of the bucket {height}x{width}x{frames}; '
      'leave it out.'
    )
  file, reason = found.skipped[0]
  raise UserError(
    f'No video in {spec.videos} can be used, for example {file}: {reason}.'
  )


def _digest(spec: VideoFolderSpec) -> str:
  """Names the content of a folder: its files, their sizes and times."""
  table = [spec.captions] if spec.captions and not spec.pattern else []
  paths = list(table)
  for folder, _, names in os.walk(spec.videos):
    paths += [os.path.join(folder, name) for name in names]
  suffixes = (*video_list.SUFFIXES, '.txt', '.tar')
  stats = [
    (path, os.stat(path).st_size, os.stat(path).st_mtime_ns)
    for path in sorted(paths)
    if path.lower().endswith(suffixes) or path in table
    if os.path.isfile(path)
  ]
  fields = json.dumps([dataclasses.asdict(spec), stats], sort_keys=True)
  return files.sha256(fields)[:8]


def prepare(
  data_dir: str | os.PathLike[str],
  spec: VideoFolderSpec,
  *,
  strict: bool = False,
  report: Report = lambda line: None,
  pixels: bool = False,
  beam: Any = None,
) -> PreparedVideos:
  """Writes the index of a folder unless it is there, and opens it.

  A changed folder makes another set; the old one stays. What was found in files
  is kept in `data_dir`, so that an interrupted call goes on where it was.

  Args:
    data_dir: folder for data sets, made when missing.
    spec: the folder and the shape of the clips.
    strict: the first file that would be skipped is an error.
    report: called with a line of progress per file.
    pixels: store the clips themselves, for sets of at most 2 GB.
    beam: PipelineOptions of Apache Beam, whose workers look through the files;
      they must all see `data_dir` and the videos under these paths.

  Raises:
    UserError: see `find_clips`; or the folder cannot be written.
  """
  table = None if spec.pattern else spec.captions
  if table and not os.path.isfile(table):
    raise UserError(f'There is no caption file {table}.')
  kind = 'pixels_' if pixels else ''
  config = VideoFolderConfig(
    name=f'{spec.width}x{spec.height}_{spec.num_frames}f_{spec.fps:g}fps_'
    f'{kind}{_digest(spec)}',
    spec=spec,
    pixels=pixels,
  )

  def make_builder() -> VideoFolder:
    return VideoFolder(data_dir=os.fspath(data_dir), config=config)

  builder = prepared.opened(make_builder, data_dir)
  place = os.path.join(builder.data_dir, _SKIPPED)
  scans = os.path.join(os.path.abspath(data_dir), SCANS)
  if not builder.is_prepared() or not os.path.isfile(place):
    if beam is not None:  # Its workers fill `scans`.
      listed = video_list.list_videos(spec, lambda file, reason: None)
      config = dataclasses.replace(config, listed=tuple(listed), scans=scans)
      prepared.prepare(make_builder, data_dir, _download_config(beam))
    found = find_clips(spec, strict=strict, report=report, scans=scans)
    if pixels:
      _check_size(spec, len(found.clips))
    config = dataclasses.replace(
      config, listed=tuple(found.listed), scans=scans
    )
    builder = prepared.prepare(make_builder, data_dir)
    files.write_json(place, found.skipped)
  mend = f'delete {builder.data_dir}, and run the command again'
  listed = files.read_json(place, 'files that were left out', mend, kind=list)
  if not all(isinstance(one, list) and len(one) == 2 for one in listed):
    raise UserError(f'{place} does not list files with reasons; {mend}.')
  skipped = [(str(file), str(reason)) for file, reason in listed]
  if strict and skipped:
    raise UserError(f'{skipped[0][0]} {skipped[0][1]}.')
  return PreparedVideos(
    str(builder.data_dir),
    prepared.source_of(builder, 'train'),
    skipped,
  )


def _check_size(spec: VideoFolderSpec, count: int) -> None:
  size = count * spec.num_frames * spec.height * spec.width * 3
  if size > _MOST_PIXELS:
    raise UserError(
      f'{count} clips are {size / 1e9:.1f} GB of pixels; leave out --pixels: '
      'an index decodes clips when they are needed.'
    )


def _download_config(options: Any) -> Any:
  if options is None:
    return None
  # Without a name it is the direct runner, as in Beam itself.
  from apache_beam.options.pipeline_options import StandardOptions
  from apache_beam.runners import create_runner

  name = options.view_as(StandardOptions).runner or 'DirectRunner'
  return tfds.download.DownloadConfig(
    beam_runner=create_runner(name), beam_options=options
  )
