"""Adapters from the transformer to the callables of sampler and objectives."""

import functools
from typing import Any

import flax.struct
import jax

from unitemp_jax.models import cache as kv_cache
from unitemp_jax.models import rope
from unitemp_jax.models.dit import DiT, DiTConfig, TextContext
from unitemp_jax.plans import Plan


@flax.struct.dataclass
class Net:
  """Weights and the prompts' text keys and values, with prompts leading.

  `context` leaves are `[R, L, B, E, N, K]`: R prompts that rows choose from.
  """

  params: Any
  context: TextContext


def make_net(dit: DiT, params: Any, texts: jax.Array) -> Net:
  """Computes the text keys and values of prompts `[R, B, E, Dt]` once."""

  def one(text):
    return dit.apply({'params': params}, text, method='text_context')

  return Net(params, jax.lax.map(one, texts))


def cached_denoise(dit: DiT):
  """The callable that `sampling.step` wants, with an explicit cache."""

  def denoise(
    net, x, sigma, positions, prompt, cache, slot, visible, keep=True
  ):
    context = jax.tree.map(lambda leaf: leaf[prompt], net.context)
    return dit.apply(
      {'params': net.params},
      x,
      sigma,
      positions,
      context,
      cache=cache,
      slot=slot,
      visible=visible,
      keep=keep,
    )

  return denoise


def committer(tokens_per_frame: int):
  """The `commit` that `sampling.step` wants, for frames of so many tokens."""
  return functools.partial(kv_cache.commit, tokens_per_frame=tokens_per_frame)


def cache_for(
  config: DiTConfig, plan: Plan, batch: int, height: int, width: int
) -> kv_cache.KVCache:
  """An empty cache for a plan, with room for its sinks."""
  return config.new_cache(
    batch, plan.num_slots, height, width, plan.num_sinks, plan.block
  )


def placer(config: DiTConfig, height: int, width: int):
  """The `place` that `sampling.step` wants, for height x width latents."""
  rows, columns = height // config.patch, width // config.patch

  def place(cache, positions):
    angle = rope.angles(
      positions, rows, columns, config.head_dim, config.rope_theta
    )
    return kv_cache.place(cache, angle)

  return place
