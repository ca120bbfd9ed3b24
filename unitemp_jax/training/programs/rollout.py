"""The student's rollout on a drawn plan, and what its anchors should be."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.models.dit import DiT
from unitemp_jax.models.vae3d import VAE
from unitemp_jax.parallel.mesh import split_rows
from unitemp_jax.plans import Plan
from unitemp_jax.sampling import sampler
from unitemp_jax.sampling.replay import run_plan as run_again
from unitemp_jax.sampling.step import StepOptions


@dataclasses.dataclass(frozen=True)
class PlanChoice:
  """Plans of equal shape, stacked, with what must be preloaded for each."""

  plans: Plan  # one `Plan` whose arrays lead with D
  # Int `[D, entries]`; which given image an entry holds: 0 the first frame's, 1
  # the last frame's, -1 none.
  conditioning: np.ndarray
  # Bool `[D]`; whether the first image latent is seen once more, as that of the
  # last frame.
  loops: np.ndarray
  logits: np.ndarray  # float `[D]`, log of the sampling weights
  num_latents: int  # N; entries 0..N-1 of the buffer are the timeline

  @classmethod
  def create(cls, plans: list[Plan], weights: list[float], num_latents: int):
    """Stacks plans over one timeline of `num_latents` latents."""
    given = np.full((len(plans), plans[0].num_latents), -1, np.int32)
    for i, plan in enumerate(plans):
      positions, entries = plan.timeline()
      if not np.array_equal(positions, entries):
        raise ValueError('the timeline must be the first entries of the buffer')
      for position, entry in zip(*plan.preloaded(), strict=True):
        given[i, entry] = int(position > 0)
    copy = (num_latents - 1, 0)
    loops = [
      any(copy in plan.entries(row) for row in range(plan.num_rows))
      for plan in plans
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *plans)
    logits = np.log(np.asarray(weights, np.float32))
    return cls(stacked, given, np.asarray(loops), logits, num_latents)

  def draw(
    self, key: jax.Array, anchor_drop: float
  ) -> tuple[Plan, jax.Array, jax.Array]:
    """One plan, with `conditioning` of its buffer entries and whether it loops.

    In a share `anchor_drop` of the draws the rows do without anchors, but for
    those that see nothing else: they would make an opening (`plans.plan`).
    """
    key_plan, key_drop = jax.random.split(key)
    i = jax.random.categorical(key_plan, jnp.asarray(self.logits))
    plan = jax.tree.map(lambda leaf: jnp.asarray(leaf)[i], self.plans)
    keep = jax.random.uniform(key_drop) >= anchor_drop
    plan = dataclasses.replace(
      plan,
      anchor=plan.anchor & (keep | (plan.visible == 0)),
      start=jnp.where(keep, plan.start, 0),
    )
    return plan, jnp.asarray(self.conditioning)[i], jnp.asarray(self.loops)[i]


@dataclasses.dataclass(frozen=True)
class Rollout:
  """What a rollout gives to the losses."""

  latents: jax.Array  # the composed timeline `[B, N, h, w, C]`
  # The timeline in which one row's anchors stand in the place of the block
  # before it, in some of the rollouts.
  scored: jax.Array
  pinned: jax.Array  # float `[2]`, 1 where the first or last frame was given
  loops: jax.Array  # bool, whether the last frame is to be the first one
  anchors: jax.Array  # of that row, `[B, P, h, w, C]`
  anchors_from: jax.Array  # int, the position of the first of them
  anchored: jax.Array  # float, 1 if the row has any, else 0


def roll_out(
  dit: DiT,
  params: Any,
  text: jax.Array,
  images: jax.Array,
  key: jax.Array,
  *,
  choice: PlanChoice,
  sigmas: np.ndarray,
  anchor_drop: float,
  options: StepOptions,
  replay: bool = False,
  score_anchors: bool = True,
) -> Rollout:
  """Generates a batch on one drawn plan, up to one drawn exit level.

  Plan and exit level are shared by the whole batch, as in Self-Forcing. Anchors
  get a score of their own (`unitemp_jax/README.md`, Distillation) in the place
  of the block before, but for an image latent in the middle of the timeline,
  which no teacher knows.

  Args:
    dit: the transformer.
    params: the student's weights; gradient flows in from the last pass of each
      block.
    text: embeddings `[B, E, Dt]`.
    images: image latents of the first and last frame, `[B, 2, h, w, C]`; used
      by the plans that are given them.
    key: key.
    choice: plans to draw from.
    sigmas: of the student, the last one 0.
    anchor_drop: share of rollouts whose rows with context have no anchors, so
      that the same weights also run without.
    options: of the sampler's step.
    replay: run without gradient, and take it up again block by block.
    score_anchors: put a row's anchors into the timeline that is scored.
  """
  keys = jax.random.split(key, 4)
  plan, given, loops = choice.draw(keys[0], anchor_drop)
  exit_level = jax.random.randint(keys[1], (), 0, len(sigmas) - 1)
  batch, _, height, width, _ = images.shape
  buffer = jnp.take(images, jnp.maximum(given, 0), axis=1)
  shown = (given >= 0).astype(buffer.dtype).reshape(1, -1, 1, 1, 1)
  config = dit.config
  run_plan = run_again if replay else sampler.run_plan
  latents, anchors = run_plan(
    sampler.cached_denoise(dit),
    sampler.committer(config.tokens_per_frame(height, width)),
    sampler.make_net(dit, params, text[None]),
    plan,
    config.new_cache(batch, plan.num_slots, height, width),
    buffer * shown,
    jax.random.split(keys[2], batch),
    sigmas,
    exit_level,
    options,
  )
  row = jax.random.randint(keys[3], (), 0, plan.num_rows)
  first = plan.target[row, 0] - plan.num_anchors
  number = jnp.arange(plan.num_anchors)
  fits = (number >= options.draft_from) | (first == 0)
  scored = latents
  if score_anchors:
    entry = jnp.where(plan.anchor[row] & fits, first + number, latents.shape[1])
    scored = latents.at[:, entry].set(anchors[row], mode='drop')
  pinned = jnp.stack([(given == 0).any(), (given == 1).any()])
  return Rollout(
    latents=latents[:, : choice.num_latents],
    scored=scored[:, : choice.num_latents],
    pinned=pinned.astype(latents.dtype),
    loops=loops,
    anchors=anchors[row],
    anchors_from=first,
    anchored=plan.anchor[row].astype(latents.dtype),
  )


def decode_window(
  vae: VAE, params: Any, latents: jax.Array, first: jax.Array, count: int
) -> jax.Array:
  """The last frame of latent `first` and all frames of the `count - 1` after.

  Equals that part of decoding everything, in the memory of one latent: a causal
  decoder needs all latents before the window, but one at a time, and none after
  it. A whole video of full size would not fit beside a training. No gradient
  flows.

  Args:
    vae: the VAE.
    params: its weights; in bfloat16 all of it is computed so.
    latents: normalised, `[B, N, h, w, C]`.
    first: int scalar, at most N - `count`.
    count: latents.

  Returns:
    Pixels `[B, stride (count - 1) + 1, H, W, 3]`.
  """
  dtype = jax.tree.leaves(params)[0].dtype
  latents = jax.lax.stop_gradient(latents).astype(dtype)
  stride = vae.config.temporal_stride

  def decode(latent, memory):
    return vae.apply({'params': params}, latent, memory, method='decode')

  frame, memory = decode(latents[:, :1], None)
  # The first latent is one frame, where later ones are `stride`.
  padded = jnp.pad(
    frame, ((0, 0), (stride - 1, 0)) + ((0, 0),) * (frame.ndim - 2)
  )
  held = jnp.zeros((frame.shape[0], count, *padded.shape[1:]), frame.dtype)
  held = split_rows(held.at[:, 0].set(padded))

  def body(carry, number):
    def taken(carry):
      held, memory = carry
      latent = jax.lax.dynamic_slice_in_dim(latents, number, 1, axis=1)
      frames, memory = decode(latent, memory)
      place = jnp.where(number >= first, number - first, count)
      return split_rows(held.at[:, place].set(frames, mode='drop')), memory

    return jax.lax.cond(number < first + count, taken, lambda c: c, carry), None

  later = jnp.arange(1, latents.shape[1])
  (held, _), _ = jax.lax.scan(body, (held, memory), later)
  frames = held.reshape(held.shape[0], count * stride, *held.shape[3:])
  return frames[:, stride - 1 :]


def encode_by_latent(vae: VAE, params: Any, video: jax.Array) -> jax.Array:
  """Latents of a short video, encoded `stride` frames at a time."""
  stride = vae.config.temporal_stride

  def encode(frames, memory):
    return vae.apply({'params': params}, frames, memory, method='encode')

  latent, memory = encode(video[:, :1], None)
  parts = [latent]
  for start in range(1, video.shape[1], stride):
    latent, memory = encode(video[:, start : start + stride], memory)
    parts.append(latent)
  return jnp.concatenate(parts, axis=1)


def anchor_target(
  vae: VAE,
  params: Any,
  latents: jax.Array,
  first: jax.Array,
  count: int,
  by_latent: bool,
) -> jax.Array:
  """Returns what windowed anchors should be: their frames, encoded alone.

  `first` is where the P = `count` anchors begin; `by_latent` decodes latent by
  latent, in a fraction of the memory.

  Returns:
    `[B, P, h, w, C]`; no gradient flows.
  """
  if by_latent:
    window = decode_window(vae, params, latents, first, count)
    return jax.lax.stop_gradient(encode_by_latent(vae, params, window))
  stride = vae.config.temporal_stride
  video, _ = vae.apply({'params': params}, latents, method='decode')
  window = jax.lax.dynamic_slice_in_dim(
    video, stride * first, stride * (count - 1) + 1, axis=1
  )
  made, _ = vae.apply({'params': params}, window, method='encode')
  return jax.lax.stop_gradient(made)
