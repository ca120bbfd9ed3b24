"""Falling digits on disk: a TFDS builder that writes sharded array_record.

The clips are made by `falling_digits`; this only stores them, in the order of
their numbers, so that record i of a prepared set is clip i. TensorFlow is not
needed.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from unitemp_jax import files
from unitemp_jax.data import falling_digits, prepared
from unitemp_jax.errors import UserError

_STEP = 64  # clips rendered at a time
_SHARD_BYTES = 2**26  # of pixels
_INTEGERS = (
  'digit',
  'colour',
  'side',
  'digit_id',
  'scene',
  'digit_after',
  'colour_after',
  'digit_id_after',
)


@dataclasses.dataclass(kw_only=True)
class FallingDigitsConfig(tfds.core.BuilderConfig):
  """What one prepared set holds."""

  # how the clips look; its split is replaced by those of `clips`
  spec: falling_digits.FallingDigitsSpec
  clips: Mapping[str, int]  # number of clips per split


class FallingDigits(prepared.LocalBuilder):
  """Handwritten digits that fall, bounce and leave a fading trail."""

  VERSION = tfds.core.Version('1.1.0')

  def _info(self) -> tfds.core.DatasetInfo:
    spec = self.builder_config.spec
    video = (spec.num_frames, spec.size, spec.size, 3)
    features = {
      'video': tfds.features.Tensor(
        shape=video, dtype=np.uint8, encoding='zlib'
      ),
      'caption': tfds.features.Text(),
      'bounces': tfds.features.Scalar(np.bool_),
      'gravity': tfds.features.Scalar(np.float32),
      'landing': tfds.features.Scalar(np.float32),
      'extent': tfds.features.Tensor(shape=(2,), dtype=np.float32),
      'position': tfds.features.Tensor(
        shape=(spec.num_frames, 2), dtype=np.float32
      ),
      'turned': tfds.features.Tensor(
        shape=(spec.num_frames,), dtype=np.float32
      ),
    }
    for name in (*_INTEGERS, 'index'):
      features[name] = tfds.features.Scalar(np.int64)
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.__class__.__doc__,
      features=tfds.features.FeaturesDict(features),
    )

  def _shard_iterators_per_split(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    config = self.builder_config
    spec = config.spec
    clip = spec.num_frames * spec.size**2 * 3
    step = max(_SHARD_BYTES // clip // _STEP, 1) * _STEP
    return {
      split: [
        functools.partial(
          _records,
          dataclasses.replace(spec, split=split),
          range(first, min(first + step, count)),
        )
        for first in range(0, count, step)
      ]
      for split, count in config.clips.items()
    }


def _records(spec, numbers):
  for first in range(numbers.start, numbers.stop, _STEP):
    indices = range(first, min(first + _STEP, numbers.stop))
    clips = falling_digits.sample_clips(spec, indices)
    for row, index in enumerate(indices):
      example = {name: value[row] for name, value in clips.items()}
      for name in ('gravity', 'landing', 'extent', 'position', 'turned'):
        example[name] = np.float32(example[name])
      yield index, {**example, 'index': index}


def prepare(
  data_dir: str | os.PathLike[str],
  spec: falling_digits.FallingDigitsSpec,
  num_clips: int,
) -> tuple[str, Any]:
  """Writes a set of clips unless it is there, and opens it.

  Args:
    data_dir: folder for data sets, made when missing.
    spec: what clips to make.
    num_clips: clips 0 .. num_clips - 1 of the spec.

  Returns:
    The set's folder, and a random-access source: len() and [i] -> dict of
    `sample_clips`' fields of clip i (caption as bytes).

  Raises:
    UserError: num_clips < 1, or the folder cannot be written.
  """
  if num_clips < 1:
    raise UserError(f'num_clips must be at least 1, got {num_clips}.')
  fields = json.dumps(dataclasses.asdict(spec), sort_keys=True)
  config = FallingDigitsConfig(
    name=f'{spec.size}px_{spec.num_frames}f_seed{spec.seed}_'
    f'{spec.split}{num_clips}_{files.sha256(fields)[:8]}',
    spec=spec,
    clips={spec.split: num_clips},
  )
  builder = prepared.prepare(
    lambda: FallingDigits(data_dir=os.fspath(data_dir), config=config), data_dir
  )
  return str(builder.data_dir), prepared.source_of(builder, spec.split)
