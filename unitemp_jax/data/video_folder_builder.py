"""The user's videos on disk: a TFDS builder that writes sharded array_record.

See `video_folder` for captions, scene changes and windows. TensorFlow is not
needed.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from unitemp_jax import files
from unitemp_jax.data import prepared, video_folder
from unitemp_jax.errors import UserError


@dataclasses.dataclass(kw_only=True)
class VideoFolderConfig(tfds.core.BuilderConfig):
  """What one prepared set holds.

  Attributes:
    spec: the folder and the shape of the clips.
    videos: what `video_folder.scan` found in each file.
    skipped: [file, reason] of what was left out.
  """

  spec: video_folder.VideoFolderSpec
  videos: tuple[video_folder.Video, ...] = ()
  skipped: tuple[tuple[str, str], ...] = ()


class VideoFolder(prepared.LocalBuilder):
  """The user's own videos, cut into captioned clips of equal length."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    spec = self.builder_config.spec
    video = (spec.num_frames, spec.height, spec.width, 3)
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.__class__.__doc__,
      features=tfds.features.FeaturesDict(
        {
          'video': tfds.features.Tensor(
            shape=video, dtype=np.uint8, encoding='zlib'
          ),
          'caption': tfds.features.Text(),
          'file': tfds.features.Text(),
          'first_frame': tfds.features.Scalar(np.int64),
          'index': tfds.features.Scalar(np.int64),
        }
      ),
      metadata=tfds.core.MetadataDict(
        fps=spec.fps, skipped=self.builder_config.skipped
      ),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    spec, index = self.builder_config.spec, 0
    for video in self.builder_config.videos:
      clips = video_folder.read_windows(spec, video)
      for window, clip in zip(video.windows, clips, strict=True):
        yield (
          index,
          {
            'video': clip,
            'caption': video.caption,
            'file': video.file,
            'first_frame': int(window[0]),
            'index': index,
          },
        )
        index += 1


@dataclasses.dataclass(frozen=True)
class PreparedVideos:
  """A prepared set.

  Attributes:
    folder: where it lies.
    source: len() and [i] -> dict of video, caption, file, first_frame, index.
    skipped: (file, reason) of what was left out.
  """

  folder: str
  source: Any
  skipped: list[tuple[str, str]]


def find_clips(
  spec: video_folder.VideoFolderSpec,
  *,
  strict: bool = False,
  report: Callable[[str], None] = lambda line: None,
) -> tuple[list[video_folder.Video], list[tuple[str, str]]]:
  """Reads all files once, without writing anything.

  Args:
    spec: the folder and the shape of the clips.
    strict: the first file that would be skipped is an error.
    report: called with a line of progress per file.

  Returns:
    What each usable file holds, and (file, reason) of those left out.

  Raises:
    UserError: nothing is usable, or the caption file is wrong, or strict.
  """
  videos, skipped = [], []

  def skip(file: str, reason: str) -> None:
    if strict:
      raise UserError(f'{file} {reason}.')
    skipped.append((file, reason))
    report(f'skipped {file}: {reason}')

  listed = video_folder.list_videos(spec, skip)
  for number, (file, caption) in enumerate(listed, 1):
    try:
      video = video_folder.scan(spec, file, caption)
    except UserError as error:
      if strict:
        raise
      skip(file, str(error).rstrip('.'))
      continue
    videos.append(video)
    report(
      f'{number}/{len(listed)} {file}: {len(video.windows)} clips, '
      f'{len(video.cuts)} scene changes'
    )
  if not videos:
    file, reason = skipped[0]
    raise UserError(
      f'No video in {spec.videos} can be used, for example {file}: {reason}.'
    )
  return videos, skipped


def _digest(spec: video_folder.VideoFolderSpec) -> str:
  """Names the content of a folder: its files, their sizes and times."""
  paths = [spec.captions] if spec.captions else []
  for folder, _, names in os.walk(spec.videos):
    paths += [os.path.join(folder, name) for name in names]
  suffixes = (*video_folder.SUFFIXES, '.txt')
  stats = [
    (path, os.stat(path).st_size, os.stat(path).st_mtime_ns)
    for path in sorted(paths)
    if path.lower().endswith(suffixes) or path == spec.captions
    if os.path.isfile(path)
  ]
  fields = json.dumps([dataclasses.asdict(spec), stats], sort_keys=True)
  return files.sha256(fields)[:8]


def prepare(
  data_dir: str | os.PathLike[str],
  spec: video_folder.VideoFolderSpec,
  *,
  strict: bool = False,
  report: Callable[[str], None] = lambda line: None,
) -> PreparedVideos:
  """Writes the clips of a folder unless they are there, and opens them.

  A changed folder makes another set; the old one stays.

  Args:
    data_dir: folder for data sets, made when missing.
    spec: the folder and the shape of the clips.
    strict: the first file that would be skipped is an error.
    report: called with a line of progress per file.

  Raises:
    UserError: see `find_clips`; or the folder cannot be written.
  """
  if spec.captions and not os.path.isfile(spec.captions):
    raise UserError(f'There is no caption file {spec.captions}.')
  config = VideoFolderConfig(
    name=f'{spec.width}x{spec.height}_{spec.num_frames}f_{spec.fps:g}fps_'
    f'{_digest(spec)}',
    spec=spec,
  )

  def make_builder() -> VideoFolder:
    return VideoFolder(data_dir=os.fspath(data_dir), config=config)

  with prepared.quiet():
    builder = make_builder()
  if not builder.is_prepared():
    videos, skipped = find_clips(spec, strict=strict, report=report)
    config = dataclasses.replace(
      config, videos=tuple(videos), skipped=tuple(skipped)
    )
    builder = prepared.prepare(make_builder, data_dir)
  skipped = [tuple(item) for item in builder.info.metadata['skipped']]
  if strict and skipped:
    raise UserError(f'{skipped[0][0]} {skipped[0][1]}.')
  return PreparedVideos(
    str(builder.data_dir), builder.as_data_source(split='train'), skipped
  )
