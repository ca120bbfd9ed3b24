"""One generation step: few-step denoising of a block, then the clean write.

A block that is made before its past is denoised together with its anchors,
latents before it that stand in for that past (`denoise_block`, `sigma_table`).

Sampling and self-forcing training call this same function. All passes before
the exit level run without gradient; the pass there carries it, and
it stops at the cache (`unitemp_jax/README.md`, One step and Distillation).

The `denoise` callable hides the network:

  denoise(net, x_BFHWC, sigma_BF, positions_F, prompt, cache, slot, visible)
    -> (velocity_BFHWC, cache)

where `net` is a pytree (weights and text keys and values) and the pass stages
its own keys at `slot` and sees the first `visible` slots.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from unitemp_jax.diffusion import flow
from unitemp_jax.parallel import mesh as device_mesh
from unitemp_jax.shapes import Index, Latents, Schedule

Denoise = Callable[..., tuple[jax.Array, Any]]


@dataclasses.dataclass(frozen=True)
class StepOptions:
  """What is fixed for a model, and static in its programs."""

  # The latent of a block from which on carried anchors are a draft of it: 0, or
  # 1 where the first anchor is an image latent ("windowed").
  draft_from: int = 0
  # Sigma of that draft, at which it is held until the last pass; 0 = it starts
  # at sigma `Row.start`, and is drawn anew in each pass.
  draft_sigma: float = 0.0
  # Let gradient cross blocks through the cached keys and values instead of
  # stopping it there, as Self-Forcing's paper says. Its released code lets it:
  # into the keys and values of the exit pass, in the place of those of the
  # clean pass, sg(clean) + exit - sg(exit).
  through_cache: bool = False
  # In training, sigma of the fresh noise that a generated block gets before its
  # clean pass, which is told 0. Self-Forcing's released training has 0.00498,
  # its sampling none.
  context_sigma: float = 0.0
  # Branch by loops of no or one turn. XLA updates the state of a loop in place,
  # but copies what goes into `lax.switch` and comes out of it, the cache. No
  # gradient passes.
  loop_branches: bool = False
  # A row that writes no slot has no clean pass. No gradient passes either.
  skip_writes: bool = False


DEFAULTS = StepOptions()

# Scope of the loops that stand for branches, in compiled programs.
CHOSEN = 'chosen'


def prefer_loop_branches() -> bool:
  """Whether to set `loop_branches`: on TPUs, which are short of memory."""
  return device_mesh.platform() == 'tpu'


@flax.struct.dataclass
class Row:
  """One plan row on the device; fields as in `plans.Plan`, without J.

  `sinks` is None for a plan without, so that its program has no trace of them.
  """

  target: jax.Array
  count: jax.Array
  conditioning: jax.Array
  latent: jax.Array
  anchor: jax.Array
  start: jax.Array
  visible: jax.Array
  write: jax.Array
  prompt: jax.Array
  sinks: jax.Array | None
  index: jax.Array  # number of the row


@flax.struct.dataclass
class Carry:
  """What one step hands to the next."""

  cache: Any  # keys and values of what has been generated or given
  latents: jax.Array  # buffer of clean latents, `[B, entries, h, w, C]`
  anchors: jax.Array  # of the latest anchored row, `[B, P, h, w, C]`
  # One key per sample, never changed: a row draws from its number.
  keys: jax.Array
  # Of the latest row that was generated; None if nobody asks.
  trace: 'Trace | None' = None


@flax.struct.dataclass
class Trace:
  """The last pass of a row, anchors first, `[B, P + B, h, w, C]` each."""

  noisy: jax.Array  # what went in
  clean: jax.Array  # the prediction that came out


def row_noise(keys, row: Index, level: Index, shape) -> jax.Array:
  """Noise `[B, *shape]` that depends on sample, row and level only."""

  def one(key):
    key = jax.random.fold_in(jax.random.fold_in(key, row), level)
    return jax.random.normal(key, shape)

  return jax.vmap(one)(keys)


def sigma_table(
  sigmas, start, anchors: int, block: int, options: StepOptions = DEFAULTS
) -> jax.Array:
  """Sigma per pass and latent, `[n + 1, P + block]`.

  Anchors follow the schedule. A block that starts from re-noised anchors waits
  at its own lower sigma until the schedule reaches it, but for the latents
  before `draft_from`, which start from noise.
  """
  sigma = options.draft_sigma or sigmas[start]
  cap = jnp.where(start > 0, sigma, 1.0)
  follow = (sigmas.shape[0], anchors + options.draft_from)
  scheduled = jnp.broadcast_to(sigmas[:, None], follow)
  capped = jnp.minimum(sigmas, cap)[:, None]
  drafted = (sigmas.shape[0], block - options.draft_from)
  capped = jnp.broadcast_to(capped, drafted)
  return jnp.concatenate([scheduled, capped], axis=1)


def exit_pass(
  denoise: Denoise,
  net: Any,
  x: Latents,
  cache: Any,
  row: Row,
  sigmas: Schedule,
  **options: Any,
) -> tuple[Latents, Any]:
  """One pass over a block and the anchors before it.

  Args:
    denoise: the network (module docstring).
    net: its pytree.
    x: noisy anchors and block, `[B, F, h, w, C]`.
    cache: what it sees.
    row: the plan row.
    sigmas: of every latent, `[F]`.
    **options: of `denoise`.

  Returns:
    The data estimate, and the cache that `denoise` returned.
  """
  batch, frames = x.shape[:2]
  anchors = frames - row.target.shape[0]
  before = row.target[0] - anchors + jnp.arange(anchors)
  positions = jnp.concatenate([before, row.target]).astype(jnp.int32)
  sigma = jnp.broadcast_to(sigmas[None], (batch, frames))
  seen = row.visible + anchors + row.count
  v, cache = denoise(
    net, x, sigma, positions, row.prompt, cache, row.visible, seen, **options
  )
  return flow.to_x0(x, v, sigma), cache


def denoise_block(
  denoise: Denoise,
  net: Any,
  carry: Carry,
  row: Row,
  sigmas: Schedule,
  exit_level: Index,
  anchors: int,
  options: StepOptions = DEFAULTS,
  given_noise: jax.Array | None = None,
) -> tuple[Trace, Any]:
  """Denoises one block, with `anchors` anchor latents before it in time.

  Args:
    denoise: the network (module docstring).
    net: its pytree; gradient flows into it from the last pass only.
    carry: state before the step.
    row: the plan row.
    sigmas: decreasing, the last one 0, `[n + 1]`.
    exit_level: index of the pass whose prediction is the result, < n.
    anchors: P or 0, static.
    options: see there.
    given_noise: of the block, instead of what the keys give: for each level,
      `[n, B, block, h, w, C]`.

  Returns:
    The last pass, and the cache with what it staged behind the visible slots.
  """
  batch, _, *grid = carry.latents.shape
  block = row.target.shape[0]
  frames = anchors + block
  table = sigma_table(sigmas, row.start, anchors, block, options)
  drafted = jnp.arange(frames) >= anchors + options.draft_from
  held = (drafted & (row.start > 0)).reshape(1, -1, 1, 1, 1)

  def noise(level):
    drawn = row_noise(carry.keys, row.index, level, (frames, *grid))
    if given_noise is None:
      return drawn
    return drawn.at[:, anchors:].set(given_noise[level])

  def predict(net, x, cache, level):
    return exit_pass(denoise, net, x, cache, row, table[level])

  def renoise(x0, level):
    sigma = jnp.broadcast_to(table[level][None], (batch, frames))
    return flow.renoise(x0, noise(level), sigma)

  # What starts from noise needs the whole schedule; a block that starts from
  # carried anchors altogether skips the sigmas above its own.
  whole = anchors > 0 or options.draft_from > 0
  first = 0 if whole else jnp.minimum(row.start, exit_level)
  x = noise(0)
  if carry.anchors.shape[1] == block:  # Else no row starts from anchors.
    draft = jnp.pad(
      carry.anchors, ((0, 0), (anchors, 0)) + ((0, 0),) * (x.ndim - 2)
    )
    x = jnp.where(row.start > 0, renoise(draft, first), x)
  net_fixed = lax.stop_gradient(net)

  def body(level, state):
    x0, cache = predict(net_fixed, state[0], state[1], level)
    x = renoise(x0, level + 1)
    if options.draft_sigma:
      x = jnp.where(held, state[0], x)
    return x, cache

  before = lax.stop_gradient((x, carry.cache))
  x, cache = lax.fori_loop(first, exit_level, body, before)
  # All passes only stage keys behind what is visible. The cache of the last one
  # is handed on, because to keep the one before would be to copy it.
  if options.through_cache:
    x0, cache = predict(net, x, carry.cache, exit_level)
    return Trace(x, x0), cache
  x0, cache = predict(net, x, cache, exit_level)
  return Trace(x, x0), lax.stop_gradient(cache)


def write_clean(
  denoise: Denoise,
  net: Any,
  cache: Any,
  commit,
  clean: Latents,
  row: Row,
  skip_idle: bool = False,
  **gradient: Any,
) -> Any:
  """One pass at sigma 0 that stores the block's keys and values.

  `gradient` goes to `commit`. Nothing else passes any. With `skip_idle` there
  is no pass where the row writes nothing, and no gradient.
  """
  net, cache, clean = lax.stop_gradient((net, cache, clean))
  sigma = jnp.zeros(clean.shape[:2])
  seen = row.visible + row.count

  def run(cache):
    _, cache = denoise(
      net, clean, sigma, row.target, row.prompt, cache, row.visible, seen
    )
    return commit(cache, row.visible, row.write, **gradient)

  if not skip_idle:
    return run(cache)
  turns = (row.write >= 0).any().astype(jnp.int32)
  with jax.named_scope(CHOSEN):
    return lax.fori_loop(0, turns, lambda _, cache: run(cache), cache)


def step(
  denoise: Denoise,
  commit,
  net: Any,
  carry: Carry,
  row: Row,
  sigmas: Schedule,
  exit_level: Index,
  options: StepOptions = DEFAULTS,
  place=None,
) -> tuple[Carry, jax.Array]:
  """Runs one plan row: generated with or without anchors, given, or inert.

  Args:
    denoise: the network (module docstring).
    commit: (cache, start, write) -> cache; `models.cache.commit`.
    net: the network's pytree.
    carry: state before.
    row: the plan row.
    sigmas: of the passes, `[n + 1]`, the last one 0.
    exit_level: see `denoise_block`.
    options: see there.
    place: (cache, positions) -> cache with the sinks at their positions in this
      row; needed if the plan has sinks.

  Returns:
    The state after, and the anchors that this row was denoised with (those of
    the latest anchored row otherwise), `[B, P, h, w, C]`.
  """
  num_anchors = carry.anchors.shape[1]
  entry = jnp.where(row.latent < 0, carry.latents.shape[1], row.latent)

  def write(cache, clean, anchors=None):
    gradient: dict[str, Any] = {'skip_idle': options.skip_writes}
    if options.through_cache:
      staged = None if anchors is None else row.visible + anchors
      gradient |= {'exit_cache': cache, 'exit_start': staged}
    if options.context_sigma and anchors is not None:
      fresh = row_noise(carry.keys, row.index, len(sigmas), clean.shape[1:])
      sigma = jnp.full(clean.shape[:2], options.context_sigma)
      clean = flow.renoise(clean, fresh, sigma)
    return write_clean(denoise, net, cache, commit, clean, row, **gradient)

  def placed(carry):
    if row.sinks is None:
      return carry
    if place is None:
      raise ValueError('a plan with sinks needs `place`')
    return carry.replace(cache=place(carry.cache, row.sinks))

  def generated(anchors):
    def run(carry):
      carry = placed(carry)
      trace, cache = denoise_block(
        denoise, net, carry, row, sigmas, exit_level, anchors, options
      )
      x0 = trace.clean
      clean = x0[:, anchors:]
      latents = carry.latents.at[:, entry].set(clean, mode='drop')
      cache = write(cache, clean, anchors)
      carry = carry.replace(cache=cache, latents=latents)
      if anchors:
        carry = carry.replace(anchors=x0[:, :anchors])
      if carry.trace is not None:
        carry = carry.replace(trace=_padded(trace, num_anchors - anchors))
      return carry

    return run

  def given(carry):
    carry = placed(carry)
    clean = jnp.take(carry.latents, jnp.maximum(row.latent, 0), axis=1)
    return carry.replace(cache=write(carry.cache, clean))

  branches = [lambda carry: carry, given, generated(0)]
  if num_anchors:
    branches.append(generated(num_anchors))
  choose = _switch_by_loops if options.loop_branches else lax.switch
  carry = choose(kind_of(row, num_anchors), branches, carry)
  return carry, carry.anchors


def _switch_by_loops(kind: jax.Array, branches: list, carry: Carry) -> Carry:
  """As `lax.switch`, if the first branch does nothing."""
  for number, branch in enumerate(branches[1:], start=1):
    turns = (kind == number).astype(jnp.int32)
    with jax.named_scope(CHOSEN):
      carry = lax.fori_loop(0, turns, lambda _, c, run=branch: run(c), carry)
  return carry


INERT, CONDITIONING, PLAIN, ANCHORED = range(4)


def kind_of(row: Row, num_anchors: int) -> jax.Array:
  """What a row does: `INERT`, `CONDITIONING`, `PLAIN` or `ANCHORED`."""
  kind = jnp.where(row.conditioning, CONDITIONING, PLAIN)
  if num_anchors:
    kind = jnp.where(
      row.conditioning, CONDITIONING, jnp.where(row.anchor, ANCHORED, PLAIN)
    )
  # A given row that writes nothing only says what is part of the video.
  idle = row.conditioning & (row.write < 0).all()
  return jnp.where((row.count == 0) | idle, INERT, kind)


def _padded(trace: Trace, missing: int) -> Trace:
  def pad(x):
    return jnp.pad(x, ((0, 0), (missing, 0)) + ((0, 0),) * (x.ndim - 2))

  return jax.tree.map(pad, trace)
