"""Gradients of a large batch, computed in micro-batches that fit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unitemp_jax.errors import UserError

LossFn = Callable[[Any, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


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

  Equal to one pass over the whole batch if the loss is a mean over its rows.

  Args:
    loss_fn: `(params, micro_batch, key) -> (loss, metrics)`.
    params: the tree to differentiate with respect to.
    batch: tree of arrays [B, ...].
    key: PRNG key; micro-batch i draws from `fold_in(key, i)`.
    steps: number of micro-batches; must divide B.

  Returns:
    Gradients like `params`, summed in float32 and returned in its dtypes;
    metrics with `loss` added, each a float32 scalar.

  Raises:
    UserError: `steps` does not divide B.
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
    micro = _micro_batches(batch, steps)
    first = jax.tree.map(lambda leaf: leaf[0], micro)
    zeros = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
      jax.eval_shape(one, first, 0),
    )

    def body(total, row):
      return jax.tree.map(jnp.add, total, one(*row)), None

    total, _ = jax.lax.scan(body, zeros, (micro, jnp.arange(steps)))
  grads, metrics = jax.tree.map(lambda leaf: leaf / steps, total)
  grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)
  return grads, metrics
