"""The programs by which a finished model is served.

They are those of `generate`: weights on every device, in the dtypes that they
are used in. `sampler` makes a clip per device in one program. A streamed video,
one clip, is made by `block` and `store`; it is decoded and encoded in pieces,
beside the weights and the cache of the student. `text` is the encoder as it
runs: whole, or layer by layer.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from unitemp_jax import orders, timeline
from unitemp_jax.aot import clips
from unitemp_jax.aot.schedule import Cache
from unitemp_jax.aot.step import Step, everywhere
from unitemp_jax.diffusion import flow
from unitemp_jax.errors import UserError
from unitemp_jax.generate import text as texts
from unitemp_jax.models import flops, sizes, umt5
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.parallel.mesh import (
  MODEL_RULES,
  batch_sharding,
  cache_sharding,
  make_mesh,
  placed,
  row_parts,
)
from unitemp_jax.plans import Plan
from unitemp_jax.sampling import sampler
from unitemp_jax.sampling.decode import Codec
from unitemp_jax.sampling.model_folder import ModelCard, read_card
from unitemp_jax.sampling.sampler import Net, cache_for, make_net, sample_plan
from unitemp_jax.sampling.step import kind_of
from unitemp_jax.sampling.stream import RowPrograms

SERVING = ('sampler', 'block', 'store', 'decode', 'encode')
# Of a model folder; a training config's prompts come as embeddings.
FOLDER = (*SERVING, 'text')


def seen_slots(plan: Plan, passes: int, writes: int) -> list[int]:
  """Slots of the cache that the passes of each row of a plan see."""
  found = []
  for row in range(plan.num_rows):
    own = int(plan.visible[row] + plan.count[row])
    if not plan.count[row] or plan.idle(row):
      continue
    if not plan.conditioning[row]:
      found += passes * [own + plan.num_anchors * bool(plan.anchor[row])]
    found += writes * [own]
  return found


def kinds_of(plans: Sequence[Plan]) -> tuple[float, ...]:
  """Share of the rows of some plans that are of each kind, see `kind_of`."""
  anchors = plans[0].num_anchors
  each = [
    jax.vmap(kind_of, (0, None))(sampler.plan_rows(plan), anchors)
    for plan in plans
  ]
  counts = np.bincount(np.concatenate(each), minlength=3 + bool(anchors))
  return tuple(float(n) for n in counts / counts.sum())


@dataclasses.dataclass(frozen=True)
class Serving:
  """A finished model on a mesh; along `context` a clip is split."""

  card: ModelCard  # its sizes
  plan: Plan  # an order to sample; orders of its shape share the program
  mesh: Mesh  # of all devices
  limit: float = math.inf  # bytes of each

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of a latent."""
    return self.card.latent_grid(self.card.height, self.card.width)

  def _student(self) -> Any:
    shapes = sizes.inference_shapes(self.card.dit)
    return placed(shapes, self.mesh, MODEL_RULES)

  def _vae(self) -> Any:
    return everywhere(sizes.inference_shapes(self.card.vae), self.mesh)

  def _cache(self) -> Any:
    plan = sampler.bucketed(self.plan)
    cache = jax.eval_shape(
      lambda: cache_for(self.card.dit, plan, 1, *self.grid)
    )
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=cache_sharding(self.mesh, leaf.shape)
      ),
      cache,
    )

  def _step(
    self, name, jitted, arguments, resident, operations, loops=1, rows=1, **more
  ):
    def lower():
      with jax.set_mesh(self.mesh):
        return jitted.lower(*arguments.values())

    about = (name, lower, arguments, resident, operations, loops)
    return Step(*about, dict(self.mesh.shape), rows, **more)

  def _whole(self, *shape: int, dtype: Any = jnp.float32) -> Any:
    """An array that each device holds."""
    return everywhere(jax.ShapeDtypeStruct(shape, dtype), self.mesh)

  def sampler(self) -> Step:
    """A clip per row of the mesh: the whole plan, from text embeddings."""
    card, dit = self.card, DiT(self.card.dit)
    plan, batch = sampler.bucketed(self.plan), row_parts(self.mesh)
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
      'plan': everywhere(jax.tree.map(np.asarray, plan), self.mesh),
      'latents': split(plan.num_latents, *self.grid, card.dit.channels),
      'text': split(text, card.dit.text_dim),
      'seeds': split(dtype=jnp.uint32),
    }
    one = clips.sample_flops(card, self.plan)
    return self._step(
      'sampler',
      *(jax.jit(run), arguments, {'vae': self._vae()}, batch * one),
      loops=last,
      rows=batch,
      cache=self._seen(len(card.timesteps), 1),
      kinds=kinds_of([plan]),
      values={'plan': jax.tree.map(np.asarray, plan)},
    )

  def _seen(self, passes: int, writes: int, most: bool = False) -> Cache:
    """Of the cache, by rows of the plan or by the `most` that one sees."""
    slots = sampler.bucketed(self.plan).num_slots
    tokens = self.card.dit.tokens_per_frame(*self.grid)
    seen = seen_slots(self.plan, passes, writes)
    share = (max(seen) if most else np.mean(seen)) / slots
    return Cache(slots * tokens, float(share))

  def _last_row(self) -> Any:
    """The row of the plan that sees most, as a program takes it."""
    row = int(np.argmax(self.plan.visible))
    rows = jax.tree.map(np.asarray, sampler.plan_rows(self.plan))
    return jax.tree.map(lambda leaf: leaf[row], rows)

  def _rows(self) -> RowPrograms:
    card = self.card
    levels = flow.student_sigmas(card.timesteps, card.shift)
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
    made = everywhere(made, self.mesh)
    made_names = ('context', 'anchors', 'latents', 'keys', 'row')
    found = dict(zip(made_names, made, strict=True))
    found |= {'student': student, 'cache': self._cache()}
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

    each = [row.denoise for row in clips.plan_rows(self.card, self.plan)]
    operations = levels * max(each, key=lambda f: f.total)
    return self._step(
      'block',
      *(jax.jit(run, donate_argnames='cache'), arguments),
      *(self._beside(), operations),
      loops=levels - 1,
      cache=self._seen(1, 0, most=True),
      values={'row': self._last_row()},
    )

  def store(self) -> Step:
    """The clean keys and values of a block."""
    names = ('student', 'cache', 'context', 'latents', 'row')
    arguments, programs = self._row_arguments(names), self._rows()

    def run(student, cache, context, latents, row):
      net = Net(student, context)
      return programs.store(net, cache, latents, row)

    each = [row.write for row in clips.plan_rows(self.card, self.plan)]
    operations = max(each, key=lambda f: f.total)
    return self._step(
      'store',
      *(jax.jit(run, donate_argnames='cache'), arguments),
      *(self._beside(), operations),
      cache=self._seen(0, 1, most=True),
      values={'row': self._last_row()},
    )

  def _decoder_memory(self) -> Any:
    """What a streamed video keeps of the latents before."""
    decode = Codec(self.card.vae).decode_piece
    latents = self._whole(1, 1, *self.grid, self.card.vae.z_dim)
    made = jax.eval_shape(decode, self._vae(), latents, None)
    return everywhere(made[1], self.mesh)

  def decode(self) -> Step:
    """As many latents as are decoded at a time, after others."""
    codec, card = Codec(self.card.vae), self.card
    number = codec.latents_at_a_time(card.block)
    arguments = {
      'vae': self._vae(),
      'latents': self._whole(1, number, *self.grid, card.vae.z_dim),
      'memory': self._decoder_memory(),
    }
    operations = flops.vae_decode(card.vae, number, *self.grid, start=False)
    resident = {'student': self._student(), 'cache': self._cache()}
    return self._step(
      'decode',
      *(codec.decode_piece, arguments, resident, operations),
    )

  def encode(self) -> Step:
    """A piece of a given clip to latents, after others, before a video."""
    codec, card = Codec(self.card.vae), self.card
    size = (card.height, card.width)
    vae = self._vae()
    image = self._whole(1, 1, *size, 3, dtype=jnp.uint8)
    memory = jax.eval_shape(codec.encode_piece, vae, image, None)[1]
    arguments = {
      'vae': vae,
      'video': self._whole(1, codec.piece, *size, 3, dtype=jnp.uint8),
      'memory': everywhere(memory, self.mesh),
    }
    operations = flops.vae_encode(card.vae, codec.piece, *size, start=False)
    return self._step(
      'encode',
      *(codec.encode_piece, arguments, {'student': self._student()}),
      operations,
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
    arguments = {k: everywhere(v, self.mesh) for k, v in arguments.items()}
    return self._step(
      'text',
      *(jax.jit(run), arguments, {'student': student, 'vae': vae}, operations),
    )


def folder_steps(
  folder: Path,
  names: list[str],
  devices,
  limit: float,
  mesh: Mapping[str, int] | None = None,
) -> list[Step]:
  """Returns the programs by which a model folder is served.

  Args:
    folder: of the model; its weights are not read.
    names: of FOLDER.
    devices: to compile for.
    limit: bytes of each.
    mesh: sizes of its axes; by default all devices along `data`.

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
  serving = Serving(card, plan, make_mesh(mesh or {'data': -1}, devices), limit)
  return [getattr(serving, name)() for name in FOLDER if name in names]
