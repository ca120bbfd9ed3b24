"""Classifiers that tell whether a clip plays forward.

That of falling digits learns real clips against the same clips reversed, from a
few features of any length of clip: the path of the ink, where in time it moves,
whether pixels rise faster than they fade, and on which side of the motion the
trail hangs. The answer is made antisymmetric, p(clip) + p(reversed) = 1, so a
clip that is its own mirror image in time gets exactly one half.

`Direction` learns given real clips: logistic regression on what changes when a
clip is reversed. It is odd by construction, so it cannot prefer forward. Where
real footage has no direction, or there is little of it, it does not tell real
clips from their reversals either: read its answers beside those.
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.classifiers import classifier
from unitemp_jax.evaluation.classifiers.classifier import spoil
from unitemp_jax.evaluation.metrics import falls
from unitemp_jax.evaluation.metrics.curves import CELLS, shrunk
from unitemp_jax.evaluation.metrics.falls import INK
from unitemp_jax.video.frames import check_clips, unit_pixels

_MOMENTS = 12  # points of a path, bins of a course in time
_BATCH = 64
_CLIPS = 600
_EPOCHS = 30


@dataclasses.dataclass(frozen=True)
class ArrowOfTime:
  """A fitted classifier of the direction of play."""

  network: classifier.Classifier

  @classmethod
  def fit(cls, seed: int = 0) -> 'ArrowOfTime':
    """Fits on the training split of falling digits."""
    from unitemp_jax.data import falling_digits

    spec = falling_digits.FallingDigitsSpec(split='train', seed=seed)
    clips = falling_digits.sample_clips(spec, range(_CLIPS))['video']
    ink = unit_pixels(clips.max(axis=-1))
    rng = np.random.default_rng(seed)
    shape = (3, len(ink), 1)
    # Clean once, then blurred with a little noise, as a model draws.
    blur = rng.uniform(0, 1.3, shape) * np.array([0, 1, 1])[:, None, None]
    noise = rng.uniform(0, 0.05, shape) * np.array([0, 0, 1])[:, None, None]
    played = np.concatenate(
      [_spoil_clips(ink, b, s, rng) for b, s in zip(blur, noise, strict=True)]
    )
    found = np.concatenate([features(played), features(played[:, ::-1])])
    labels = np.repeat([1, 0], len(played))
    (network,) = classifier.train(
      lambda _: found,
      labels,
      hidden=(32,),
      epochs=_EPOCHS,
      seeds=(seed,),
      decay=1e-2,
    )
    return cls(network)

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes the classifier as npz, without pickle."""
    classifier.save_arrays(path, self.network.to_arrays())

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> 'ArrowOfTime':
    """Reads what `save` wrote; UserError if the file holds something else."""
    made = classifier.Classifier.from_arrays
    return cls(classifier.load(path, made, 'arrow of time'))

  def read(self, video: np.ndarray) -> np.ndarray:
    """Probability that each clip plays forward.

    Args:
      video: [n, T, H, W, 3], uint8 or floats in [0, 1]; H and W at least 16.

    Returns:
      [n] in [0, 1]; above one half it is called forward.

    Raises:
      UserError: fewer than 5 frames, or a wrong shape or range.
    """
    check_clips(video, at_least=5)
    answers = []
    for start in range(0, len(video), _BATCH):
      ink = unit_pixels(video[start : start + _BATCH].max(axis=-1))
      odds = self._log_odds(ink) - self._log_odds(ink[:, ::-1])
      answers.append(expit(odds / 2))
    return np.concatenate(answers)

  def _log_odds(self, ink: np.ndarray) -> np.ndarray:
    log_prob = self.network.log_prob(features(ink)).astype(np.float64)
    return log_prob[:, 1] - log_prob[:, 0]


def features(ink: np.ndarray) -> np.ndarray:
  """Features of order one, [n, k], of ink [n, T, H, W] in [0, 1]."""
  small = shrunk(ink, CELLS)
  top = np.maximum(small.max(axis=(1, 2, 3), keepdims=True), 1e-3)
  small = small / top
  digit = _centre(np.maximum(small - INK, 0))
  every = _centre(np.maximum(small - 0.1, 0))

  change = np.diff(small, axis=1)
  cubed = (change**3).sum(axis=(1, 2, 3))
  skew = cubed / np.maximum((np.abs(change) ** 3).sum(axis=(1, 2, 3)), 1e-6)

  # The trail drags the centre of all ink behind the centre of the digit.
  velocity = digit[:, 2:] - digit[:, :-2]
  lead = (digit - every)[:, 1:-1]
  norm = np.sqrt((velocity**2).sum(axis=(1, 2)) * (lead**2).sum(axis=(1, 2)))
  drag = (velocity * lead).sum(axis=(1, 2)) / np.maximum(norm, 1e-6)

  course = _resample(np.abs(change).mean(axis=(2, 3)))
  course = course / np.maximum(course.mean(axis=1, keepdims=True), 1e-6)
  height = _resample(digit[..., 0])
  side = _resample(np.abs(velocity[..., 1]))
  side = side / np.maximum(side.mean(axis=1, keepdims=True), 1e-3)
  return np.concatenate(
    [skew[:, None], drag[:, None], course - 1, height - 0.5, side - 1], axis=1
  ).astype(np.float32)


