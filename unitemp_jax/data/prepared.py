"""Prepared data sets: what the TFDS builders share."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.proto import tf_example_pb2

from unitemp_jax import timeline
from unitemp_jax.data import video_folder
from unitemp_jax.errors import UserError, system_error


class _SameBytes(tfds.core.ExampleWriter):  # type: ignore[misc]
  """Writes equal records as equal bytes, whichever process makes them."""

  def write(self, path, examples):
    return super().write(
      path, ((key, _in_order(record)) for key, record in examples)
    )


def _in_order(record: bytes) -> bytes:
  example = tf_example_pb2.Example.FromString(record)
  return example.SerializeToString(deterministic=True)


class LocalBuilder(  # type: ignore[call-arg]  # tfds has no types
  tfds.core.ShardBasedBuilder, skip_registration=True
):
  """A builder that downloads nothing and writes array_record shard by shard.

  So the set can be larger than memory, and needs no TensorFlow at any size: the
  shuffler of TFDS's other builders spills what exceeds 1 GiB through it.
  """

  # TFDS need not look for checksums beside the code (for which it would want
  # the package importlib_resources).
  code_path = None

  def __init__(self, *, file_format='array_record', **kwargs):
    super().__init__(file_format=file_format, **kwargs)

  def is_prepared(self) -> bool:
    """Whether the set is there; TFDS warns of one that was interrupted."""
    with quiet(), _whole(self.data_dir):
      return super().is_prepared()

  def _example_writer(self) -> _SameBytes:
    return _SameBytes(file_format=self.info.file_format)


@contextlib.contextmanager
def _whole(folder: str | os.PathLike[str]) -> Iterator[None]:
  """Says by UserError that a set is damaged; TFDS documents no exceptions."""
  try:
    yield
  except (UserError, IndexError):
    raise
  except Exception as error:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise UserError(
      f'{os.fspath(folder)} holds a damaged data set ({why:.160}); move it '
      'away, and run the command again.'
    ) from error


class _Records:
  """A data source of TFDS whose damage is a UserError."""

  def __init__(self, source: Any, folder: str):
    self._source, self._folder = source, folder

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, i: int) -> dict[str, Any]:
    with _whole(self._folder):
      return self._source[i]


def source_of(builder: tfds.core.DatasetBuilder, split: str) -> Any:
  """Clips of a prepared set: len() and [i] -> dict.

  UserError if it is damaged; its first and its last one are looked at.
  """
  folder = str(builder.data_dir)
  with _whole(folder):
    records = _Records(builder.as_data_source(split=split), folder)
    for i in {0, len(records) - 1} if len(records) else ():
      records[i]
    return _with_pixels(builder.info, records)


def _with_pixels(info: Any, source: Any) -> Any:
  """A TFDS data source whose records have `video`, whether stored or not.

  Any exception if what it says of itself is damaged.
  """
  indexed = 'frames' in info.features and 'video' not in info.features
  needed = ('file', 'sha256', 'frames', 'times') if indexed else ('video',)
  for name in ('caption', *needed):
    if name not in info.features:
      raise ValueError(f'its records have no {name}')
  if not indexed:
    return source
  about = info.metadata
  sides = int(about['height']), int(about['width'])
  if not all(0 < side <= timeline.MOST_SIDE for side in sides):
    raise ValueError(f'its clips are of {sides} pixels')
  return video_folder.VideoClips(source, os.fspath(about['videos']), *sides)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Hides TFDS's talk of downloads; its progress bars stay."""
  level = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(level)


def opened(
  make_builder: Callable[[], tfds.core.DatasetBuilder],
  data_dir: str | os.PathLike[str],
) -> tfds.core.DatasetBuilder:
  """A builder; UserError where the set that is there is damaged."""
  why, builder = 'it lists no clips', None
  try:
    with quiet():
      builder = make_builder()
  except Exception as error:  # TFDS documents none
    if isinstance(error, UserError) or getattr(error, 'errno', None):
      raise  # The latter of a disk.
    why = f'{type(error).__name__}'
  if builder is None or (
    os.path.isdir(builder.data_dir) and not builder.info.splits
  ):
    where = f'a folder below {os.fspath(data_dir)}'
    if builder is not None:
      where = str(builder.data_dir)
    raise UserError(
      f'{where} holds a damaged data set ({why}); move it away, or choose '
      'another --out.'
    )
  return builder


def prepare(
  make_builder: Callable[[], tfds.core.DatasetBuilder],
  data_dir: str | os.PathLike[str],
  download_config: Any = None,
) -> tfds.core.DatasetBuilder:
  """Writes a data set unless it is there.

  The set appears under its name only when it is complete: an interrupted call
  leaves nothing that could be mistaken for it, and a repeated one only opens.

  Args:
    make_builder: makes the builder; called again after an error.
    data_dir: its root folder, made when missing.
    download_config: TFDS's, which names a runner of Apache Beam.

  Returns:
    The builder, ready for `source_of`.

  Raises:
    UserError: the folder cannot be written.
  """
  try:
    os.makedirs(data_dir, exist_ok=True)
    builder = opened(make_builder, data_dir)
    with quiet():
      builder.download_and_prepare(download_config=download_config)
  except (OSError, RuntimeError) as error:
    cause = system_error(error)
    if cause is None:
      raise
    # Another process may have finished the same set first: then use that.
    with contextlib.suppress(OSError), quiet():
      builder = make_builder()
      if builder.is_prepared():
        return builder
    raise UserError(
      f'Cannot write the data set to {os.fspath(data_dir)}: '
      f'{cause.strerror or error}.'
    ) from error
  return builder


def open_prepared(folder: str | os.PathLike[str], split: str = 'train'):
  """Opens a prepared data set.

  Args:
    folder: the path that `unitemp data` printed.
    split: 'train', or 'test' where there is one.

  Returns:
    A random-access source: len() and [i] -> dict.

  Raises:
    UserError: there is no such set or split.
  """
  try:
    with quiet():
      builder = tfds.builder_from_directory(os.fspath(folder))
      if split not in builder.info.splits:
        raise ValueError(f'no {split}')
  except Exception as error:  # TFDS documents none
    raise UserError(
      f'There is no prepared data set {os.fspath(folder)} with the split '
      f'{split!r}: make one with unitemp data.'
    ) from error
  return source_of(builder, split)
