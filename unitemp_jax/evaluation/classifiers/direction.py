"""Direction of play, read by a classifier that learns given real clips.

Logistic regression on what changes when a clip is reversed. It is odd by
construction, p(clip) + p(reversed clip) = 1, so it cannot prefer forward. Where
real footage has no direction, or there is little of it, it does not tell real
clips from their reversals either: read its answers beside those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.classifiers.arrow_of_time import features

LEAST_CLIPS = 16  # real clips below which nothing is learned
_LEAST_FRAMES = 5
_FOLDS = 8
_STRENGTH = 0.1  # inverse weight decay, for as few clips as 16


@dataclasses.dataclass(frozen=True)
class Direction:
  """A fitted classifier.

  Attributes:
    weights: [k] of the scaled features.
    scale: [k] root mean square of each feature in training.
  """

  weights: np.ndarray
  scale: np.ndarray

  @classmethod
  def fit(cls, clips: Sequence[np.ndarray]) -> Direction:
    """Learns from real clips, thumbnails uint8 [T, h, w] each.

    Raises:
      UserError: fewer than two clips, or one shorter than 5 frames.
    """
    return _fit(np.stack([_odd(clip) for clip in clips]))

  def read(self, clips: Sequence[np.ndarray]) -> np.ndarray:
    """Probability that each clip plays forward, [n]; 0.5 for a still.

    Args:
      clips: thumbnails uint8 [T, h, w] each, of at least 5 frames.
    """
    return self._classify(np.stack([_odd(clip) for clip in clips]))

  def _classify(self, odd: np.ndarray) -> np.ndarray:
    odds = (odd / self.scale) @ self.weights
    return 1 / (1 + np.exp(-np.clip(odds, -60, 60)))


def held_out(clips: Sequence[np.ndarray], groups: Sequence[str]) -> np.ndarray:
  """Probability of each real clip, by one that saw no clip of its group.

  Args:
    clips: thumbnails uint8 [T, h, w] each.
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
  odd = np.stack([_odd(clip) for clip in clips])
  answers = np.empty(len(odd))
  folds = GroupKFold(min(_FOLDS, count))
  for train, test in folds.split(odd, groups=np.asarray(groups)):
    answers[test] = _fit(odd[train])._classify(odd[test])
  return answers


def _fit(odd: np.ndarray) -> Direction:
  from sklearn.linear_model import LogisticRegression

  if len(odd) < 2:
    raise UserError('the direction needs at least two clips to learn from.')
  scale = np.maximum(np.sqrt(np.square(odd).mean(axis=0)), 1e-6)
  scaled = odd / scale
  model = LogisticRegression(C=_STRENGTH, fit_intercept=False, max_iter=1000)
  model.fit(np.concatenate([scaled, -scaled]), np.repeat([1, 0], len(scaled)))
  return Direction(model.coef_[0], scale)


def _odd(clip: np.ndarray) -> np.ndarray:
  """What changes sign when the clip is reversed, float64 [k]."""
  if len(clip) < _LEAST_FRAMES:
    raise UserError(
      f'the direction needs clips of at least {_LEAST_FRAMES} frames, but got '
      f'{len(clip)}; use longer ones.'
    )
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
