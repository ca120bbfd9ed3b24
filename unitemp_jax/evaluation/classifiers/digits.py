"""Reads which digit, in which colour, a falling-digits clip shows.

The digit is read from a crop around the ink of every frame by a small
classifier that saw the real training clips, turned, stretched, blurred and
with noise; the frames of a clip vote by their mean log-probability. The colour
is the hue that most of the bright, saturated pixels of the clip are nearest
to. Reading needs numpy only; fitting also needs the data package.
"""

import dataclasses
import os

import numpy as np

from unitemp_jax.evaluation.classifiers import classifier
from unitemp_jax.evaluation.classifiers.classifier import spoil
from unitemp_jax.evaluation.metrics import falls
from unitemp_jax.evaluation.metrics.curves import shrunk
from unitemp_jax.evaluation.metrics.falls import INK
from unitemp_jax.video.frames import check_clips, unit_pixels

# The crop, in pixels of a frame of 32: a digit's box is 19 of them high.
_CROP = 20
_BASE = 32
# A single frame may not outvote a clip.
_LEAST_LOG_PROB = -8.0
_MEMBERS = 3
_FRAMES_PER_CLIP = 6
_BATCH = 32
_EPOCHS = 20


@dataclasses.dataclass(frozen=True)
class DigitClassifier:
  """A fitted reader."""

  # classifiers whose probabilities are averaged
  members: tuple[classifier.Classifier, ...]
  hues: np.ndarray  # [colours] hue of each colour class, in turns

  @classmethod
  def fit(cls, seed: int = 0) -> 'DigitClassifier':
    """Fits on the training split of falling digits, in minutes."""
    from unitemp_jax.data import falling_digits

    spec = falling_digits.FallingDigitsSpec(
      num_frames=21, size=_BASE, split='train', seed=seed
    )
    # One clip of every training image: few clips, all the handwriting.
    ids = falling_digits.sample_states(spec, range(12_000))['digit_id']
    _, indices = np.unique(ids, return_index=True)
    clips = falling_digits.sample_clips(spec, indices)
    ink, labels = _pick_frames(clips['video'], clips['digit'], seed)

    def features(epoch: int) -> np.ndarray:
      rng = np.random.default_rng((seed, epoch))
      blur = rng.uniform(0.2, 1.3, len(ink)) * (rng.random(len(ink)) < 0.7)
      noise = rng.uniform(0, 0.12, len(ink))
      spoiled = spoil(ink, blur, noise, rng)
      return _crops(spoiled, _random_views(len(ink), rng))

    members = classifier.train(
      features,
      labels,
      hidden=(256, 128),
      epochs=_EPOCHS,
      seeds=tuple(range(seed, seed + _MEMBERS)),
      decay=1e-2,
    )
    return cls(members, _hue(falling_digits.COLOUR_RGB / np.float32(255)))

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes the reader as npz, without pickle."""
    arrays = {'hues': self.hues}
    for index, member in enumerate(self.members):
      for name, array in member.to_arrays().items():
        arrays[f'digit_{index}.{name}'] = array
    classifier.save_arrays(path, arrays)

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> 'DigitClassifier':
    """Reads what `save` wrote; UserError if the file holds something else."""
    return classifier.load(path, cls._from_arrays, 'digit classifier')

  @classmethod
  def _from_arrays(cls, arrays: dict[str, np.ndarray]) -> 'DigitClassifier':
    parts: dict[str, dict] = {}
    for name, array in arrays.items():
      member, dot, layer = name.partition('.')
      if dot:
        parts.setdefault(member, {})[layer] = array
    members = [
      classifier.Classifier.from_arrays(parts[f'digit_{index}'])
      for index in range(max(1, len(parts)))
    ]
    return cls(tuple(members), arrays['hues'])

  def read(
    self, video: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads clips.

    Args:
      video: [n, T, H, W, 3], uint8 or floats in [0, 1]; any size, the digits
        drawn as large a part of the frame as the data has them.

    Returns:
      digit int [n]; colour int [n]; digit_log_prob [n, 10], the mean over the
      frames of the log-probability of each digit. It says which digit, not
      whether there is one: on noise it may be as sure as on a digit.

    Raises:
      UserError: a wrong shape or range.
    """
    check_clips(video, at_least=1)
    # In batches: one matrix product for many clips, yet little memory.
    starts = range(0, len(video), _BATCH)
    log_probs = np.concatenate(
      [self._digit_log_prob(video[k : k + _BATCH]) for k in starts]
    )
    colour = np.array([self._colour(clip) for clip in video])
    return log_probs.argmax(axis=1), colour, log_probs

  def glyphs(self, images: np.ndarray) -> np.ndarray:
    """Handwriting of images `[n, H, W, 3]`, cut out and centred, `[n, D]`."""
    ink = shrunk(unit_pixels(images.max(axis=-1)), _BASE)
    return _crops(ink, _plain_views(len(ink)))

  def features(self, images: np.ndarray) -> np.ndarray:
    """What the first member sees in images `[n, H, W, 3]`, `[n, D]`."""
    return self.members[0].hidden(self.glyphs(images))

  def _digit_log_prob(self, video: np.ndarray) -> np.ndarray:
    features = self.glyphs(video.reshape(-1, *video.shape[2:]))
    votes = np.mean(
      [np.exp(member.log_prob(features)) for member in self.members], axis=0
    )
    log_prob = np.log(np.maximum(votes, np.exp(_LEAST_LOG_PROB)))
    return log_prob.reshape(*video.shape[:2], -1).mean(axis=1)

  def _colour(self, clip: np.ndarray) -> int:
    value = clip.max(axis=-1)
    pixels = unit_pixels(clip[value > INK * value.max()])
    weight = pixels.max(axis=1) - pixels.min(axis=1)
    distance = np.abs(_hue(pixels)[:, None] - self.hues)
    nearest = np.minimum(distance, 1 - distance).argmin(axis=1)
    votes = np.bincount(nearest, weight, minlength=len(self.hues))
    return int(votes.argmax())


