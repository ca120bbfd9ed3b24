"""From prompts to pixels with a finished model."""

import copy
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax import plans, timeline
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.diffusion import flow
from unitemp_jax.errors import UserError
from unitemp_jax.generate import memory
from unitemp_jax.generate import text as texts
from unitemp_jax.generate.request import Request, given_latents, places
from unitemp_jax.models import nag, weights
from unitemp_jax.models.dit import DiT
from unitemp_jax.parallel import mesh as device_mesh
from unitemp_jax.parallel.mesh import MODEL_RULES
from unitemp_jax.plans import Plan, decoding
from unitemp_jax.sampling import decode, model_folder, sampler
from unitemp_jax.sampling import teacher as teachers
from unitemp_jax.sampling.decode import Codec
from unitemp_jax.sampling.stream import MadeRow, RowPrograms, Rows


@dataclasses.dataclass(frozen=True)
class Generated:
  """What one plan made for a batch."""

  latents: np.ndarray  # the plan's buffer, `[B, entries, h, w, C]`
  anchors: np.ndarray  # of every row, `[J, B, P, h, w, C]`
  plan: Plan  # what was run

  @property
  def timeline(self) -> np.ndarray:
    """Latents in temporal order, `[B, N, h, w, C]`."""
    return self.latents[:, self.plan.timeline()[1]]

  def decoded(self, decode_fn: decode.Decode, mode: str) -> np.ndarray:
    """Frames in temporal order, uint8 `[B, T, H, W, 3]`, nothing pasted."""
    if mode == 'joint':  # at once, as if given clips had been made
      schedule = decoding.joint(self.plan, clips=False, chunk=0)
    else:
      schedule = decoding.schedule(self.plan, mode)
    chunk = decode.remembering(decode_fn)
    return decode.compose(
      decode.run(chunk, self.plan, schedule, self.latents, self.anchors)
    )


@dataclasses.dataclass(frozen=True)
class Piece:
  """Frames that have just been made."""

  first: int  # index of the first of them on the timeline
  frames: np.ndarray  # uint8 `[n, H, W, 3]`
  seconds: float  # since the run began
  fresh: bool  # False if they were given, or made before an interruption
  row: int  # of the plan
  # Whether they take the place of frames that came before, a preview.
  refines: bool = False


