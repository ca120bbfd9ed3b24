"""From a config to the programs that `unitemp aot` compiles.

Those of inference are those of `generate`: weights on every device, in the
dtypes that they are used in. `sampler` makes a clip per device in one program.
A streamed video, one clip, is made by `block` and `store`; it is decoded and
encoded in pieces, beside the weights and the cache of the student.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from unitemp_jax import orders, timeline
from unitemp_jax.diffusion import flow
from unitemp_jax.errors import UserError
from unitemp_jax.generate import text as texts
from unitemp_jax.models import flops, sizes, umt5
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.flops import Flops
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.parallel.mesh import (
  MODEL_RULES,
  batch_sharding,
  check_rows,
  make_mesh,
)
from unitemp_jax.plans import Plan
from unitemp_jax.sampling import sampler
from unitemp_jax.sampling.decode import Codec
from unitemp_jax.sampling.model_folder import ModelCard, read_card
from unitemp_jax.sampling.sampler import Net, cache_for, make_net, sample_plan
from unitemp_jax.sampling.stream import RowPrograms
from unitemp_jax.training import flops as training_flops
from unitemp_jax.training import lazy_weights
from unitemp_jax.training.build import build_program
from unitemp_jax.training.program import CompiledSteps, abstract_state
from unitemp_jax.training.programs import builders


@dataclasses.dataclass(frozen=True)
class Step:
  """A program that was not compiled yet.

  Attributes:
    name: of the step.
    lower: traces it; may take seconds.
    arguments: name -> tree of ShapeDtypeStructs with shardings; what it is
      given, by the role that it has.
    resident: likewise; what lies on the devices besides.
    flops: of one run, over all devices.
    loops: turns of loops whose number is decided at run time, at most.
    mesh: sizes of the axes.
    rows: of the batch, over all devices.
    share: how often it is taken in a round of training steps; 0 if it trains
      nothing.
  """

  name: str
  lower: Callable[[], jax.stages.Lowered]
  arguments: Mapping[str, Any]
  resident: Mapping[str, Any]
  flops: Flops
  loops: int
  mesh: Mapping[str, int]
  rows: int
  share: int = 0

  def argument_bytes(self) -> int:
    """Returns the bytes of all arguments on each device."""
    return sum(map(device_bytes, self.arguments.values()))


def device_bytes(tree: Any) -> int:
  """Bytes of a tree of ShapeDtypeStructs on each device."""
  total = 0
  for leaf in jax.tree.leaves(tree):
    shape = leaf.shape
    if leaf.sharding is not None:
      shape = leaf.sharding.shard_shape(shape)
    # Keys of random numbers are two words.
    width = getattr(leaf.dtype, 'itemsize', 8)
    total += math.prod(shape) * width
  return total


def _everywhere(tree: Any, mesh: Mesh) -> Any:
  whole = NamedSharding(mesh, PartitionSpec())
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
    tree,
  )


@dataclasses.dataclass(frozen=True)
class Serving:
  """A finished model on a mesh whose axes but `data` are 1.

  Attributes:
    card: its sizes.
    plan: an order to sample; orders of its shape share the program.
    mesh: of all devices.
    limit: bytes of each.
  """

  card: ModelCard
  plan: Plan
  mesh: Mesh
  limit: float = math.inf

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of a latent."""
    return self.card.latent_grid(self.card.height, self.card.width)

  def _student(self) -> Any:
    return _everywhere(sizes.inference_shapes(self.card.dit), self.mesh)

  def _vae(self) -> Any:
    return _everywhere(sizes.inference_shapes(self.card.vae), self.mesh)

  def _cache(self) -> Any:
    plan = sampler.bucketed(self.plan)
    cache = jax.eval_shape(
      lambda: cache_for(self.card.dit, plan, 1, *self.grid)
    )
    return _everywhere(cache, self.mesh)

  def _step(self, name, jitted, arguments, resident, operations, **more):
    def lower():
      with jax.set_mesh(self.mesh):
        return jitted.lower(*arguments.values())

    axes = dict(self.mesh.shape)
    return Step(name, lower, arguments, resident, operations, mesh=axes, **more)

  def sampler(self) -> Step:
    """A clip per device: all rows of the plan, from text embeddings."""
    card, dit = self.card, DiT(self.card.dit)
    plan, batch = sampler.bucketed(self.plan), self.mesh.size
    last = len(card.timesteps) - 1
    rows = batch_sharding(self.mesh)

    def split(*shape, dtype=jnp.float32):
      shape = (batch, *shape)
      return jax.ShapeDtypeStruct(shape, dtype, sharding=rows)

    def run(student, table, latents, texts, seeds):
      net = make_net(dit, student, texts[None])
      return sample_plan(card, net, table, latents, seeds)

    text = card.text.length
    arguments = {
      'student': self._student(),
      'plan': _everywhere(jax.tree.map(np.asarray, plan), self.mesh),
      'latents': split(plan.num_latents, *self.grid, card.dit.channels),
      'text': split(text, card.dit.text_dim),
      'seeds': split(dtype=jnp.uint32),
    }
    one = training_flops.sample(self._plan_rows(), last)
    one += flops.text_context(card.dit, 1, text)
    return self._step(
      'sampler',
      *(jax.jit(run), arguments, {'vae': self._vae()}, batch * one),
      loops=last,
      rows=batch,
    )

  def _rows(self) -> RowPrograms:
    card = self.card
    levels = flow.student_levels(card.timesteps, card.shift)
    return RowPrograms(DiT(card.dit), levels, card.step_options)

  def _row_arguments(self, names: Sequence[str]) -> dict[str, Any]:
    """Of one clip and one row of the plan, in the order of `names`."""
    text = (1, 1, self.card.text.length, self.card.dit.text_dim)
    student = self._student()

    def context(params, text):
      return make_net(DiT(self.card.dit), params, text).context

    row = jax.tree.map(lambda leaf: leaf[0], sampler.plan_rows(self.plan))
    made = jax.eval_shape(
      lambda params, text, row: (
        context(params, text),
        self._image(self.plan.num_anchors),
        self._image(self.plan.block),
        sampler.sample_keys([0]),
        row,
      ),
      student,
      jax.ShapeDtypeStruct(text, jnp.float32),
      row,
    )
    made = _everywhere(made, self.mesh)
    found = {'student': student, 'cache': self._cache()}
    for name, tree in zip(
      ('context', 'anchors', 'latents', 'keys', 'row'), made, strict=True
    ):
      found[name] = tree
    return {name: found[name] for name in names}

  def _beside(self) -> dict[str, Any]:
    """What lies there while a streamed video is generated."""
    return {'vae': self._vae(), 'memory': self._decoder_memory()}

  def _image(self, frames: int) -> jax.Array:
    return jnp.zeros((1, frames, *self.grid, self.card.dit.channels))

  def block(self) -> Step:
    """One block with its anchors, as videos are made that are streamed."""
    names = ('student', 'cache', 'context', 'anchors', 'keys', 'row')
    arguments, programs = self._row_arguments(names), self._rows()
    levels = len(self.card.timesteps)

    def run(student, cache, context, anchors, keys, row):
      net = Net(student, context)
      return programs.make(net, cache, anchors, keys, row, anchored=True)

    operations = levels * max(
      (row.denoise for row in self._plan_rows()), key=lambda f: f.total
    )
    return self._step(
      'block',
      *(jax.jit(run, donate_argnames='cache'), arguments),
      *(self._beside(), operations),
      loops=levels - 1,
      rows=1,
    )

  def store(self) -> Step:
    """The clean keys and values of a block."""
    names = ('student', 'cache', 'context', 'latents', 'row')
    arguments, programs = self._row_arguments(names), self._rows()

    def run(student, cache, context, latents, row):
      net = Net(student, context)
      return programs.store(net, cache, latents, row)

    operations = max(
      (row.write for row in self._plan_rows()), key=lambda f: f.total
    )
    return self._step(
      'store',
      *(jax.jit(run, donate_argnames='cache'), arguments),
      *(self._beside(), operations),
      loops=1,
      rows=1,
    )

  def _plan_rows(self) -> list[training_flops.Row]:
    card = self.card
    return training_flops.plan_rows(
      card.dit,
      self.plan,
      card.dit.tokens_per_frame(*self.grid),
      card.text.length,
      draft_from=card.step_options.draft_from,
    )

  def _decoder_memory(self) -> Any:
    """What a streamed video keeps of the latents before."""
    latents = jax.ShapeDtypeStruct(
      (1, 1, *self.grid, self.card.vae.z_dim), jnp.float32
    )
    made = jax.eval_shape(
      Codec(self.card.vae).decode_piece, self._vae(), latents, None
    )
    return _everywhere(made[1], self.mesh)

  def decode(self) -> Step:
    """As many latents as are decoded at a time, after others."""
    codec, card = Codec(self.card.vae), self.card
    number = codec.latents_at_a_time(card.block)
    shape = (1, number, *self.grid, card.vae.z_dim)
    arguments = {
      'vae': self._vae(),
      'latents': _everywhere(
        jax.ShapeDtypeStruct(shape, jnp.float32), self.mesh
      ),
      'memory': self._decoder_memory(),
    }
    operations = flops.vae_decode(card.vae, number, *self.grid, start=False)
    resident = {'student': self._student(), 'cache': self._cache()}
    return self._step(
      'decode',
      *(codec.decode_piece, arguments, resident, operations),
      loops=1,
      rows=1,
    )

  def encode(self) -> Step:
    """A piece of a given clip to latents, after others, before a video."""
    codec, card = Codec(self.card.vae), self.card
    size = (card.height, card.width)
    vae = self._vae()
    image = jax.ShapeDtypeStruct((1, 1, *size, 3), jnp.uint8)
    memory = jax.eval_shape(codec.encode_piece, vae, image, None)[1]
    video = jax.ShapeDtypeStruct((1, codec.piece, *size, 3), jnp.uint8)
    arguments = {
      'vae': vae,
      'video': _everywhere(video, self.mesh),
      'memory': _everywhere(memory, self.mesh),
    }
    operations = flops.vae_encode(card.vae, codec.piece, *size, start=False)
    return self._step(
      'encode',
      *(codec.encode_piece, arguments, {'student': self._student()}),
      operations,
      loops=1,
      rows=1,
    )

  def text(self) -> Step:
    """A prompt to its embedding: by the whole encoder, or by one layer of it.

    Which of them is what `generate.text.fits` says.
    """
    config = self.card.text
    shapes = sizes.inference_shapes(config)
    student, vae = self._student(), self._vae()
    others = sizes.num_bytes([student, vae])
    ids = jax.ShapeDtypeStruct((1, config.length), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, config.length), bool)
    operations = flops.text_encoder(config, 1)
    if texts.fits(sizes.num_bytes(shapes), others, self.limit):
      encoder = TextEncoder(config)
      run = lambda params, ids, mask: umt5.encode_text(  # noqa: E731
        encoder, params, ids, mask
      )
      arguments = {'text': shapes, 'ids': ids, 'mask': mask}
    else:
      layer = umt5.TextLayer(config)
      run = lambda params, x, mask: layer.apply(  # noqa: E731
        {'params': params}, x, mask
      )
      x = jax.ShapeDtypeStruct(
        (1, config.length, config.dim), jnp.dtype(config.dtype)
      )
      arguments = {'layer': shapes['layer0'], 'x': x, 'mask': mask}
      operations = operations * (1 / config.num_layers)
    arguments = {k: _everywhere(v, self.mesh) for k, v in arguments.items()}
    return self._step(
      'text',
      *(jax.jit(run), arguments, {'student': student, 'vae': vae}, operations),
      loops=1,
      rows=1,
    )


