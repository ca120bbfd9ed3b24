"""A small multilayer perceptron: fitted by scikit-learn, read by numpy.

Two or three dense layers with ReLU, stored as plain arrays, so that reading
needs no scikit-learn and gives the same on every version of it.
"""

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy.special import log_softmax

from unitemp_jax import files
from unitemp_jax.errors import UserError

T = TypeVar('T')
_BATCH = 256
_RATE = 1.5e-3


@dataclasses.dataclass(frozen=True)
class Classifier:
  """Dense layers."""

  weights: tuple[np.ndarray, ...]  # of each layer, [inputs, outputs]
  biases: tuple[np.ndarray, ...]  # of each layer, [outputs]

  def hidden(self, features: np.ndarray) -> np.ndarray:
    """What enters the last layer, [n, D], of features [n, inputs]."""
    hidden = np.asarray(features, np.float32)
    for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
      hidden = np.maximum(hidden @ weight + bias, 0)
    return hidden

  def log_prob(self, features: np.ndarray) -> np.ndarray:
    """Log-probability of each class, [n, classes], of features [n, inputs]."""
    scores = self.hidden(features) @ self.weights[-1] + self.biases[-1]
    return log_softmax(scores, axis=1)

  def to_arrays(self) -> dict[str, np.ndarray]:
    """The layers by name, in half precision."""
    arrays = {}
    for index, pair in enumerate(zip(self.weights, self.biases, strict=True)):
      arrays[f'weight_{index}'] = pair[0].astype(np.float16)
      arrays[f'bias_{index}'] = pair[1].astype(np.float16)
    return arrays

  @classmethod
  def from_arrays(cls, arrays: dict[str, np.ndarray]) -> 'Classifier':
    """Undoes `to_arrays`; KeyError if a layer is missing."""
    layers = range(sum(name.startswith('weight_') for name in arrays))
    if not layers:
      raise KeyError('weight_0')
    weights = [arrays[f'weight_{i}'].astype(np.float32) for i in layers]
    biases = [arrays[f'bias_{i}'].astype(np.float32) for i in layers]
    return cls(tuple(weights), tuple(biases))


def train(
  epoch_features: Callable[[int], np.ndarray],
  labels: np.ndarray,
  *,
  hidden: Sequence[int],
  epochs: int,
  seeds: Sequence[int],
  decay: float,
) -> tuple[Classifier, ...]:
  """Fits one classifier per seed with Adam and a falling learning rate.

  Args:
    epoch_features: gives features [n, inputs] for an epoch, so that every
      epoch may see other augmentations; n and the order stay the same.
    labels: int [n].
    hidden: widths of the hidden layers.
    epochs: passes over the features.
    seeds: of the weights and of the order, one per classifier; they share the
      features.
    decay: strength of the L2 penalty, `alpha` of scikit-learn.
  """
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.neural_network import MLPClassifier

  fits = [
    MLPClassifier(
      hidden_layer_sizes=tuple(hidden),
      batch_size=min(_BATCH, len(labels)),
      alpha=decay,
      max_iter=1,
      warm_start=True,
      random_state=np.random.RandomState(seed),
    )
    for seed in seeds
  ]
  with warnings.catch_warnings():
    # One pass at a time never converges.
    warnings.simplefilter('ignore', ConvergenceWarning)
    for epoch in range(epochs):
      features = epoch_features(epoch)
      for fit in fits:
        fit.set_params(learning_rate_init=_RATE * (1 - 0.99 * epoch / epochs))
        fit.fit(features, labels)
  return tuple(_layers(fit) for fit in fits)


def _layers(fit: Any) -> Classifier:
  weights, biases = list(fit.coefs_), list(fit.intercepts_)
  if fit.out_activation_ == 'logistic':
    # One output is the log-odds of the second class; here each has its own.
    weights[-1] = np.pad(weights[-1], ((0, 0), (1, 0)))
    biases[-1] = np.pad(biases[-1], (1, 0))
  layers = [
    [array.astype(np.float32) for array in x] for x in (weights, biases)
  ]
  return Classifier(tuple(layers[0]), tuple(layers[1]))


def save_arrays(
  path: str | os.PathLike[str],
  arrays: dict,
  within: str | os.PathLike[str] | None = None,
) -> None:
  """Writes arrays as a compressed npz, atomically; see `files.writing`."""
  with (
    files.writing(path, within=within) as temporary,
    temporary.open('r+b') as file,
  ):
    np.savez_compressed(file, **arrays)


def load(
  path: str | os.PathLike[str],
  make: Callable[[dict[str, np.ndarray]], T],
  what: str,
) -> T:
  """Makes of an npz what was fitted; UserError if an array is missing."""
  arrays = files.read_arrays(path, 'fit it again')
  try:
    return make(arrays)
  except KeyError as error:
    raise UserError(
      f'{path} is not a fitted {what} (no {error}); fit it again.'
    ) from error


def spoil(
  ink: np.ndarray, blur: np.ndarray, noise: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
  """Blurs pictures and adds noise.

  Args:
    ink: float32 [n, H, W] in [0, 1].
    blur: [n] standard deviation of the blur in pixels, at most about 1.5.
    noise: [n] standard deviation of the noise.
    rng: draws the noise.

  Returns:
    float32 [n, H, W] in [0, 1].
  """
  sigma = np.maximum(blur, 1e-2)[:, None]
  taps = np.exp(-(np.arange(-3, 4) ** 2) / (2 * sigma**2))
  taps = (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
  for axis in (1, 2):
    side = ink.shape[axis]
    padding = [(0, 0), (0, 0), (0, 0)]
    padding[axis] = (3, 3)
    padded = np.pad(ink, padding)
    ink = sum(
      taps[:, k, None, None] * padded.take(range(k, k + side), axis)
      for k in range(7)
    )
  drawn = rng.standard_normal(ink.shape, dtype=np.float32)
  return np.clip(ink + noise[:, None, None].astype(np.float32) * drawn, 0, 1)
