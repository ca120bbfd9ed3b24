"""A rollout in PyTorch and ours, from the noise of one file."""

import importlib.util
import pathlib

import cases
import jax
import jax.numpy as jnp
import numpy as np
import parity_numbers
import pytest

from unitemp_jax import orders
from unitemp_jax.convert import rollout
from unitemp_jax.generate import noise
from unitemp_jax.models.dit import DiT
from unitemp_jax.plans import text as plan_text
from unitemp_jax.sampling import sampler
from unitemp_jax.sampling.step import DEFAULTS
from unitemp_jax.sampling.stream import RowPrograms, Rows

torch = pytest.importorskip('torch')
pytest.importorskip('diffusers')

import torch_side  # noqa: E402

LAUNCH = pathlib.Path(__file__).parents[2] / 'launch'
CONFIG, SIGMAS = cases.DIT_TINY, cases.STUDENT_LEVELS
HEIGHT, WIDTH = 4, 4
TEXT = cases.dit_input(CONFIG, (1, HEIGHT, WIDTH), 9)[2]


class TorchPipeline:
  """A few-step rollout in PyTorch, spoken to as Self-Forcing's pipeline is.

  Attributes:
    denoising_step_list: sigmas of the passes.
    num_frame_per_block: latents per block.
    predictions: of every pass, by (block, level), `BFHWC`.
  """

  def __init__(self, module, sigmas, block: int, window=None):
    """Of diffusers' transformer in float32; see `frame_mask`."""
    self.module, self.window = module, window
    self.denoising_step_list = list(sigmas)
    self.num_frame_per_block = block
    self.predictions: dict[tuple[int, int], np.ndarray] = {}

  def inference(self, noise, text_prompts, independent_first_frame=False):
    """Latents `BFCHW` (torch) of noise `BFCHW`; prompts are embeddings."""
    frames, block = noise.shape[1], self.num_frame_per_block
    blocks = np.arange(frames) // block
    if independent_first_frame:
      blocks = (np.arange(frames) + block - 1) // block
    mask = rollout.frame_mask(blocks, self.window)
    noisy = np.moveaxis(noise.numpy(), 2, -1)
    clean = np.zeros_like(noisy)
    for number in range(blocks[-1] + 1):
      here = np.flatnonzero(blocks == number)
      x = noisy.copy()
      for level, sigma in enumerate(self.denoising_step_list):
        v = rollout.torch_velocity(
          self.module, clean, x, sigma, text_prompts, mask
        )
        x0 = x[:, here] - sigma * v[:, here]
        self.predictions[number, level] = x0
        if level + 1 < len(self.denoising_step_list):
          # As its scheduler's add_noise: frames and batch are one axis.
          flat = torch.from_numpy(np.moveaxis(x0, -1, 2)).flatten(0, 1)
          draw = torch.randn_like(flat).unflatten(0, (len(x), len(here)))
          fresh = np.moveaxis(draw.numpy(), 2, -1)
          low = self.denoising_step_list[level + 1]
          x[:, here] = (1 - low) * x0 + low * fresh
      clean[:, here] = x0
    return torch.from_numpy(np.moveaxis(clean, -1, 2).copy())


def recorder():
  """The script as a user of Self-Forcing has it: a file by itself."""
  path = LAUNCH / 'self_forcing_noise.py'
  spec = importlib.util.spec_from_file_location('self_forcing_noise', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='module')
def network():
  return torch_side.module('dit', CONFIG)


@pytest.fixture(scope='module')
def params():
  return cases.our_params('dit', CONFIG, cases.state_dict('dit', CONFIG))


# Name -> latents, those of the first block, window: the first frame alone
# (1 + 3 + 3), Self-Forcing's local_attn_size 6.
ROLLOUTS = {
  'first alone': (7, 1, None),
  'windowed': (9, 3, orders.local_window(6, block=3)),
}


@pytest.mark.parametrize('name', ROLLOUTS)
def test_rollouts_from_one_file_agree(name, network, params, tmp_path):
  frames, first, window = ROLLOUTS[name]
  pipeline = TorchPipeline(network, SIGMAS, 3, window)
  initial = parity_numbers.uniform(name, (1, frames, 16, HEIGHT, WIDTH))
  torch.manual_seed(0)
  latents = recorder().record(
    pipeline,
    tmp_path / 'noise.npz',
    noise=torch.from_numpy(initial),
    text_prompts=TEXT,
    independent_first_frame=first == 1,
  )
  drawn = noise.read(tmp_path / 'noise.npz')
  assert drawn.shape == (len(SIGMAS), frames, HEIGHT, WIDTH, 16)

  settings = {'anchors': 0, 'window': window}
  if first == 1:
    settings['prompts'] = [(1, 0)]
  plan = plan_text.from_json(
    plan_text.to_json(orders.forward(frames, **settings))
  )
  net = sampler.make_net(DiT(CONFIG), params, jnp.asarray(TEXT)[None])

  def run(sigmas, finished, given):
    programs = RowPrograms(DiT(CONFIG), np.float32(sigmas), DEFAULTS)
    rows = Rows(
      *(programs, {0: net}, plan, {}, (HEIGHT, WIDTH), 0, jax.device_put, given)
    )
    return {made.row: made for made in rows.run(finished)}

  made = run([*SIGMAS, 0.0], {}, drawn)
  own = [row for row in made if not plan.conditioning[row]]
  ours = np.concatenate([made[row].latents for row in own], axis=1)
  theirs = np.moveaxis(latents.numpy(), 2, -1)
  np.testing.assert_allclose(ours, theirs, atol=1e-4)
  assert len(pipeline.predictions) == len(own) * len(SIGMAS)
  for number, row in enumerate(own):
    finished = {other: made[other] for other in own if other != row}
    for level in range(len(SIGMAS) - 1):
      # A schedule that ends early takes the estimate of an earlier pass.
      early = run([*SIGMAS[: level + 1], 0.0], finished, drawn)[row].latents
      wanted = pipeline.predictions[number, level]
      np.testing.assert_allclose(early, wanted, atol=1e-4)
  # Negative control: other draws give another video.
  other = run([*SIGMAS, 0.0], {}, drawn[::-1])[own[0]].latents
  assert abs(other - theirs[:, : other.shape[1]]).max() > 0.05


def test_rollout_rows_pass_and_can_fail(network, params):
  inputs = parity_numbers.uniform('r', (1, 6, HEIGHT, WIDTH, 16)), TEXT, 2
  found = rollout.rows(CONFIG, params, network, *inputs)
  kinds = ('cached', 'masked', 'windowed cached', 'windowed masked')
  assert {row.module.rpartition(' rollout')[0] for row in found} == {
    f'network, {kind}' for kind in kinds
  }
  assert all(row.passed for row in found)
  network.blocks[1].norm2.weight.data *= 1.01
  try:
    found = rollout.rows(CONFIG, params, network, *inputs)
  finally:
    network.blocks[1].norm2.weight.data /= 1.01
  assert not any(row.passed for row in found)


def test_what_a_window_sees():
  """Two latents before each block, as Self-Forcing's local_attn_size 4."""
  mask = rollout.frame_mask(np.arange(6) // 2, window=2)
  clean, noisy = mask[:6, :6].astype(int), mask[6:].astype(int)
  assert clean[4].tolist() == [0, 0, 1, 1, 1, 1]
  assert noisy[4].tolist() == [0, 0, 1, 1, 0, 0] + [0, 0, 0, 0, 1, 1]
