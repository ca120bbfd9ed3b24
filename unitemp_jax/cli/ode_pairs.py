"""`unitemp ode_pairs`: a teacher's way from noise to clips, to train on."""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax import files
from unitemp_jax.cli.config_args import load_config, parse_with_overrides
from unitemp_jax.cli.encode_prompts import part_of, read_prompts
from unitemp_jax.data import latents
from unitemp_jax.data.prompt_embeddings import PromptEmbeddings
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.generate.clip_records import ClipRecorder
from unitemp_jax.generate.prompt_encoder import fingerprint
from unitemp_jax.models import sizes, text_to_video
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.parallel.compile_cache import enable_compile_cache
from unitemp_jax.parallel.mesh import make_mesh, put_batch, row_parts
from unitemp_jax.parallel.sharding_rules import MODEL_RULES
from unitemp_jax.sampling import trajectory
from unitemp_jax.sampling.sampler import sample_keys
from unitemp_jax.sampling.teacher import TeacherSettings
from unitemp_jax.training.programs import builders, lazy_weights
from unitemp_jax.training.programs import networks as program_networks
from unitemp_jax.training.programs.plan_sets import anchor_windows
from unitemp_jax.training.programs.student import student_levels
from unitemp_jax.training.programs.teacher import latent_shape

_SHARD = 64  # clips

_EXAMPLE = """example:
  unitemp ode_pairs prompts.txt --config=configs/wan_1p3b_ode_init.py \\
    --out=data/wan_ode
The teacher is config.teacher, its guidance config.sampling's, and its Euler
steps pass the levels of config.student. config.mesh says how it is split over
the devices of this machine; several machines can make some shards each
(--shard=I/N). Run the same command again to continue after an interruption;
the command that finds all shards writes the index."""


