"""What our networks make of every case."""

import itertools

import cases
import fixture_cases
import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.convert import parity
from unitemp_jax.diffusion import flow
from unitemp_jax.models.dit import DiT
from unitemp_jax.sampling import sampler


def params(kind, config):
  """Our tree of the weights that PyTorch's side has."""
  return cases.our_params(kind, config, cases.state_dict(kind, config))


def dit(config, grid, tokens, batch=1):
  inputs = cases.dit_input(config, grid, tokens, batch)
  return {'velocity': parity.velocity(config, params('dit', config), *inputs)}


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
  return {'embeddings': parity.embeddings(config, tree, ids, mask)}


def student(config):
  """Velocities with the cache that generation uses, block after block."""
  clean, noisy, text = cases.student_input(config)
  dit, tree = DiT(config), params('dit', config)
  frames, height, width = cases.STUDENT_GRID
  net = sampler.make_net(dit, tree, jnp.asarray(text)[None])
  denoise = jax.jit(sampler.cached_denoise(dit))
  tokens = config.tokens_per_frame(height, width)
  commit = sampler.committer(tokens)
  block = cases.STUDENT_BLOCK
  made = {f'level{i}': [] for i in range(len(cases.STUDENT_LEVELS))}
  cache = config.new_cache(1, frames, height, width)
  for start in range(0, frames, block):
    here = slice(start, start + block)
    positions = jnp.arange(start, start + block)

    def run(x, sigma, cache, positions=positions, start=start):
      sigma = jnp.full((1, block), sigma)
      return denoise(net, x, sigma, positions, 0, cache, start, start + block)

    for i, sigma in enumerate(cases.STUDENT_LEVELS):
      made[f'level{i}'].append(run(noisy[:, here], sigma, cache)[0])
    cache = run(clean[:, here], 0.0, cache)[1]
    cache = commit(cache, start, positions)
  return {k: np.concatenate(v, axis=1) for k, v in made.items()}


def student_masked(config):
  """The same in one masked pass per level, as its training runs."""
  clean, noisy, text = cases.student_input(config)
  frames = cases.STUDENT_GRID[0]
  dit, tree = DiT(config), params('dit', config)
  mask = cases.frame_mask(np.arange(frames) // cases.STUDENT_BLOCK)

  @jax.jit
  def run(sigma):
    context = dit.apply({'params': tree}, text, method='text_context')
    velocity, _ = dit.apply(
      {'params': tree},
      np.concatenate([clean, noisy], axis=1),
      jnp.repeat(jnp.stack([0.0, sigma]), frames)[None],
      jnp.tile(jnp.arange(frames), 2),
      context,
      mask_BFF=mask[None],
    )
    return velocity[:, frames:]

  return {
    f'level{i}': run(jnp.float32(sigma))
    for i, sigma in enumerate(cases.STUDENT_LEVELS)
  }


def euler(steps, shift):
  levels = flow.euler_levels(steps, shift)
  x, path = cases.latents(1, 2, 2), []
  for a, b in itertools.pairwise(levels):
    v = cases.toy_velocity(x, a)
    x = flow.euler_step(x, v, np.full((1, 1), a), np.full((1, 1), b))
    path.append(np.asarray(x))
  return {'levels': levels, 'path': np.stack(path)}


def unipc(steps, shift):
  levels = flow.unipc_levels(steps, shift)
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
