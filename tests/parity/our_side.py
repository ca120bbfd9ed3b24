"""What our networks make of every case."""

import functools
import itertools

import cases
import fixture_cases
import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax import orders
from unitemp_jax.convert import parity, rollout
from unitemp_jax.diffusion import flow
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder


def params(kind, config):
  """Our tree of the weights that PyTorch's side has."""
  return cases.our_params(kind, config, cases.state_dict(kind, config))


def velocity(config, tree, x, sigma, text):
  """The velocity of the whole network, all frames seeing each other."""

  def run(m, x, sigma, text):
    return m(x, sigma, jnp.arange(x.shape[1]), m.text_context(text))[0]

  run = jax.jit(functools.partial(DiT(config).apply, method=run))
  return np.asarray(run({'params': tree}, x, sigma, text), np.float32)


def dit(config, grid, tokens, batch=1):
  inputs = cases.dit_input(config, grid, tokens, batch)
  return {'velocity': velocity(config, params('dit', config), *inputs)}


def vae(config, video, latents):
  tree = params('vae', config)
  x, z = cases.video(*video), cases.latents(*latents)
  run = parity.in_chunks
  return {
    'latents': run(config, tree, 'encode', x, [x.shape[1]]),
    'pixels': run(config, tree, 'decode', z, [z.shape[1]]),
  }


def umt5(config, tokens):
  ids, mask = cases.text_ids(config, tokens)
  tree = params('umt5', config)
  run = jax.jit(TextEncoder(config).apply)
  return {'embeddings': np.asarray(run({'params': tree}, ids, mask))}


def student(config):
  """Velocities with the cache that generation uses, block after block."""
  frames, block = cases.STUDENT_GRID[0], cases.STUDENT_BLOCK
  plan = orders.forward(frames, block=block, anchors=0)
  made = rollout.cached_velocities(
    *(config, params('dit', config), plan, *cases.student_input(config)),
    cases.STUDENT_LEVELS,
  )
  return {f'level{i}': velocity for i, velocity in enumerate(made)}


def student_masked(config):
  """The same in one masked pass per level, as its training runs."""
  mask = rollout.frame_mask(cases.student_blocks())
  made = rollout.masked_velocities(
    *(config, params('dit', config), mask, *cases.student_input(config)),
    cases.STUDENT_LEVELS,
  )
  return {f'level{i}': velocity for i, velocity in enumerate(made)}


def euler(steps, shift):
  levels = flow.euler_sigmas(steps, shift)
  x, path = cases.latents(1, 2, 2), []
  for a, b in itertools.pairwise(levels):
    v = cases.toy_velocity(x, a)
    x = flow.euler_step(x, v, np.full((1, 1), a), np.full((1, 1), b))
    path.append(np.asarray(x))
  return {'levels': levels, 'path': np.stack(path)}


def unipc(steps, shift):
  levels = flow.unipc_sigmas(steps, shift)
  told = flow.unipc_timesteps(steps, shift)
  table = flow.unipc_table(levels)
  x, path = cases.latents(1, 2, 2), []
  state = (x, 0 * x, 0 * x)
  for i in range(steps):
    v = cases.toy_velocity(x, told[i])
    x0 = flow.to_x0(x, v, np.full((1, 1), levels[i]))
    x, state = flow.unipc_step(table[i], float(i == 0), x, x0, state)
    path.append(np.asarray(x))
  return {'levels': levels, 'told': told, 'path': np.stack(path)}


def make(name: str) -> dict[str, np.ndarray]:
  """The outputs of a case of `fixture_cases.CASES`."""
  case = fixture_cases.CASES[name]
  return globals()[case.function](**case.arguments)
