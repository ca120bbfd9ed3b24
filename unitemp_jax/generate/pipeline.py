"""From prompts to pixels with a finished model."""

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax import plans, solvers
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.generate import (
  decode,
  model_folder,
  network,
  sampler,
  teacher,
)
from unitemp_jax.generate.step import StepOptions
from unitemp_jax.models import text_to_video, vae3d, weights
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.plans import Plan
from unitemp_jax.training import mesh as device_mesh


@dataclasses.dataclass(frozen=True)
class Generated:
  """What one plan made for a batch.

  Attributes:
    latents: the plan's buffer, `[B, entries, h, w, C]`.
    anchors: of every row, `[J, B, P, h, w, C]`.
    plan: what was run.
  """

  latents: np.ndarray
  anchors: np.ndarray
  plan: Plan

  @property
  def timeline(self) -> np.ndarray:
    """Latents in temporal order, `[B, N, h, w, C]`."""
    return self.latents[:, self.plan.timeline()[1]]


class Pipeline:
  """A model on the devices; its programs are compiled once per shape."""

  def __init__(
    self,
    card: model_folder.ModelCard,
    params: dict,
    tokenizer: Tokenizer,
    model_hash: str,
  ):
    """Puts a model on all devices.

    Args:
      card: its sizes.
      params: trees by name: `vae`, `text`, `student`, and `teacher` if that is
        to be sampled.
      tokenizer: of its prompts.
      model_hash: what finished clips name the model by.
    """
    self.card = card
    self.hash = model_hash
    self.tokenizer = tokenizer
    self._vae = vae3d.VAE(card.vae)
    self._dit = DiT(card.dit)
    self._text = TextEncoder(card.text)
    self._mesh = device_mesh.make_mesh({'data': -1})
    self.grid = vae3d.latent_grid(card.vae, card.height, card.width)
    self.num_latents = vae3d.num_latents(card.frames, card.vae.temporal_stride)
    everywhere = jax.sharding.NamedSharding(
      self._mesh, jax.sharding.PartitionSpec()
    )
    self._params = jax.device_put(params, everywhere)
    self.levels = solvers.student_levels(card.timesteps, card.shift)
    self._sample = jax.jit(self._sample_fn)
    self._decode = jax.jit(self._decode_fn)
    self._encode = jax.jit(self._encode_fn)
    self._teach = jax.jit(self._teacher_fn, static_argnames='num_steps')

  @classmethod
  def load(cls, folder: str | Path = model_folder.TINY) -> 'Pipeline':
    """Loads a model folder.

    Raises:
      UserError: a file is missing or does not fit.
    """
    folder = Path(folder)
    card = model_folder.read_card(folder)
    model_hash = model_folder.fingerprint(folder)
    shapes = model_folder.param_shapes(card)
    params = {
      name: weights.load(folder / f'{name}.safetensors', tree)
      for name, tree in shapes.items()
      if name != 'teacher' or (folder / f'{name}.safetensors').exists()
    }
    tokenizer = Tokenizer.from_file(folder / 'tokenizer.json')
    return cls(card, params, tokenizer, model_hash)

  def replaced(self, **params) -> 'Pipeline':
    """The same programs with other weights of the same shapes."""
    other = copy.copy(self)
    other._params = {**self._params, **params}
    return other

  @property
  def noise_shape(self) -> tuple[int, ...]:
    """Latents of one clip, `(N, h, w, C)`."""
    return (self.num_latents, *self.grid, self.card.dit.channels)

  def _spread(self, rows: np.ndarray) -> jax.Array:
    """Puts rows on the devices, split if they divide evenly."""
    rows = np.asarray(rows)
    if rows.shape[0] % self._mesh.size == 0:
      return device_mesh.put_batch(rows, self._mesh)
    return jnp.asarray(rows)

  def tokens(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask `[B, E]`; UserError for an empty prompt."""
    return self.tokenizer.encode(list(prompts), self.card.text.length)

  def _text_fn(self, params, ids, mask):
    return text_to_video.encode_text(self._text, params['text'], ids, mask)

  def _sample_fn(self, params, plan, latents, ids, mask, seeds):
    dit, (height, width) = self._dit, self.grid
    net = network.make_net(
      dit, params['student'], self._text_fn(params, ids, mask)[None]
    )
    tokens = self.card.dit.tokens_per_frame(height, width)
    return sampler.run_plan(
      network.cached_denoise(dit),
      network.committer(tokens),
      net,
      plan,
      self.card.dit.new_cache(ids.shape[0], plan.num_slots, height, width),
      latents,
      jax.vmap(jax.random.key)(seeds),
      self.levels,
      options=StepOptions(draft_from=int(self.card.anchor_kind == 'windowed')),
    )

  def generate(
    self,
    prompts: Sequence[str],
    seeds: Sequence[int],
    plan: Plan,
    given: np.ndarray | None = None,
  ) -> Generated:
    """Runs a plan for a batch of prompts, each with its own seed.

    Args:
      prompts: one per sample.
      seeds: one per sample, 0 .. 2**32 - 1.
      plan: checked rows; plans of equal shape share one compilation.
      given: latents of `plan.preloaded()`, `[B, K, h, w, C]`, in its order.

    Raises:
      UserError: an empty prompt, a bad plan, or given latents that are missing.
    """
    plans.check(plan)
    ids, mask = self.tokens(prompts)
    shape = (len(prompts), plan.num_latents, *self.noise_shape[1:])
    buffer = np.zeros(shape, np.float32)
    positions, entries = plan.preloaded()
    if len(entries):
      if given is None or given.shape[1] != len(entries):
        raise UserError(
          f'this order is conditioned on {len(entries)} latents (positions '
          f'{positions.tolist()}); give the frames they code.'
        )
      buffer[:, entries] = given
    latents, anchors = self._sample(
      self._params,
      jax.tree.map(jnp.asarray, plan),
      self._spread(buffer),
      self._spread(ids),
      self._spread(mask),
      self._spread(np.asarray(seeds, np.uint32)),
    )
    return Generated(np.asarray(latents), np.asarray(anchors), plan)

  def _teacher_fn(self, params, ids, mask, noise, num_steps):
    text = self._text_fn(params, ids, mask)
    dit_params = params['teacher']

    def velocity(text):
      context = text_to_video.text_context(self._dit, dit_params, text)
      return lambda x, sigma: text_to_video.bidirectional(
        self._dit, dit_params, x, sigma, context
      )

    return teacher.sample_teacher(
      velocity(text),
      velocity(jnp.zeros_like(text)),
      noise,
      num_steps=num_steps,
      shift=self.card.teacher_shift,
      guidance=self.card.guidance,
    )

  def sample_teacher(
    self, prompts: Sequence[str], seeds: Sequence[int], num_steps: int = 50
  ) -> np.ndarray:
    """Latents `[B, N, h, w, C]` of the bidirectional teacher.

    Raises:
      UserError: the model came without its teacher, or an empty prompt.
    """
    if 'teacher' not in self._params:
      raise UserError('this model folder has no teacher.safetensors to sample.')
    ids, mask = self.tokens(prompts)
    keys = sampler.sample_keys(seeds)
    noise = jax.vmap(lambda key: jax.random.normal(key, self.noise_shape))(keys)
    latents = self._teach(
      self._params,
      self._spread(ids),
      self._spread(mask),
      self._spread(np.asarray(noise)),
      num_steps=num_steps,
    )
    return np.asarray(latents)

  def _decode_fn(self, params, latents):
    frames, _ = self._vae.apply({'params': params}, latents, method='decode')
    return jnp.round((frames + 1.0) * 127.5).astype(jnp.uint8)

  def _encode_fn(self, params, video):
    pixels = video.astype(jnp.float32) / 127.5 - 1.0
    return self._vae.apply({'params': params}, pixels, method='encode')[0]

  def decode(self, latents: np.ndarray) -> np.ndarray:
    """Latents `[B, F, h, w, C]` to uint8 `[B, 1 + 4 (F - 1), H, W, 3]`."""
    return np.asarray(self._decode(self._params['vae'], self._spread(latents)))

  def encode(self, video: np.ndarray) -> np.ndarray:
    """uint8 clips `[B, 1 + 4k, H, W, 3]` to latents; UserError for a bad size.

    A clip is encoded by itself: its first latent is an image latent.
    """
    height, width = video.shape[2:4]
    try:
      vae3d.num_latents(video.shape[1], self.card.vae.temporal_stride)
      vae3d.latent_grid(self.card.vae, height, width)
    except ValueError as error:
      raise UserError(f'a given clip does not fit the VAE: {error}.') from error
    return np.asarray(self._encode(self._params['vae'], self._spread(video)))

  def stream(self, made: Generated) -> np.ndarray:
    """Frames of every row decoded as it was made, in temporal order."""
    pieces = decode.stream(self.decode, made.plan, made.latents, made.anchors)
    return decode.compose(pieces)
