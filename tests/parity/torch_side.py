"""What PyTorch makes of every case; the fixtures and the live tests use it."""

import cases
import diffusers
import fixture_cases
import numpy as np
import torch

from unitemp_jax.convert import parity, parity_torch, rollout


def module(kind, config, dtype='float32'):
  """PyTorch's network with the weights of `cases.state_dict`."""
  state = cases.state_dict(kind, config)
  return parity_torch.build(kind, config, state, dtype)


@torch.no_grad()
def dit(config, grid, tokens, batch=1):
  """Velocity."""
  inputs = cases.dit_input(config, grid, tokens, batch)
  network = module('dit', config)
  return {'velocity': parity.torch_velocity(network, *inputs, 'float32')}


@torch.no_grad()
def vae(config, video, latents):
  """Normalised latents of a video, pixels of normalised latents."""
  network = module('vae', config)
  mean, std = (np.float32(x) for x in (config.latent_mean, config.latent_std))
  z = parity.torch_encode(network, cases.video(*video))
  raw = cases.latents(*latents) * std + mean
  return {
    'latents': (z - mean) / std,
    'pixels': parity.torch_decode(network, raw),
  }


@torch.no_grad()
def umt5(config, tokens):
  """Embeddings, zero after the end."""
  ids, mask = cases.text_ids(config, tokens)
  network = module('umt5', config)
  return {'embeddings': parity.torch_embeddings(network, ids, mask)}


def student(config):
  """Velocities at every denoising level, over the block-causal mask."""
  clean, noisy, text = cases.student_input(config)
  network, mask = (
    module('dit', config),
    rollout.frame_mask(cases.student_blocks()),
  )
  return {
    f'level{i}': rollout.torch_velocity(
      network, clean, noisy, sigma, text, mask
    )
    for i, sigma in enumerate(cases.STUDENT_LEVELS)
  }


def _sample(scheduler, levels, timesteps):
  """Every sample of a scheduler on the toy velocity."""
  x = cases.latents(1, 2, 2)
  path = []
  for level, t in zip(levels, timesteps, strict=True):
    v = cases.toy_velocity(x, level)
    x = scheduler.step(
      torch.from_numpy(v), t, torch.from_numpy(x), return_dict=False
    )[0].numpy()
    path.append(x)
  return np.stack(path)


def euler(steps, shift):
  """The path of diffusers' Euler on the grid of our levels."""
  scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
  scheduler.set_timesteps(sigmas=list(np.linspace(1, 0, steps + 1)[:-1]))
  levels = scheduler.sigmas.numpy()
  return {
    'levels': levels,
    'path': _sample(scheduler, levels[:-1], scheduler.timesteps),
  }


def unipc(steps, shift):
  """The path of diffusers' UniPC on Wan's own grid."""
  scheduler = diffusers.UniPCMultistepScheduler(
    prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=shift
  )
  first = np.float64(np.float32(0.999))
  scheduler.set_timesteps(sigmas=np.linspace(first, 0, steps + 1)[:-1])
  told = scheduler.timesteps.numpy() / 1000
  return {
    'levels': scheduler.sigmas.numpy(),
    'told': told,
    'path': _sample(scheduler, told, scheduler.timesteps),
  }


def make(name: str) -> dict[str, np.ndarray]:
  """The outputs of a case of `fixture_cases.CASES`."""
  case = fixture_cases.CASES[name]
  return globals()[case.function](**case.arguments)