def _parse_args(argv: list[str]):
  parser = argparse.ArgumentParser(
    prog='unitemp ode_pairs',
    description=__doc__,
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('prompts', nargs='+', type=Path, metavar='PROMPTS')
  add('--config', required=True, metavar='FILE[:ARG]')
  add('--out', required=True, type=Path, metavar='DIR')
  add('--steps', type=int, default=48, help='of Euler (default 48)')
  add('--seed', type=int, default=0, help='of the first clip; the next is + 1')
  add('--shard', default=None, metavar='I/N')
  add('--dry_run', action='store_true')
  return parse_with_overrides(parser, argv)


class _Maker:
  """The teacher and the VAE on the devices."""

  def __init__(self, config: ConfigDict, settings: TeacherSettings):
    """Reads all weights; UserError if some are missing or do not fit."""
    self._config, self._settings = config, settings
    self._levels = student_levels(config)
    trajectory.places(self._levels, settings)
    self._mesh = make_mesh(config.mesh)
    self.rows = row_parts(self._mesh)
    vae = _normalised(config)
    self.mean, self.std = vae.latent_mean, vae.latent_std
    self._shape = (*latent_shape(config), vae.z_dim)
    networks = program_networks.frozen_networks(config)
    networks['vae'] = lazy_weights.LazyWeights(
      config.latents.vae, sizes.param_shapes(vae)
    )
    lazy_weights.check(networks)
    self._tokenizer = Tokenizer.from_file(config.latents.tokenizer)
    embeddings = config.latents.get('embeddings')
    self._embeddings = PromptEmbeddings(embeddings) if embeddings else None
    self._networks = lazy_weights.load(networks, self._mesh, MODEL_RULES)
    windows = anchor_windows(config.orders, config.data.num_frames)
    self._recorder = ClipRecorder(vae, self._networks['vae'], windows)
    self._dit = DiT(program_networks.teacher_config(config))
    self._encoder = TextEncoder(builders.text_config(config.model))
    self._run = jax.jit(self._run_fn)

  def _run_fn(self, networks, noise, batch):
    text = text_to_video.batch_text(self._encoder, networks['text'], batch)
    other = jnp.zeros_like(text)
    if networks['negative']:
      one = text_to_video.batch_text(
        self._encoder, networks['text'], networks['negative']
      )
      other = jnp.broadcast_to(one.astype(text.dtype), text.shape)

    def velocity(text):
      context = text_to_video.text_context(self._dit, networks['teacher'], text)
      return lambda x, sigma: text_to_video.bidirectional(
        self._dit, networks['teacher'], x, sigma, context
      )

    return trajectory.sample(
      velocity(text), velocity(other), noise, self._settings, self._levels
    )

  def __call__(self, prompts: list[str], seeds: list[int]) -> list[dict]:
    """The records of `rows` clips."""
    length = self._config.model.text.length
    ids, mask = self._tokenizer.encode(prompts, length)
    batch = {'ids': ids.astype(np.int32), 'mask': mask.astype(bool)}
    given: dict[str, Any] = batch
    if self._embeddings is not None:
      given = {'text': self._embeddings.lookup(ids, mask)}
    noise = jax.vmap(lambda key: jax.random.normal(key, self._shape))(
      sample_keys(seeds)
    )
    with jax.set_mesh(self._mesh):
      states = self._run(
        self._networks,
        put_batch(np.asarray(noise), self._mesh),
        put_batch(given, self._mesh),
      )
    states = np.moveaxis(np.asarray(states), 0, 1)
    return [
      {**self._record(one), **{name: batch[name][i] for name in batch}}
      for i, one in enumerate(states)
    ]

  def _record(self, states: np.ndarray) -> dict[str, np.ndarray]:
    """One clip's arrays, as `data.latents` describes them."""
    clip = states[-1]
    return self._recorder.record(
      clip, self._recorder.decode(clip), trajectory=states[:-1]
    )


def _normalised(config: ConfigDict):
  """The VAE with the statistics that the teacher knows."""
  vae = builders.vae_config(config.model)
  return vae if vae.latent_mean else program_networks.normalised_vae(config)


def _about(args, config: ConfigDict, prompts: list[str]) -> dict[str, Any]:
  digest = files.sha256('\n'.join(prompts))[:16]
  about = {
    'prompts': digest,
    'clips': len(prompts),
    'teacher': fingerprint(Path(config.teacher)),
    'steps': args.steps,
    'seed': args.seed,
    'shift': config.student.shift,
    'guidance': config.sampling.guidance,
  }
  windows = anchor_windows(config.orders, config.data.num_frames)
  about['windows'] = [[window.start, window.stop] for window in windows]
  return about


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: bad config, weights or prompts, or `--out` holds other clips.
  """
  args, overrides = _parse_args(argv)
  config = load_config(args.config, overrides)
  if 'student' not in config or 'latents' not in config:
    raise UserError(
      f'{args.config} trains no student; use a config such as '
      'configs/wan_1p3b_ode_init.py.'
    )
  # It is among the prompts to be encoded, and nothing to make clips of.
  negative = config.sampling.get('negative_prompt')
  prompts = [line for line in read_prompts(args.prompts) if line != negative]
  first, parts = part_of(args.shard)
  shards = -(-len(prompts) // _SHARD)
  settings = TeacherSettings(
    args.steps, config.student.shift, config.sampling.guidance
  )
  maker = _Maker(config, settings)
  about = _about(args, config, prompts)
  index = args.out / latents.INDEX
  if index.exists():
    old = latents.read_index(args.out)
    if any(old.get(key) != value for key, value in about.items()):
      raise UserError(
        f'{args.out} holds clips of another teacher or other prompts; choose '
        'another --out.'
      )
    print(f'nothing to do: {index}')
    return 0
  print(f'{len(prompts)} trajectories in {shards} shards to {args.out}')
  if args.dry_run:
    return 0
  enable_compile_cache()
  args.out.mkdir(parents=True, exist_ok=True)
  _make(args, maker, prompts, range(first, shards, parts))
  paths = [latents.shard_path(args.out, shard) for shard in range(shards)]
  if all(path.exists() for path in paths):
    statistics = (maker.mean, maker.std)
    print(latents.write_index(args.out, shards, about, statistics))
  return 0


def _make(args, maker: _Maker, prompts: list[str], shards: range) -> None:
  """Writes the shards that are missing."""
  start = time.monotonic()
  todo = [s for s in shards if not latents.shard_path(args.out, s).exists()]
  for done, shard in enumerate(todo, start=1):
    numbers = range(shard * _SHARD, min((shard + 1) * _SHARD, len(prompts)))
    records: list[dict] = []
    for begin in range(0, len(numbers), maker.rows):
      some = list(numbers[begin : begin + maker.rows])
      # The last batch is filled up, so that all share one compilation.
      rows = some + some[-1:] * (maker.rows - len(some))
      made = maker(
        [prompts[i] for i in rows], [(args.seed + i) % 2**32 for i in rows]
      )
      records += made[: len(some)]
    latents.write_shard(latents.shard_path(args.out, shard), records)
    left = (time.monotonic() - start) / done * (len(todo) - done)
    print(f'shard {done}/{len(todo)}, {left:.0f} s left', flush=True)
