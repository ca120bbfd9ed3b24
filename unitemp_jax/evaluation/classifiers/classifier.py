"""A small classifier in numpy: the judge behind the oracles.

Two or three dense layers with ReLU, trained with Adam. It has no other job
than to be quick, the same on every machine, and stored as plain arrays.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
from collections.abc import Callable, Sequence

import numpy as np

from unitemp_jax import files
from unitemp_jax.errors import UserError

_BATCH = 256
_RATE = 1.5e-3


@dataclasses.dataclass(frozen=True)
class Classifier:
  """Dense layers.

  Attributes:
    weights: of each layer, [inputs, outputs].
    biases: of each layer, [outputs].
  """

  weights: tuple[np.ndarray, ...]
  biases: tuple[np.ndarray, ...]

  def log_prob(self, features: np.ndarray) -> np.ndarray:
    """Log-probability of each class, [n, classes], of features [n, inputs]."""
    hidden = np.asarray(features, np.float32)
    for index, (weight, bias) in enumerate(
      zip(self.weights, self.biases, strict=True)
    ):
      hidden = hidden @ weight + bias
      if index < len(self.weights) - 1:
        hidden = np.maximum(hidden, 0)
    hidden = hidden - hidden.max(axis=1, keepdims=True)
    return hidden - np.log(np.exp(hidden).sum(axis=1, keepdims=True))

  def to_arrays(self) -> dict[str, np.ndarray]:
    """The layers by name, in half precision."""
    arrays = {}
    for index, pair in enumerate(zip(self.weights, self.biases, strict=True)):
      arrays[f'weight_{index}'] = pair[0].astype(np.float16)
      arrays[f'bias_{index}'] = pair[1].astype(np.float16)
    return arrays

  @classmethod
  def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Classifier:
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
    decay: weight decay a step, as a part of the learning rate.
  """
  features = epoch_features(0)
  sizes = [features.shape[1], *hidden, int(labels.max()) + 1]
  steps = -(-len(labels) // _BATCH)
  fits = [_Fit(sizes, seed, decay, epochs * steps) for seed in seeds]
  for epoch in range(epochs):
    if epoch:
      features = epoch_features(epoch)
    for fit in fits:
      fit.epoch(features, labels)
  return tuple(
    Classifier(tuple(fit.params[::2]), tuple(fit.params[1::2])) for fit in fits
  )


class _Fit:
  """The state of one classifier in training."""

  def __init__(self, sizes: Sequence[int], seed: int, decay: float, steps: int):
    self.rng = np.random.default_rng(seed)
    self.params = []
    for inputs, outputs in itertools.pairwise(sizes):
      weight = self.rng.standard_normal((inputs, outputs), dtype=np.float32)
      self.params.append(weight * np.float32(np.sqrt(2 / inputs)))
      self.params.append(np.zeros(outputs, np.float32))
    self.first = [np.zeros_like(param) for param in self.params]
    self.second = [np.zeros_like(param) for param in self.params]
    self.decay, self.steps, self.done = np.float32(decay), steps, 0

  def epoch(self, features: np.ndarray, labels: np.ndarray) -> None:
    order = self.rng.permutation(len(labels))
    for start in range(0, len(order), _BATCH):
      chosen = order[start : start + _BATCH]
      self.step(_gradients(self.params, features[chosen], labels[chosen]))

  def step(self, gradients: list[np.ndarray]) -> None:
    """One Adam step in place; the rate falls linearly to a hundredth."""
    rate = np.float32(_RATE * (1 - 0.99 * self.done / self.steps))
    self.done += 1
    unbias = 1 - 0.9**self.done, 1 - 0.999**self.done
    for param, grad, m, v in zip(
      self.params, gradients, self.first, self.second, strict=True
    ):
      m += np.float32(0.1) * (grad - m)
      v += np.float32(0.001) * (np.square(grad) - v)
      scale = np.sqrt(v / np.float32(unbias[1])) + np.float32(1e-8)
      update = m / (np.float32(unbias[0]) * scale) + self.decay * param
      param -= rate * update


def save_arrays(path: str | os.PathLike[str], arrays: dict) -> None:
  """Writes arrays as a compressed npz; no reader ever sees half of it."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)
  files.write(path, buffer.getvalue())


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads an npz without pickle.

  Raises:
    UserError: the file is missing or is no npz.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      return dict(file)
  except OSError as error:
    raise UserError(
      f'cannot read the oracle {path} ({error.strerror or error}); fit it '
      'again.'
    ) from error
  except Exception as error:  # numpy raises what the broken archive meets.
    raise UserError(
      f'{path} is not a fitted oracle ({error}); fit it again.'
    ) from error


def _gradients(
  params: list[np.ndarray], features: np.ndarray, labels: np.ndarray
) -> list[np.ndarray]:
  """Gradient of the mean cross-entropy, in the order of the parameters."""
  inputs = [features]
  for index in range(0, len(params) - 2, 2):
    hidden = inputs[-1] @ params[index] + params[index + 1]
    inputs.append(np.maximum(hidden, 0))
  logits = inputs[-1] @ params[-2] + params[-1]
  probability = np.exp(logits - logits.max(axis=1, keepdims=True))
  probability /= probability.sum(axis=1, keepdims=True)
  probability[np.arange(len(labels)), labels] -= 1
  back = probability / np.float32(len(labels))
  gradients: list[np.ndarray] = []
  for layer in reversed(range(len(inputs))):
    gradients[:0] = [inputs[layer].T @ back, back.sum(axis=0)]
    if layer:
      back = (back @ params[2 * layer].T) * (inputs[layer] > 0)
  return gradients