TRAIN = 'train'
SERVING = ('sampler', 'block', 'store', 'decode', 'encode')
# Of a model folder; a training config's prompts come as embeddings.
FOLDER = (*SERVING, 'text')
NAMES = (TRAIN, *SERVING)


def with_depth(config: ConfigDict, layers: int) -> None:
  """Cuts all transformers of a config to a number of layers, in place.

  Raises:
    UserError: fewer than one layer, or more than there are.
  """
  parts = [config.model]
  if config.get('teacher_model'):
    parts.append(config.teacher_model)
  for part in parts:
    if not 1 <= layers <= part.dit.num_layers:
      raise UserError(
        f'--depth={layers} must be 1 to {part.dit.num_layers}, the '
        'layers of the config.'
      )
    part.dit.num_layers = layers


def steps_of(config: ConfigDict, names: list[str], devices) -> list[Step]:
  """Returns the programs of a config for the devices of a topology.

  Args:
    config: of any stage.
    names: of NAMES, or of single training steps.
    devices: to compile for.

  Raises:
    UserError: a name that the config has no step for, or a mesh or batch that
      does not divide.
  """
  found: list[Step] = []
  wanted = [name for name in names if name not in SERVING]
  if wanted:
    made = training_steps(config, _full_mesh(config.mesh, devices))
    for name in wanted:
      if name not in (TRAIN, *made):
        raise UserError(
          f'--steps names {name!r}; use some of {", ".join((*NAMES, *made))}.'
        )
    found += [
      step for name, step in made.items() if name in wanted or TRAIN in wanted
    ]
  if len(wanted) < len(names):
    serving = _serving(config, devices)
    found += [getattr(serving, name)() for name in SERVING if name in names]
  return found


