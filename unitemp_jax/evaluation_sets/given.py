"""Frames that the clips of a set are conditioned on."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.generate.request import Given
from unitemp_jax.video import decode
from unitemp_jax.video.read import read_image
from unitemp_jax.video.resize import fit


class GivenFrames:
  """Reads images and real clips in the size of a set, each once in a while."""

  def __init__(self, frames: int, height: int, width: int, fps: float):
    """Says what clips of the set look like: T, pixels, frames per second."""
    self._form = (frames, height, width, fps)
    self.image = functools.lru_cache(64)(self._image)
    self.clip = functools.lru_cache(8)(self._clip)

  def first(self, path: Path) -> tuple[Given, ...]:
    """The picture as first frame; UserError if it cannot be read."""
    return (Given(0, self.image(path)),)

  def ends(self, path: Path) -> tuple[Given, ...]:
    """The first and the last frame of a real clip.

    Raises:
      UserError: it cannot be read or is too short.
    """
    clip = self.clip(path)
    return Given(0, clip[:1]), Given(len(clip) - 1, clip[-1:])

  def check(self, paths: Iterable[Path], read: Callable) -> None:
    """Reads files that will be given, before anything is made of them.

    Args:
      paths: images or clips.
      read: `image` or `clip`.

    Raises:
      UserError: some cannot be used; says how many, and why the first.
    """
    bad = []
    for path in paths:
      try:
        read(path)
      except UserError as error:
        bad.append(str(error))
    if bad:
      raise UserError(f'{len(bad)} given file(s) cannot be used: {bad[0]}')

  def _image(self, path: Path) -> np.ndarray:
    _, height, width, _ = self._form
    return fit(read_image(path)[None], height, width)

  def _clip(self, path: Path) -> np.ndarray:
    """The first T frames at the set's rate, uint8 `[T, H, W, 3]`."""
    frames, height, width, fps = self._form
    found = []
    for picture in decode.resample(decode.decode(path), fps):
      found.append(fit(picture, height, width))
      if len(found) == frames:
        return np.stack(found)
    raise UserError(
      f'{path} has {len(found)} frames at {fps:g} per second and {frames} are '
      'needed; remove it, or ask for shorter clips with --frames.'
    )
