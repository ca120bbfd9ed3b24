"""Benchmark `cache`: cached rollout against computing the context again.

Both make the same block from the same visible latents with the same noise, and
give the same result up to rounding, which is reported beside the times. The
cached one is a pass per noise level over the block alone, and one that stores
its own; the other a pass per level over context and block, under a mask that
lets each block see itself and those before it. Without the mask, which is what
a bidirectional network costs at the least, the result is another one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax import orders
from unitemp_jax.bench import measure
from unitemp_jax.bench.measure import Context, Outcome
from unitemp_jax.diffusion import flow
from unitemp_jax.evaluation.metrics import bootstrap
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.models.dit import DiT
from unitemp_jax.sampling import sampler
from unitemp_jax.sampling.step import Row, row_noise
from unitemp_jax.sampling.stream import RowPrograms

CACHED, RECOMPUTE, UNMASKED = 'cached', 'recompute', 'recompute, unmasked'
# Blocks of visible context; the first is what the shipped model was trained on.
CONTEXT_BLOCKS = (2, 6, 12)
_TIME = (
  'one block of one clip, all noise levels and the pass that stores its keys, '
  'without text encoder and decoder; mean over warm repeats, in turns'
)
_FASTER = 'time of the other over that of cached, same round; geometric mean'
_SAME = (
  'largest difference to the block of cached, over the largest latent in it'
)


def run(context: Context) -> Outcome:
  """Times the three at several lengths of context."""
  rows, series = [], {}
  for blocks in CONTEXT_BLOCKS:
    block = context.card.block
    found = _functions(context, blocks)
    made = {name: np.asarray(one()) for name, one in found.items()}
    seconds = measure.in_turns(found, context.repeats)
    for name, values in seconds.items():
      group = f'{name}, {blocks * block} latents visible'
      series[group] = values.tolist()
      mean = bootstrap.mean(1000 * values)
      rows.append(context.row('time per block', group, mean, 'ms', _TIME))
      if name != CACHED:
        faster = bootstrap.paired('geometric', values, seconds[CACHED])
        metric = 'cached is faster by'
        rows.append(context.row(metric, group, faster, 'ratio', _FASTER))
      if name == RECOMPUTE:
        apart = np.abs(made[name] - made[CACHED]).max()
        share = float(apart / np.abs(made[CACHED]).max())
        metric = 'difference of the result'
        rows.append(
          context.row(metric, group, bootstrap.exact(share, 1), 'ratio', _SAME)
        )
    context.report(f'cache: {blocks * block} latents visible, done')
  return Outcome((Section('Cached against recomputed', tuple(rows)),), series)


def _functions(context: Context, blocks: int) -> dict[str, Callable]:
  """The three ways to make one block, without arguments."""
  dit, card, grid = DiT(context.card.dit), context.card, context.grid
  visible = blocks * card.block
  plan = orders.forward(visible + card.block, block=card.block, anchors=0)
  rows = [
    jax.tree.map(lambda leaf, k=k: leaf[k], sampler.plan_rows(plan))
    for k in range(blocks + 1)
  ]
  rng = np.random.default_rng(0)
  shape = (1, visible, *grid, card.dit.channels)
  past = jnp.asarray(rng.standard_normal(shape, np.float32))
  text = (1, 1, card.text.length, card.dit.text_dim)
  text = jnp.asarray(rng.standard_normal(text, np.float32))
  net = jax.jit(lambda params: sampler.make_net(dit, params, text))(
    context.student
  )
  levels = jnp.asarray(flow.student_sigmas(card.timesteps, card.shift))
  keys = sampler.sample_keys([0])
  others = {
    name: jax.jit(_recompute(dit, levels, card.block, blocks, masked))
    for name, masked in ((RECOMPUTE, True), (UNMASKED, False))
  }
  return {
    CACHED: _cached(
      RowPrograms(dit, np.asarray(levels), card.step_options),
      net,
      plan,
      rows,
      past,
      keys,
    ),
    **{
      name: lambda run=run: run(net, past, keys, rows[-1])
      for name, run in others.items()
    },
  }


def _cached(programs, net, plan, rows, past, keys) -> Callable:
  """Stores the context once; every call makes and stores the last row."""
  grid = past.shape[2:4]
  # The programs take the cache over, and give it back.
  cache = [programs.dit.config.new_cache(1, plan.num_slots, *grid)]
  for k, row in enumerate(rows[:-1]):
    own = past[:, k * plan.block : (k + 1) * plan.block]
    cache[0] = programs.store(net, cache[0], own, row)
  anchors = past[:, :0]

  def one():
    cache[0], _, clean = programs.make(
      net, cache[0], anchors, keys, rows[-1], anchored=False
    )
    cache[0] = programs.store(net, cache[0], clean, rows[-1])
    jax.block_until_ready(cache[0])
    return clean

  return one


def _recompute(dit, levels, block, blocks, masked) -> Callable:
  """A function (net, past, keys, row) -> the block, without a cache."""
  number = np.repeat(np.arange(blocks + 1), block)
  mask = jnp.asarray(number[:, None] >= number[None])[None] if masked else None
  visible = blocks * block

  def run(net, past, keys, row: Row):
    positions = jnp.arange(visible + block)
    context = jax.tree.map(lambda leaf: leaf[0], net.context)

    def noise(level):
      return row_noise(keys, row.index, level, (block, *past.shape[2:]))

    def denoise(level, x):
      own = jnp.full((1, block), levels[level])
      sigma = jnp.concatenate([jnp.zeros((1, visible)), own], axis=1)
      v, _ = dit.apply(
        {'params': net.params},
        jnp.concatenate([past, x], axis=1),
        sigma,
        positions,
        context,
        mask_BFF=mask,
      )
      x0 = flow.to_x0(x, v[:, visible:], own)
      # At the last level, 0, nothing of the noise is left.
      following = jnp.full((1, block), levels[level + 1])
      return flow.renoise(x0, noise(level + 1), following)

    return jax.lax.fori_loop(0, len(levels) - 1, denoise, noise(0))

  return run