def _full_mesh(sizes: ConfigDict, devices) -> Mesh:
  """The mesh of a training, which leaves no device of a topology idle."""
  used = math.prod(size for size in sizes.values() if size > 0)
  if -1 not in sizes.values() and used != len(devices):
    raise UserError(
      f'config.mesh {sizes.to_dict()} uses {used} of {len(devices)} devices; '
      'make one of its axes -1.'
    )
  return make_mesh(sizes, devices)


def training_steps(config: ConfigDict, mesh: Mesh) -> dict[str, Step]:
  """Returns the steps of a training by name; no file is read.

  Nothing is allocated either, so the devices need not exist.

  Raises:
    UserError: an unknown objective, or sizes that do not divide.
  """
  check_rows(config.batch_size, mesh, config.accumulate)
  program = build_program(config)
  state = abstract_state(program, config.seed, mesh)
  frozen = lazy_weights.shapes_of(program.frozen, mesh, MODEL_RULES)
  rows = batch_sharding(mesh)
  batch = {
    name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows)
    for name, leaf in program.batch_spec.items()
  }
  compiler = CompiledSteps(program, state, mesh, config.max_loss_ratio)
  trees = {
    'parameters': state.params,
    'optimizer': state.opt_state,
    'EMA': state.ema,
    'frozen': frozen,
  }
  arguments = {
    f'{role} {network}': tree
    for role, networks in trees.items()
    for network, tree in networks.items()
    if jax.tree.leaves(tree)
  }
  levels = len(config.student.timesteps) if 'student' in config else 1
  flops = program.flops()
  return {
    name: Step(
      name,
      functools.partial(compiler.lower, name, state, batch, frozen),
      {**arguments, 'batch': batch},
      resident={},
      flops=config.batch_size * flops[name],
      loops=levels - 1,
      mesh=dict(mesh.shape),
      rows=config.batch_size,
      share=share,
    )
    for name, (_, share) in program.steps.items()
  }