def _hue(rgb: np.ndarray) -> np.ndarray:
  """Hue in turns, [n], of colours [n, 3]; 0 for grey."""
  red, green, blue = rgb.T
  angle = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)
  return (angle / (2 * np.pi) % 1).astype(np.float32)


def _pick_frames(
  video: np.ndarray, digit: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Ink [n * k, S, S] of k random frames of each clip, and their digits."""
  rng = np.random.default_rng(seed)
  order = rng.random(video.shape[:2]).argsort(axis=1)
  chosen = order[:, :_FRAMES_PER_CLIP]
  frames = video[np.arange(len(video))[:, None], chosen]
  ink = unit_pixels(frames.max(axis=-1)).reshape(-1, _BASE, _BASE)
  return ink, np.repeat(digit, chosen.shape[1])


def _plain_views(n: int) -> tuple[np.ndarray, np.ndarray]:
  """Views that change nothing: matrices [n, 2, 2] and shifts [n, 2]."""
  matrices = np.broadcast_to(np.eye(2, dtype=np.float32), (n, 2, 2))
  return matrices, np.zeros((n, 2), np.float32)


def _random_views(
  n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Turned, stretched, slanted and shifted views, as handwriting varies."""
  angle = rng.normal(0, 0.15, n)
  scale = rng.uniform(0.87, 1.15, (n, 2))
  slant = rng.normal(0, 0.15, n)
  cos, sin = np.cos(angle), np.sin(angle)
  turn = np.stack([cos, sin, -sin, cos], -1).reshape(n, 2, 2)
  stretch = np.zeros((n, 2, 2))
  stretch[:, 0, 0] = scale[:, 0]
  stretch[:, 1, 0] = slant * scale[:, 1]
  stretch[:, 1, 1] = scale[:, 1]
  shift = rng.uniform(-1.2, 1.2, (n, 2))
  return (turn @ stretch).astype(np.float32), shift.astype(np.float32)


def _crops(ink: np.ndarray, views: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
  """Crops around the brightest ink, [n, 400] scaled to a maximum of 1.

  Args:
    ink: float32 [n, H, W].
    views: matrices [n, 2, 2] from crop to frame offsets (y, x), and shifts
      [n, 2] of the centre, in pixels of a frame of 32.
  """
  height, width = ink.shape[1:]
  ink = ink / np.maximum(ink.max(axis=(1, 2), keepdims=True), 1e-3)
  unit = np.float32(min(height, width) / _BASE)
  places = (np.arange(n, dtype=np.float32) for n in (height, width))
  centre = falls.centre(np.maximum(ink - INK, 0), *places)
  axis = np.arange(_CROP, dtype=np.float32) - (_CROP - 1) / 2
  grid = np.stack(np.meshgrid(axis, axis, indexing='ij')).reshape(2, -1)
  matrices, shifts = views
  places = matrices @ grid + shifts[..., None]
  places = unit * places.astype(np.float32) + centre[..., None]
  return _bilinear(ink, places[:, 0], places[:, 1])


def _bilinear(ink: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
  """Values [n, k] of images [n, H, W] at places y, x [n, k]; 0 outside."""
  n, height, width = ink.shape
  padded = np.pad(ink, ((0, 0), (1, 1), (1, 1))).reshape(n, -1)
  y = np.clip(y + 1, 0, np.float32(height + 0.999))
  x = np.clip(x + 1, 0, np.float32(width + 0.999))
  top, left = y.astype(np.int32), x.astype(np.int32)
  down, right = y - top.astype(np.float32), x - left.astype(np.float32)
  corner = top * (width + 2) + left

  def at(offset: int) -> np.ndarray:
    return np.take_along_axis(padded, corner + offset, axis=1)

  upper = at(0) * (1 - right) + at(1) * right
  lower = at(width + 2) * (1 - right) + at(width + 3) * right
  return upper * (1 - down) + lower * down
