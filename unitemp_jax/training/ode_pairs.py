"""ODE trajectories of the teacher, as records to train students on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax import files, progress, storage
from unitemp_jax.data import latents
from unitemp_jax.data.prompt_embeddings import PromptEmbeddings
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.diffusion import guidance
from unitemp_jax.generate.encode_prompts import fingerprint
from unitemp_jax.models import sizes, umt5, weights
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.models.weights import LazyWeights
from unitemp_jax.parallel.mesh import (
  MODEL_RULES,
  make_mesh,
  put_batch,
  row_parts,
)
from unitemp_jax.sampling import teacher
from unitemp_jax.sampling.sampler import sample_keys
from unitemp_jax.sampling.teacher import TeacherSettings
from unitemp_jax.training.encode import ClipRecorder
from unitemp_jax.training.programs import builders, networks

_SHARD = 64  # clips


def write(
  config: ConfigDict,
  prompts: Sequence[str],
  out: Path,
  *,
  steps: int,
  seed: int = 0,
  part: tuple[int, int] = (0, 1),
  dry_run: bool = False,
) -> Path | None:
  """Writes the trajectories of prompts in shards, and goes on where it was.

  Args:
    config: of a student that is to be trained on them.
    prompts: one for each clip.
    out: folder of the shards.
    steps: of Euler.
    seed: of the first clip; the next is + 1.
    part: (i, n), every n-th shard from the i-th on.
    dry_run: only prints what would be made.

  Returns:
    The index, None while there are shards to be made.
  """
  first, parts = part
  count = -(-len(prompts) // _SHARD)
  maker = TrajectoryMaker(config, steps)
  about = maker.about(prompts, seed)
  if latents.is_complete(out, about, 'another teacher or other prompts'):
    print(f'nothing to do: {out / latents.INDEX}')
    return None
  latents.check_started(out, about)
  print(f'{len(prompts)} trajectories in {count} shards to {out}')
  if dry_run:
    return None
  latents.start(out, about)
  paths = [latents.shard_path(out, shard) for shard in range(count)]
  todo = [s for s in range(first, count, parts) if not paths[s].exists()]
  for shard in progress.track(todo, 'shard'):
    end = min((shard + 1) * _SHARD, len(prompts))
    records: list[dict] = []
    for i in range(shard * _SHARD, end, maker.rows):
      some = prompts[i : min(i + maker.rows, end)]
      records += maker.make(some, seed + i)
    latents.write_shard(paths[shard], records)
  if len(storage.existing(paths)) < count:
    return None
  return latents.write_index(out, count, about, maker.statistics)


class TrajectoryMaker:
  """Samples trajectories with the teacher and VAE of a config, on its mesh.

  Attributes:
    rows: clips per call.
    statistics: mean and standard deviation of the latents.
  """

  def __init__(self, config: ConfigDict, steps: int):
    self._config = config
    self._settings = TeacherSettings(
      steps, config.student.shift, guidance.config_scale(config, 'sampling')
    )
    self._sigmas = builders.student_sigmas(config)
    teacher.places(self._sigmas, self._settings)
    self._mesh = make_mesh(config.mesh)
    self.rows = row_parts(self._mesh)
    vae = builders.vae_config(config.model)
    if not vae.latent_mean:
      vae = networks.normalised_vae(config)
    self.statistics = vae.latent_mean, vae.latent_std
    self._shape = (*builders.latent_shape(config), vae.z_dim)
    trees = networks.frozen_networks(config)
    trees['vae'] = LazyWeights(config.latents.vae, sizes.param_shapes(vae))
    weights.check_lazy(trees)
    self._tokenizer = Tokenizer.from_file(config.latents.tokenizer)
    embeddings = config.latents.get('embeddings')
    self._embeddings = PromptEmbeddings(embeddings) if embeddings else None
    self._networks = weights.load_lazy(trees, self._mesh, MODEL_RULES)
    self._windows = builders.anchor_windows(
      config.orders, config.data.num_frames
    )
    self._recorder = ClipRecorder(vae, self._networks['vae'], self._windows)
    self._dit = DiT(networks.teacher_config(config))
    self._encoder = TextEncoder(builders.text_config(config.model))
    self._run = jax.jit(self._run_fn)

  def about(self, prompts: Sequence[str], seed: int) -> dict[str, Any]:
    """Returns what tells one set of trajectories from another."""
    text = '\n'.join(prompts)
    return {
      'prompts': files.sha256(text)[:16],
      'clips': len(prompts),
      'teacher': fingerprint(Path(self._config.teacher)),
      'steps': self._settings.steps,
      'seed': seed,
      'shift': self._settings.shift,
      # Under its former name, which folders that exist have.
      'guidance': self._settings.guidance_scale,
      'windows': [[one.start, one.stop] for one in self._windows],
    }

  def _run_fn(self, trees, noise, batch):
    text = umt5.batch_text(self._encoder, trees['text'], batch)
    other = jnp.zeros_like(text)
    if trees['negative']:
      one = umt5.batch_text(self._encoder, trees['text'], trees['negative'])
      other = jnp.broadcast_to(one.astype(text.dtype), text.shape)
    conditional, unconditional = (
      teacher.velocity_of(self._dit, trees['teacher'], one)
      for one in (text, other)
    )
    scale = self._settings.guidance_scale
    velocity = teacher.guided(conditional, unconditional, scale)
    return teacher.sample_trajectory(
      velocity, noise, self._settings, self._sigmas
    )

  def make(self, prompts: Sequence[str], seed: int) -> list[dict]:
    """Returns the records of clips, as `data.latents` describes them.

    At most `rows` prompts; the first clip has the seed, the next one + 1.
    """
    # Too few are filled up, so that all share one compilation.
    extra = self.rows - len(prompts)
    rows = [*prompts, *[prompts[-1]] * extra]
    ids, mask = self._tokenizer.encode(rows, self._config.model.text.length)
    batch = {'ids': ids.astype(np.int32), 'mask': mask.astype(bool)}
    given: dict[str, Any] = batch
    if self._embeddings is not None:
      given = {'text': self._embeddings.lookup(ids, mask, rows)}
    seeds = list(range(seed, seed + len(prompts)))
    noise = jax.vmap(lambda key: jax.random.normal(key, self._shape))(
      sample_keys(seeds + seeds[-1:] * extra)
    )
    with jax.set_mesh(self._mesh):
      states = self._run(
        self._networks,
        put_batch(np.asarray(noise), self._mesh),
        put_batch(given, self._mesh),
      )
    records = []
    for i in range(len(prompts)):
      *way, clip = np.asarray(states)[:, i]
      (record,) = self._recorder.record(
        clip[None], self._recorder.decode(clip), trajectory=np.stack(way)[None]
      )
      records.append({**record, **{name: batch[name][i] for name in batch}})
    return records
