"""Optimizers with their schedules, gradient accumulation, and running means.

Muon orthogonalises the momentum of matrices and leaves the rest to Adam. The
tiny stages use it because it needs fewer steps than AdamW, and steps are what a
CPU has few of; `--config.optimizer.name=adamw` compares them.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from unitemp_jax.errors import UserError
from unitemp_jax.parallel.mesh import path_name, rank_in_layer

LossFn = Callable[[Any, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def make_schedule(
  *,
  learning_rate: float,
  schedule: str = 'constant',
  warmup_steps: int = 0,
  decay_steps: int = 0,
  final_fraction: float = 0.0,
) -> optax.Schedule:
  """Returns step -> learning rate: linear warmup, then constant or cosine.

  Args:
    learning_rate: the peak, reached after `warmup_steps` steps.
    schedule: 'constant' or 'cosine'.
    warmup_steps: steps of the linear rise from 0.
    decay_steps: step at which the cosine ends, warmup included.
    final_fraction: part of the peak that the cosine ends at.
  """
  if not (0 < learning_rate < math.inf and warmup_steps >= 0):
    raise UserError(
      f'optimizer.learning_rate is {learning_rate} and optimizer.warmup_steps '
      f'{warmup_steps}; the rate must be above 0, and no steps below it.'
    )
  if schedule == 'constant':
    peak = optax.constant_schedule(learning_rate)
  elif schedule == 'cosine':
    if decay_steps <= warmup_steps:
      raise UserError(
        f'optimizer.decay_steps is {decay_steps}, but the cosine must end '
        f'after optimizer.warmup_steps = {warmup_steps}; raise decay_steps.'
      )
    peak = optax.cosine_decay_schedule(
      learning_rate, decay_steps - warmup_steps, final_fraction
    )
  else:
    raise UserError(
      f'optimizer.schedule is {schedule!r}; use "constant" or "cosine".'
    )
  if not warmup_steps:
    return peak
  # The first step already moves: a rate of exactly 0 would waste it.
  rise = optax.linear_schedule(
    learning_rate / warmup_steps, learning_rate, warmup_steps - 1
  )
  return optax.join_schedules([rise, peak], [warmup_steps])


def decay_mask(params: Any) -> Any:
  """Returns True for each leaf that decays: matrices, no biases or scales."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: rank_in_layer(path_name(path), leaf) > 1, params
  )


def muon_dimensions(params: Any) -> Any:
  """Returns which axes of a kernel are in and out; None leaves it to Adam.

  Kernels under `blocks` lead with a layer axis, which is a batch of matrices.
  All axes of a convolution but the last are inputs.
  """

  def of(path, leaf):
    name = path_name(path)
    if not name.endswith('kernel'):
      return None
    first = 1 if 'blocks/' in name else 0
    inputs = tuple(range(first, leaf.ndim - 1))
    return optax.contrib.MuonDimensionNumbers(inputs, leaf.ndim - 1)

  return jax.tree_util.tree_map_with_path(of, params)


def make_optimizer(
  *,
  name: str = 'adamw',
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  clip_norm: float = 1.0,
  **schedule: Any,
) -> optax.GradientTransformation:
  """Returns AdamW or Muon behind a clip of the gradient's global norm.

  Args:
    name: 'adamw' or 'muon'. Muon's matrices move at twice the learning rate of
      what Adam moves, with updates scaled to Adam's usual size (RMS 0.2).
    b1: decay of the first moment; 0 for a distilled generator.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    weight_decay: applied to matrices and kernels only (`decay_mask`).
    clip_norm: largest global norm of the gradient; 0 clips nothing.
    **schedule: of `make_schedule`.
  """
  rate = make_schedule(**schedule)
  if name == 'adamw':
    inner = optax.adamw(
      rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask
    )
  elif name == 'muon':
    inner = optax.contrib.muon(
      rate,
      weight_decay=weight_decay,
      adam_b1=b1,
      adam_b2=b2,
      adam_learning_rate=lambda step: 0.5 * rate(step),
      muon_weight_dimension_numbers=muon_dimensions,
      consistent_rms=0.2,
    )
  else:
    raise UserError(f'optimizer.name is {name!r}; use "adamw" or "muon".')
  if not clip_norm:
    return inner
  return optax.chain(optax.clip_by_global_norm(clip_norm), inner)


def ema_update(ema: Any, params: Any, decay: float | jax.Array) -> Any:
  """Returns `decay * ema + (1 - decay) * params`, leaf by leaf."""
  return jax.tree.map(lambda e, p: e + (1.0 - decay) * (p - e), ema, params)


def warm_decay(decay: float, step: jax.Array) -> jax.Array:
  """EMA decay that starts low, so that the first weights are forgotten."""
  step = step.astype(jnp.float32)
  return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def _micro_batches(batch: Any, steps: int) -> Any:
  """Reshapes every leaf [B, ...] to [steps, B / steps, ...].

  Micro-batch i holds the rows i, i + steps, ...: consecutive rows lie on one
  device, so each micro-batch stays spread over all of them.
  """

  def split(leaf):
    if leaf.shape[0] % steps:
      raise UserError(
        f'A batch of {leaf.shape[0]} does not divide into accumulate = {steps} '
        'micro-batches; change batch_size or accumulate.'
      )
    parts = leaf.reshape(leaf.shape[0] // steps, steps, *leaf.shape[1:])
    return jnp.swapaxes(parts, 0, 1)

  return jax.tree.map(split, batch)


def accumulate_gradients(
  loss_fn: LossFn, params: Any, batch: Any, key: jax.Array, steps: int = 1
) -> tuple[Any, dict[str, jax.Array]]:
  """Returns the mean gradient and mean metrics over `steps` micro-batches.

  `loss_fn` maps (params, micro-batch, key) to (loss, metrics). Micro-batch i of
  `steps`, which must divide the rows, draws from `fold_in(key, i)`.

  Equal to one pass over the whole batch if the loss is a mean over its rows.

  Returns:
    Gradients like `params`, summed in float32 and returned in its dtypes;
    metrics with `loss` added, each a float32 scalar.
  """
  value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

  def one(micro, index):
    (loss, metrics), grads = value_and_grad(
      params, micro, jax.random.fold_in(key, index)
    )
    return jax.tree.map(
      lambda leaf: leaf.astype(jnp.float32), (grads, {'loss': loss, **metrics})
    )

  if steps == 1:
    total = one(batch, 0)
  else:
    micro = _micro_batches(batch, steps), jnp.arange(steps)
    one = jax.jit(one, inline=True)  # Traced once, for shapes and loop.
    first = jax.tree.map(lambda leaf: leaf[0], micro)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, *first))

    def body(total, row):
      return jax.tree.map(jnp.add, total, one(*row)), None

    total, _ = jax.lax.scan(body, zeros, micro)
  grads, metrics = jax.tree.map(lambda leaf: leaf / steps, total)
  grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)
  return grads, metrics