class Pipeline:
  """A model on the devices; its programs are compiled once per shape."""

  def __init__(
    self,
    card: model_folder.ModelCard,
    params: dict,
    tokenizer: Tokenizer,
    model_hash: str,
    mesh: jax.sharding.Mesh | None = None,
    text: texts.TextSource | None = None,
  ):
    """Puts a model on devices.

    `params` are trees by name (`vae`, `student`, `text` unless embeddings come
    from elsewhere, `teacher` if that is to be sampled); `model_hash` is what
    finished clips name the model by.
    """
    self.card = card
    self.hash = model_hash
    self.tokenizer = tokenizer
    self._dit = DiT(card.dit)
    self.mesh = mesh or device_mesh.make_mesh({'data': -1})
    self.text = text or texts.Encoder(card, tokenizer, self.put)
    self.grid = card.latent_grid(card.height, card.width)
    self.num_latents = timeline.num_latents(card.frames)
    self._everywhere = jax.sharding.NamedSharding(
      self.mesh, jax.sharding.PartitionSpec()
    )
    self.params = jax.device_put(
      params, device_mesh.shardings_for(params, self.mesh, MODEL_RULES)
    )
    self.sigmas = flow.student_sigmas(card.timesteps, card.shift)
    self._sample = device_mesh.on(self.mesh, jax.jit(self._sample_fn))
    self._context = device_mesh.on(self.mesh, jax.jit(self._context_fn))

  @classmethod
  def load(
    cls,
    folder: str | Path = model_folder.TINY,
    *,
    embeddings: str | Path | None = None,
    many: bool = False,
    teacher: bool = False,
    mesh: Mapping[str, int] | None = None,
  ) -> 'Pipeline':
    """Loads a model folder.

    Args:
      folder: of the model.
      embeddings: of the prompts, see `text.Stored`; the folder then needs no
        text encoder.
      many: for many clips of few prompts, each of which is encoded once, on
        the devices of this process alone.
      teacher: to sample the teacher alone; the folder then needs no student,
        and kernels are split over all devices where their sizes divide.
      mesh: sizes of its axes, by default all devices along `data`. Along
        `context` tokens and heads of a clip are split, and weights with them.
    """
    if not isinstance(folder, str | os.PathLike):
      raise UserError(f'the model is {folder!r:.60}; name its folder.')
    folder = Path(folder)
    card = model_folder.read_card(folder)
    tokenizer = Tokenizer.from_file(folder / 'tokenizer.json')
    paths = {
      name: folder / f'{name}.safetensors'
      for name in ('vae', 'student', 'text', 'teacher')
    }
    del paths['student' if teacher else 'teacher']
    if teacher and not weights.exist(paths['teacher']):
      raise UserError(f'{folder} has no teacher.safetensors to sample.')
    if not teacher and weights.exist(folder / 'teacher.safetensors'):
      paths['teacher'] = folder / 'teacher.safetensors'
    source: texts.TextSource | None = None
    if embeddings is not None:
      source = texts.Stored(embeddings, card, tokenizer)
      del paths['text']
    elif many:
      source = texts.Memo(texts.Encoder(card, tokenizer))
    mesh_of = memory.mesh_of(
      card,
      mesh or (memory.teacher_mesh(card) if teacher else {'data': -1}),
      jax.local_devices() if many else None,
    )
    shapes = model_folder.inference_shapes(card)
    if 'text' in paths and not texts.holds_text(shapes):
      # It is read when prompts are, and leaves before the next network works.
      weights.check(paths['text'], shapes['text'])
      source = texts.layered(paths.pop('text'), card.text, tokenizer)
    shapes = {
      name: device_mesh.placed(shapes[name], mesh_of, MODEL_RULES)
      for name in paths
    }
    params = {name: weights.load(paths[name], shapes[name]) for name in paths}
    if teacher:
      return cls(card, params, tokenizer, '', mesh_of, source)
    if isinstance(source, texts.Stored):
      names = ('vae.safetensors', 'student.safetensors', model_folder.INDEX)
      model_hash = source.hash_with(*(folder / name for name in names))
    else:
      model_hash = model_folder.fingerprint(folder)
    return cls(card, params, tokenizer, model_hash, mesh_of, source)

  def replaced(self, **params) -> 'Pipeline':
    """The same programs with other weights of the same shapes."""
    other = copy.copy(self)
    other.params = {**self.params, **params}
    return other

  @property
  def noise_shape(self) -> tuple[int, ...]:
    """Latents of one clip, `(N, h, w, C)`."""
    return (self.num_latents, *self.grid, self.card.dit.channels)

  def put(self, rows: np.ndarray) -> jax.Array:
    """Puts rows on the devices, split if they divide evenly."""
    rows = np.asarray(rows)
    if rows.shape[0] % device_mesh.row_parts(self.mesh) == 0:
      return device_mesh.put_batch(rows, self.mesh)
    return jnp.asarray(rows)

  @functools.cached_property
  def _codec(self) -> Codec:
    return Codec(self.card.vae)

  @functools.cached_property
  def _rows(self) -> RowPrograms:
    options = self.card.step_options
    return RowPrograms(self._dit, self.sigmas, options, self.mesh)

  @functools.cached_property
  def _sample_teacher(self) -> Callable[..., jax.Array]:
    sample = functools.partial(teachers.sample_guided, self._dit)
    jitted = jax.jit(sample, static_argnames='settings')
    return device_mesh.on(self.mesh, jitted)

  def latent_shape(self, request: Request) -> tuple[int, int, int]:
    """Shape of one latent of a request, `(h, w, C)`."""
    grid = self.card.latent_grid(request.height, request.width)
    return (*grid, self.card.dit.channels)

  def _embed(self, lists: Sequence[Sequence[str]]) -> np.ndarray:
    """Embeddings `[B, R, E, D]` of R prompts for each of B clips."""
    flat = [prompt for own in lists for prompt in own]
    found = self.text(self.params.get('text'), flat)
    return found.reshape(len(lists), -1, *found.shape[1:])

  def _context_fn(self, params, text):
    """Text keys and values alone: what a program returns, it copies."""
    return self._net_fn(params, text).context

  def _net_fn(self, params, text):
    """The student with the embeddings `[B, R, E, D]` that rows choose from."""
    return sampler.make_net(self._dit, params['student'], text.swapaxes(0, 1))

  def _sample_fn(self, params, plan, latents, text, seeds):
    net = self._net_fn(params, text)
    return sampler.sample_plan(self.card, net, plan, latents, seeds)

  def generate(
    self,
    prompts: Sequence[str | Sequence[str]],
    seeds: Sequence[int],
    plan: Plan,
    given: np.ndarray | None = None,
    size: tuple[int, int] | None = None,
    *,
    void: bool = False,
  ) -> Generated:
    """Runs a plan for a batch of prompts, each with its own seed.

    Args:
      prompts: one per sample, or equally many that `plan.prompt` points into.
      seeds: one per sample, 0 .. 2**32 - 1.
      plan: checked rows; plans of equal shape share one compilation.
      given: latents of `plan.preloaded()`, `[B, K, h, w, C]`, in its order.
      size: height and width in pixels; the model's own by default.
      void: see `plans.check`; for negative controls alone.
    """
    plans.check(plan, void=void)
    lists = [[own] if isinstance(own, str) else list(own) for own in prompts]
    text = self._embed(lists)
    grid = self.grid if size is None else self.card.latent_grid(*size)
    padded = sampler.bucketed(plan)  # so that lengths share programs
    shape = (len(lists), padded.num_latents, *grid, self.card.dit.channels)
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
      self.params,
      jax.tree.map(jnp.asarray, padded),
      self.put(buffer),
      self.put(text),
      self.put(np.asarray(seeds, np.uint32)),
    )
    latents = np.asarray(latents)[:, : plan.num_latents]
    for row in range(plan.num_rows):
      entries = [entry for _, entry in plan.entries(row)]
      for prompts_of, clip in zip(lists, latents, strict=True):
        check_finite(clip[entries], plan, row, prompts_of[0])
    return Generated(latents, np.asarray(anchors)[: plan.num_rows], plan)

  def batch(self, requests: Sequence[Request]) -> Generated:
    """Makes requests of one plan, each with frames given at the same places.

    All run in one program, so that batches of one size compile once. UserError
    as for `generate`.
    """
    first = requests[0]
    return self.generate(
      [request.prompts for request in requests],
      [request.seed for request in requests],
      first.plan,
      given_latents(requests, self.encode),
      (first.height, first.width),
    )

  def rows(
    self, request: Request, finished: Mapping[int, MadeRow] | None = None
  ) -> Iterator[MadeRow]:
    """Yields the rows of a request's plan as they are made, latents only.

    Of an interrupted run, the `finished` rows are taken over and the others
    made as if it had not been interrupted, bit for bit.
    """
    plan, params = request.plan, self.params
    nets = {}
    for index in set(plan.prompt[plan.count > 0].tolist()):
      context = self._context(params, self._embed([[request.prompts[index]]]))
      if request.nag is not None:
        other = self._context(params, self._embed([[request.nag.prompt]]))
        context = nag.guided(context, other, request.nag)
      nets[index] = sampler.Net(params['student'], context)
    clips = [self.encode_clip(given.video)[0] for given in request.conditioning]
    given = {
      int(entry): clips[clip][k]
      for entry, (clip, k) in zip(
        plan.preloaded()[1], places(plan, request.conditioning), strict=True
      )
    }
    grid = self.card.latent_grid(request.height, request.width)
    put = lambda tree: jax.device_put(tree, self._everywhere)  # noqa: E731
    noise = (request.seed, put, request.noise)
    run = Rows(self._rows, nets, plan, given, grid, *noise).run
    for made in run(finished or {}):
      check_finite(made.latents[0], plan, made.row, request.prompts[0])
      yield made

  def run(
    self,
    request: Request,
    finished: Mapping[int, MadeRow] | None = None,
    mode: str = 'stream',
  ) -> Iterator[Piece]:
    """Yields pixels as they are made, in the order of generation.

    In mode 'lag' a block that is shown before its past exists comes again,
    refined, when the block before it is there.

    Given frames stand in them as they were given. Device memory does not grow
    with the length of a plan that sees a window only.
    """
    began = time.monotonic()
    for made, piece in self.decoded(
      request.plan, self.rows(request, finished), mode
    ):
      yield Piece(
        piece.first,
        request.paste(piece.first, piece.frames[0]),
        time.monotonic() - began,
        made.fresh,
        made.row,
        piece.refines,
      )

  def decoder(
    self, plan: Plan, schedule: decoding.Schedule
  ) -> Callable[[MadeRow], Iterator[decode.Piece]]:
    """A function from each row in turn to what can be shown since."""
    decoder = decode.Decoder(self.decode_chunk, plan, schedule)
    return lambda made: decoder.add(made.row, made.latents, made.anchors)

  def decoded(
    self, plan: Plan, rows: Iterable[MadeRow], mode: str
  ) -> Iterator[tuple[MadeRow, decode.Piece]]:
    """Decodes rows of one clip as they come; yields them with their frames."""
    decoder = self.decoder(plan, decoding.schedule(plan, mode))
    for made in rows:
      for piece in decoder(made):
        yield made, piece

  def joint(
    self, plan: Plan, rows: Iterable[MadeRow]
  ) -> Iterator[tuple[int, np.ndarray]]:
    """Decodes what exists of a video by time, in constant device memory.

    Yields:
      (first frame on the timeline, uint8 `[n, H, W, 3]`), nothing pasted.
    """
    rows = list(rows)
    decoder = self.decoder(
      plan, decoding.joint(plan, [made.row for made in rows])
    )
    pieces = (piece for made in rows for piece in decoder(made))
    for piece in decode.by_time(pieces, plan.num_frames):
      yield piece.first, piece.frames[0]

  def video(self, request: Request) -> np.ndarray:
    """The whole video, decoded jointly, uint8 `[T, H, W, 3]`."""
    pieces = self.joint(request.plan, self.rows(request))
    return np.concatenate(
      [request.paste(first, frames) for first, frames in pieces]
    )

  def sample_teacher(
    self,
    prompts: Sequence[str],
    seeds: Sequence[int],
    num_steps: int = 50,
    *,
    negative_prompt: str | None = None,
    **settings: Any,
  ) -> np.ndarray:
    """Latents `[B, N, h, w, C]` of the teacher, each from its own seed's noise.

    Args:
      prompts: one per sample.
      seeds: one per sample, 0 .. 2**32 - 1.
      num_steps: of the solver.
      negative_prompt: what guidance leads away from; None is no text at all,
        an empty one the end token alone.
      **settings: see `teacher.settings_of`.
    """
    if 'teacher' not in self.params:
      raise UserError('this model folder has no teacher.safetensors to sample.')
    if not all(prompt.strip() for prompt in prompts):
      raise UserError('a prompt is empty; say what the video should show.')
    how = teachers.settings_of(self.card, num_steps, **settings)
    keys = sampler.sample_keys(seeds)
    noise = jax.vmap(lambda key: jax.random.normal(key, self.noise_shape))(keys)
    params = self.params.get('text')
    text = self.text(params, prompts)
    negative = np.zeros(text.shape, np.float32)
    if negative_prompt is not None:
      negatives, empty = [negative_prompt] * len(prompts), negative_prompt == ''
      negative = self.text(params, negatives, allow_empty=empty)
    latents = self._sample_teacher(
      self.params['teacher'],
      self.put(text),
      self.put(negative),
      self.put(np.asarray(noise)),
      settings=how,
    )
    return np.asarray(latents)

  def decode(self, latents: np.ndarray) -> np.ndarray:
    """Latents `[B, F, h, w, C]` to uint8 `[B, 1 + 4 (F - 1), H, W, 3]`."""
    latents = self.put(latents)
    return np.asarray(self._codec.decode(self.params['vae'], latents))

  def decode_chunk(self, latents: np.ndarray, memory: Any):
    """Latents `[1, F, h, w, C]` to frames and memory, see `decode.Chunk`."""
    latents = jax.device_put(latents, self._everywhere)
    frames, memory = self._codec.decode_chunk(
      self.params['vae'], latents, memory
    )
    return np.asarray(frames), memory

  def encode(self, video: np.ndarray) -> np.ndarray:
    """uint8 clips `[B, 1 + 4k, H, W, 3]` to latents; UserError for a bad size.

    A clip is encoded by itself: its first latent is an image latent.
    """
    self._check_clip(video.shape[1:4])
    video = self.put(video)
    return np.asarray(self._codec.encode(self.params['vae'], video))

  def encode_clip(self, video: np.ndarray) -> np.ndarray:
    """A clip `[1 + 4k, H, W, 3]` of any length to latents `[1, F, h, w, C]`."""
    self._check_clip(video.shape[:3])
    return self._codec.encode_clip(self.params['vae'], video[None])

  def _check_clip(self, size: tuple[int, int, int]) -> None:
    try:
      self._codec.check(*size)
    except ValueError as error:
      raise UserError(f'a given clip does not fit the VAE: {error}.') from error

  def pixels(self, made: Generated, mode: str = 'joint') -> np.ndarray:
    """Frames of a batch by time, see `Generated.decoded`."""
    return made.decoded(self.decode, mode)


def check_finite(
  latents: np.ndarray, plan: Plan, row: int, prompt: str
) -> None:
  """Raises UserError if a block has numbers that are not finite."""
  if np.isfinite(latents).all():
    return
  positions = [position for position, _ in plan.entries(row)]
  first, last = (positions[k] - plan.begin for k in (0, -1))
  low, high = timeline.first_frame(first), timeline.last_frame(last)
  raise UserError(
    f'the block of frames {low}..{high} of "{prompt[:60]}" came '
    'out with numbers that are not finite, so that no video can be made of it; '
    'check the weights of the model, or use float32.'
  )


def load(folder: str | Path = model_folder.TINY) -> Pipeline:
  """Loads a model folder, by default the tiny model; see `Pipeline.load`."""
  return Pipeline.load(folder)