def _spoil_clips(
  ink: np.ndarray, blur: np.ndarray, noise: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
  """Spoils all frames of a clip alike; ink [n, T, H, W], amounts [n, 1]."""
  length = ink.shape[1]
  blurs, noises = (np.repeat(x[:, 0], length) for x in (blur, noise))
  frames = ink.reshape(-1, *ink.shape[2:])
  return spoil(frames, blurs, noises, rng).reshape(ink.shape)


def _centre(weight: np.ndarray) -> np.ndarray:
  """Centre (y, x) of weight [n, T, H, W] as parts of the frame, [n, T, 2]."""
  places = (np.linspace(0, 1, n, dtype=np.float32) for n in weight.shape[2:])
  return falls.centre(weight, *places)


def _resample(course: np.ndarray) -> np.ndarray:
  """Linear interpolation of [n, t] at 12 even moments, [n, 12]."""
  place = np.linspace(0, course.shape[1] - 1, _MOMENTS)
  left = np.minimum(place.astype(int), course.shape[1] - 2)
  share = place - left
  return course[:, left] * (1 - share) + course[:, left + 1] * share


LEAST_CLIPS = 16  # real clips below which nothing is learned
LEAST_FRAMES = 5
_FOLDS = 8
_STRENGTH = 0.1  # inverse weight decay, for as few clips as 16


@dataclasses.dataclass(frozen=True)
class Direction:
  """A fitted classifier."""

  weights: np.ndarray  # [k] of the scaled features
  scale: np.ndarray  # [k] root mean square of each feature in training

  @classmethod
  def fit(cls, odd: np.ndarray) -> 'Direction':
    """Learns from real clips; `odd` [n, k] are their `odd_features`.

    UserError for fewer than two clips.
    """
    from sklearn.linear_model import LogisticRegression

    if len(odd) < 2:
      raise UserError('the direction needs at least two clips to learn from.')
    scale = np.maximum(np.sqrt(np.square(odd).mean(axis=0)), 1e-6)
    scaled = odd / scale
    model = LogisticRegression(C=_STRENGTH, fit_intercept=False, max_iter=1000)
    labels = np.repeat([1, 0], len(scaled))
    model.fit(np.concatenate([scaled, -scaled]), labels)
    return cls(model.coef_[0], scale)

  def read(self, odd: np.ndarray) -> np.ndarray:
    """Probability that each clip plays forward, [n]; 0.5 for a still.

    Args:
      odd: [n, k], the `odd_features` of each.
    """
    return expit((odd / self.scale) @ self.weights)


def held_out(odd: np.ndarray, groups: Sequence[str]) -> np.ndarray:
  """Probability of each real clip, by one that saw no clip of its group.

  Args:
    odd: [n, k], the `odd_features` of each.
    groups: of each clip, such as its file: clips of one shot stay together.

  Raises:
    UserError: fewer than two groups.
  """
  from sklearn.model_selection import GroupKFold

  count = len(set(groups))
  if count < 2:
    raise UserError(
      'the direction needs real clips of at least two files, so that it can be '
      'tested on what was not learned; give more of them.'
    )
  answers = np.empty(len(odd))
  folds = GroupKFold(min(_FOLDS, count))
  for train, test in folds.split(odd, groups=np.asarray(groups)):
    answers[test] = Direction.fit(odd[train]).read(odd[test])
  return answers


def odd_features(clip: np.ndarray) -> np.ndarray:
  """What changes sign when a clip is reversed, float64 [k].

  Args:
    clip: thumbnails uint8 [T, h, w], T at least 5.
  """
  ink = clip[None].astype(np.float32) / np.float32(255)
  return np.concatenate([_difference(features, ink), _difference(_rise, ink)])


def _difference(function, ink: np.ndarray) -> np.ndarray:
  change = function(ink)[0] - function(ink[:, ::-1])[0]
  return change.astype(np.float64)


def _rise(ink: np.ndarray) -> np.ndarray:
  """How much brightness appears at once and how much fades, [1, 3]."""
  change = np.diff(ink, axis=1)
  size = np.abs(change).mean() + 1e-6
  parts = [
    np.maximum(change, 0).max(axis=1).mean(axis=(1, 2)),
    np.square(np.maximum(change, 0)).mean(axis=(1, 2, 3)) / size,
    np.cumsum(change, axis=1).mean(axis=(1, 2, 3)),
  ]
  return np.stack(parts, axis=1) / size
