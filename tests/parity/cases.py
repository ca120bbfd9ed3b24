"""Networks and inputs that both sides of the parity tests make alike."""

import dataclasses
import zlib
from typing import Any

import numpy as np
import parity_numbers

from unitemp_jax import convert
from unitemp_jax.convert import checkpoints, fit, keymap, wan
from unitemp_jax.convert.incoming import Layers
from unitemp_jax.diffusion import flow
from unitemp_jax.models import sizes
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.models.vae3d import VAEConfig

# Of Wan 2.1's VAE, the same in both PyTorch implementations.
LATENT_MEAN = (
  *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
  *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENT_STD = (
  *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
  *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)

DIT_TINY = DiTConfig(
  dim=48, ffn_dim=80, num_heads=2, num_layers=3, text_dim=24, freq_dim=32
)
VAE_FULL = VAEConfig(latent_mean=LATENT_MEAN, latent_std=LATENT_STD)
# The full structure, narrow.
VAE_NARROW = dataclasses.replace(VAE_FULL, base_dim=4)
UMT5_TINY = TextConfig(
  vocab=64, dim=32, num_heads=4, head_dim=8, ffn_dim=40, num_layers=3
)
# The vocabulary is cut: a table of 256,384 rows is 4 GiB and only looked up.
UMT5_WIDE = TextConfig(vocab=512, num_layers=2)
# Nine latents of 4x4 are three blocks of the student.
STUDENT_GRID, STUDENT_BLOCK = (9, 4, 4), 3
STUDENT_LEVELS = tuple(map(float, flow.student_sigmas()[:-1]))


def dit_wide(layers: int) -> DiTConfig:
  """The width of the 1.3B model."""
  return DiTConfig(num_layers=layers)


def torch_shapes(kind: str, config: Any, layout: str = 'diffusers') -> dict:
  """Names and shapes in a PyTorch layout, by our table."""
  entries = keymap.entries(wan.TABLES[kind], layout, sizes.param_shapes(config))
  return {entry.name: entry.shape for entry in entries}


def state_dict(kind: str, config: Any) -> dict[str, np.ndarray]:
  """Random weights in diffusers' layout."""
  return parity_numbers.weights(torch_shapes(kind, config))


def our_params(kind: str, config: Any, state: dict) -> Any:
  """The same weights as our tree."""
  return convert.load_torch(state, kind, sizes.param_shapes(config))


def our_layers(kind: str, config: Any, state: dict) -> Layers:
  """The same, read a part at a time."""
  found = fit.find(checkpoints.open_checkpoint(state), kind)
  return Layers(found, fit.check(found, sizes.param_shapes(config)))


def digest(kind: str, config: Any) -> int:
  """One number that changes with any name or shape of the layout."""
  text = repr(sorted(torch_shapes(kind, config).items()))
  return zlib.crc32(text.encode())


def sampled(x: np.ndarray, count: int = 3000) -> np.ndarray:
  """So many entries, at places that follow no axis; all if there are fewer."""
  flat = np.asarray(x, np.float32).reshape(-1)
  if flat.size <= count:
    return flat
  return flat[np.random.PCG64(7).random_raw(count) % flat.size]


def dit_input(config: DiTConfig, grid, tokens: int, batch: int = 1):
  """Noisy latents, a noise level for every frame, a text with padding."""
  levels = np.float32([1.0, 0.9375, 0.8333333, 0.625, 0.3, 0.02])
  x = parity_numbers.uniform('latents', (batch, *grid, config.channels))
  sigma = np.resize(levels, (batch, grid[0])).astype(np.float32)
  text = parity_numbers.uniform('text', (batch, tokens, config.text_dim))
  text[:, -(tokens // 3) :] = 0
  return x, sigma, text


def student_input(config: DiTConfig):
  """Clean latents, noisy ones, and a text."""
  shape = (1, *STUDENT_GRID, config.channels)
  clean, noisy = (parity_numbers.uniform(n, shape) for n in ('clean', 'noisy'))
  return clean, noisy, dit_input(config, STUDENT_GRID, 9)[2]


def student_blocks() -> np.ndarray:
  """The block of every frame of the student's input."""
  return np.arange(STUDENT_GRID[0]) // STUDENT_BLOCK


def video(frames: int, height: int, width: int) -> np.ndarray:
  """Pixels in (-0.9, 0.9)."""
  return 0.5 * parity_numbers.uniform('video', (1, frames, height, width, 3))


def latents(frames: int, height: int, width: int) -> np.ndarray:
  """Normalised latents."""
  return parity_numbers.uniform('z', (1, frames, height, width, 16))


def text_ids(config: TextConfig, tokens: int):
  """Two texts, one of them with padding."""
  ids = np.abs(parity_numbers.uniform('ids', (2, tokens)) * 1e6)
  mask = np.arange(tokens)[None] < np.array([[tokens], [tokens // 3]])
  return ids.astype(np.int32) % config.vocab, mask


def toy_velocity(x: np.ndarray, level: float) -> np.ndarray:
  """A velocity that bends, for the samplers."""
  return (np.tanh(1.5 * x) + 0.3 * np.cos(5 * level) - 0.5 * x).astype(
    np.float32
  )