def folder_steps(
  folder: Path, names: list[str], devices, limit: float
) -> list[Step]:
  """Returns the programs by which a model folder is served.

  Args:
    folder: of the model; its weights are not read.
    names: of FOLDER.
    devices: to compile for.
    limit: bytes of each.

  Raises:
    UserError: no such model, or an unknown name.
  """
  card = read_card(folder)
  unknown = [name for name in names if name not in FOLDER]
  if unknown:
    raise UserError(
      f'--steps names {unknown[0]!r}; of a model use {", ".join(FOLDER)}.'
    )
  order = card.orders[0] if card.orders else 'forward'
  more = {} if card.window is None else {'window': card.window}
  plan = orders.ORDERS[order](
    timeline.num_latents(card.frames, card.vae.temporal_stride),
    block=card.block,
    anchors=card.anchors,
    start=card.start,
    **more,
  )
  serving = Serving(card, plan, make_mesh({'data': -1}, devices), limit)
  return [getattr(serving, name)() for name in FOLDER if name in names]


def _serving(config: ConfigDict, devices) -> Serving:
  if 'student' not in config:
    raise UserError(
      'this config has no student to sample, so it has training steps only; '
      'give --steps=train.'
    )
  vae = builders.vae_config(config.model)
  statistics = {'latent_mean': vae.latent_mean, 'latent_std': vae.latent_std}
  card = builders.model_card(config, statistics, {})
  frames = builders.latent_shape(config)[0]
  plan = builders.training_plans(config.orders, frames)[0][0]
  return Serving(card, plan, make_mesh({'data': -1}, devices))
