"""Requests: one video, as a plan with prompts and conditioning frames.

A `Request` decides every bit of the result. A `Draft` is one on its way: sizes,
given frames and prompts that fit the model.
"""

import dataclasses
import functools
import operator
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from unitemp_jax import orders, timeline
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import Remark, UserError, is_blank, shown
from unitemp_jax.models.nag import Nag
from unitemp_jax.plans import Plan, check
from unitemp_jax.plans import switches as prompt_switches
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.timeline import Length
from unitemp_jax.video.read import Source, fit_once, has_sound, read_once
from unitemp_jax.video.sound import place, read_sound

# Many prompts share a plan.
_check_once = functools.lru_cache(64)(check)


@dataclasses.dataclass(frozen=True, eq=False)
class Conditioning:
  """Conditioning frames, and where they stand on the finished timeline.

  They appear in the video pixel for pixel. A given clip is encoded by itself:
  its first latent is an image latent (`unitemp_jax/README.md`, Given frames).
  """

  # Timeline index of the first of them, 0 or a multiple of 4; frame 0 starts
  # the video.
  frame: int
  # uint8 `[n, H, W, 3]`, n = 1 for an image, 1 + 4k for a clip.
  video: np.ndarray

  @property
  def num_latents(self) -> int:
    """Latents that code it: 1 + k."""
    return 1 + (len(self.video) - 1) // timeline.STRIDE


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
  """One video to be made; it decides every bit of the result."""

  workflow: str  # name of what is done: 'forward', 'extend', 'story', ...
  plan: Plan  # checked rows; its timeline need not start at position 0
  prompts: tuple[str, ...]  # texts that `plan.prompt` points into
  seed: int  # of all noise, 0 .. 2**32 - 1
  height: int  # pixels
  width: int  # pixels
  conditioning: tuple[Conditioning, ...] = ()  # frames by time
  # Sentences on what of the input the video will not have.
  remarks: tuple[str, ...] = ()
  # `[2, n]`, see `video.sound`, as long as the video; None for none.
  sound: np.ndarray | None = None
  # Of all latents in the place of the seed's, see `generate.noise`.
  noise: np.ndarray | None = None
  nag: Nag | None = None  # a negative prompt; None for none

  def __post_init__(self):
    _check_once(self.plan)
    _check_prompts(self)
    _check_given(self)

  @property
  def num_frames(self) -> int:
    """Frames of the finished video, 1 + 4k."""
    return self.plan.num_frames

  def paste(self, first: int, frames: np.ndarray) -> np.ndarray:
    """Frames `[n, H, W, 3]` from index `first` on, with given ones in place."""
    frames = frames.copy()
    shown = list(self.conditioning)
    if self.plan.loops:  # the first frame is the last one too
      shown += [
        Conditioning(self.num_frames - 1, given.video[:1])
        for given in self.conditioning
        if given.frame == 0
      ]
    for given in shown:
      low = max(first, given.frame)
      high = min(first + len(frames), given.frame + len(given.video))
      if low < high:
        own = given.video[low - given.frame : high - given.frame]
        frames[low - first : high - first] = own
    return frames


def _check_prompts(request: Request) -> None:
  needed = int(request.plan.prompt.max()) + 1
  if len(request.prompts) < needed:
    raise UserError(
      f'the plan asks for {needed} prompts, but {len(request.prompts)} are '
      'given; give one text for each.'
    )
  for prompt in request.prompts:
    if is_blank(prompt):
      raise UserError('the prompt is empty; say what the video should show.')
  if not 0 <= request.seed < 2**32:
    raise UserError(f'seed {request.seed} must lie in 0..{2**32 - 1}.')


def check_count(texts: Sequence[str], plan: Plan) -> None:
  """Refuses, by UserError, texts that a plan does not show."""
  needed = int(plan.prompt.max()) + 1
  if len(texts) > needed:
    raise UserError(
      f'{len(texts)} prompts are given and the video shows {needed}; leave out '
      'the others, or say from which frame on each holds.'
    )


def check_whole(name: str, value: Any) -> int:
  """A whole number of any type as an int; UserError if it is none."""
  try:
    return operator.index(value)
  except TypeError as error:
    raise UserError(f'{name} is {value!r:.60}, no whole number.') from error


def texts_of(prompt: Any) -> tuple[str, ...]:
  """All texts of a prompt, a schedule or a list; UserError for what is none."""
  if isinstance(prompt, str):
    return (prompt,)
  texts = prompt.values() if isinstance(prompt, Mapping) else prompt
  if not isinstance(prompt, Mapping | Sequence) or not all(
    isinstance(text, str) for text in texts
  ):
    raise UserError(f'the prompt is {prompt!r:.60}; give a text.')
  return tuple(texts)


def check_flag(name: str, value: Any) -> bool:
  """True or False of any type as a bool; UserError if it is neither."""
  if isinstance(value, bool | np.bool_):
    return bool(value)
  raise UserError(f'{name} is {value!r:.60}; give True or False.')


def _check_given(request: Request) -> None:
  end = -1
  for given in sorted(request.conditioning, key=lambda given: given.frame):
    frames, last = len(given.video), given.frame + len(given.video) - 1
    where = f'the frames given at {given.frame}..{last}'
    if given.video.shape != (frames, request.height, request.width, 3):
      raise UserError(
        f'{where} have shape {list(given.video.shape)}; the video has '
        f'{request.height}x{request.width} pixels, so fit them first.'
      )
    if frames % timeline.STRIDE != 1 or given.frame % timeline.STRIDE:
      near = timeline.last_frame(round(given.frame / timeline.STRIDE))
      raise UserError(
        f'{where} must be 1 + 4k frames and begin at a multiple of 4; the '
        f'nearest that fit are {near}..'
        f'{near + timeline.last_frame(frames // timeline.STRIDE)}.'
      )
    if given.frame <= end or last >= request.num_frames:
      raise UserError(
        f'{where} overlap others or end after the video, whose frames are '
        f'0..{request.num_frames - 1}; move or shorten them.'
      )
    end = last
  places(request.plan, request.conditioning)


def places(plan: Plan, given: Sequence[Conditioning]) -> list[tuple[int, int]]:
  """Where the latents come from that must be there before the first row.

  Returns:
    For each of `plan.preloaded()`: the index of the given frames, and which of
    their latents.
  """
  held = {
    plan.begin + clip.frame // timeline.STRIDE + k: (index, k)
    for index, clip in enumerate(given)
    for k in range(clip.num_latents)
  }
  positions = plan.preloaded()[0].tolist()
  missing = [position for position in positions if position not in held]
  if missing:
    raise UserError(
      'this order continues frames that are not given; give those at '
      f'{", ".join(str(timeline.STRIDE * (p - plan.begin)) for p in missing)}.'
    )
  return [held[position] for position in positions]


def given_latents(
  requests: Sequence[Request], encode: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray | None:
  """Latents given to a batch, in the order of `Plan.preloaded`.

  Each clip is encoded by itself, so that its first latent is an image latent.

  Returns:
    `[B, K, h, w, C]`, or None if nothing is given.
  """
  first = requests[0]
  clips = [
    encode(np.stack([request.conditioning[i].video for request in requests]))
    for i in range(len(first.conditioning))
  ]
  order = places(first.plan, first.conditioning)
  parts = [clips[clip][:, k] for clip, k in order]
  return np.stack(parts, axis=1) if parts else None


class Model(NamedTuple):
  """What requests must know of a model, without its weights."""

  card: ModelCard
  tokenizer: Tokenizer | None = None


class Draft:
  """Builder of a request: what all workflows share.

  Attributes:
    card: of the model.
    fps: frames per second.
    start: temporal position of the first latent.
    seed: of all noise.
    conditioning: frames so far, as they were read; `finish` fits their size.
    order: settings of the order, see `orders.Settings`.
    remarks: sentences on what of the input the video will not have.
  """

  def __init__(self, model: Any, settings: Mapping[str, Any]):
    self.card: ModelCard = getattr(model, 'card', model)
    if not isinstance(self.card, ModelCard):
      raise UserError(f'{model!r:.60} is no model; give unitemp_jax.load().')
    self._tokenizer: Tokenizer | None = getattr(model, 'tokenizer', None)
    self.fps = self.card.fps
    self.start = 0
    self.conditioning: list[Conditioning] = []
    self.remarks: list[str] = []
    self._sound: np.ndarray | None = None
    rest = dict(settings)
    self.seed = check_whole('seed', rest.pop('seed', 0))
    self._size: list[Any] = [
      None if side is None else check_whole('height or width', side)
      for side in (rest.pop('height', None), rest.pop('width', None))
    ]
    self._trim = check_flag('trim', rest.pop('trim', False))
    self._bounded = check_flag('bounded', rest.pop('bounded', True))
    self.order: dict[str, Any] = {'block': self.card.block}
    for name in ('anchors', 'start', 'window'):
      self.order[name] = getattr(self.card, name)
    self._anchors_asked = rest.get('anchors') is not None
    for name in ('block', 'anchors', 'start', 'window', 'trained_span'):
      value = rest.pop(name, None)
      if value is not None:
        key = name.removeprefix('trained_')
        self.order[key] = check_whole(name, value)
    if rest:
      raise UserError(
        f'there is no setting {next(iter(rest))!r}; use seed, height, width, '
        'block, anchors, start, window, trained_span or trim.'
      )
    if self.order['start'] > len(self.card.timesteps):
      raise UserError(
        f'start level {self.order["start"]} is beyond the '
        f'{len(self.card.timesteps)} levels of this model; use a lower one.'
      )

  def length(self, value: Length | None) -> int:
    """Frames of the video; the model's own by default."""
    if value is None:
      return self.card.frames
    return timeline.length(value, self.fps)

  def read(
    self, source: Source, what: str, join: str = 'start', sound: bool = False
  ) -> np.ndarray:
    """Frames `[1 + 4k, H, W, 3]` of a picture or clip.

    Args:
      source: see `read_frames`.
      what: its name in a complaint, unless it is a file.
      join: 'start' or 'end' of it, where the video goes on; frames too many
        are cut from the other end.
      sound: whether the video keeps its sound.
    """
    frames = read_once(source, self.fps)
    if isinstance(source, str | os.PathLike):
      what = str(source)
      if sound:
        self._sound = read_sound(source)
      elif has_sound(source):
        self.remarks.append(f'{what} has sound; the video will have none')
    extra = (len(frames) - 1) % timeline.STRIDE
    if extra and not self._trim:
      low = len(frames) - extra
      raise UserError(
        f'{what} has {len(frames)} frames at {self.fps:g} per second, but a '
        f'given clip must have 1 + 4k; cut it to {low} (--trim does so), or '
        f'make it {low + timeline.STRIDE}.'
      )
    if extra:
      side = 'first' if join == 'end' else 'last'
      self.remarks.append(
        f'{what}: its {side} {extra} of {len(frames)} frames were cut'
      )
    cut = extra if join == 'end' else 0
    frames = frames[cut : len(frames) - extra + cut]
    if self._sound is not None and sound:
      seconds = len(frames) / self.fps
      self._sound = place(self._sound, -cut / self.fps, seconds)
    return frames

  def give(self, frame: int, frames: np.ndarray) -> None:
    """Puts frames on the timeline."""
    if frame < 0:
      raise UserError(
        f'a given clip of {len(frames)} frames would begin {-frame} frames '
        'before the video; make the video longer or the clip shorter.'
      )
    self.conditioning.append(Conditioning(frame, frames))

  def ends(
    self, frames: int, first: Source | None, last: Source | None
  ) -> dict[str, int]:
    """Puts what a video begins and ends with; arguments of the order."""
    counts = {'given_first': 0, 'given_last': 0}
    if first is not None:
      self.give(0, self.read(first, 'the first', 'end'))
      counts['given_first'] = self.conditioning[-1].num_latents
    if last is not None:
      clip = self.read(last, 'the last')
      self.give(frames - len(clip), clip)
      counts['given_last'] = self.conditioning[-1].num_latents
    return counts

  def plan(
    self,
    frames: int,
    begun: bool,
    order: Callable[..., Plan],
    *arguments,
    **own,
  ) -> Plan:
    """The plan of a video of so many frames, with the shared settings."""
    fields = {**self.order, **own}
    if order not in (orders.extend, orders.story):
      arguments = (1 + (frames - 1) // timeline.STRIDE, *arguments)
    name = own.get('direction', getattr(order, '__name__', 'inbetween'))
    untrained = self.card.untrained(name)
    if untrained:
      warnings.warn(untrained, Remark, stacklevel=3)
      if not self._anchors_asked:  # What begins within needs some.
        fields['anchors'] = max(fields['anchors'], self.card.block)
    other = frames - self.card.frames if self._bounded else 0
    if 'span' in self.order:  # over what an order brings along
      fields['span'] = self.order['span']
    elif 'span' not in fields and other > 0:
      # Positions that no row was trained on are not for it to see.
      fields['span'] = 1 + (self.card.frames - 1) // timeline.STRIDE
    # Forward begins with what it begins with in training, however short it is.
    begun = begun or order is orders.forward
    if other < 0 and not begun and fields['anchors']:
      fields['open_start'] = True
    try:
      return _made_once(order, arguments, tuple(sorted(fields.items())))
    except TypeError:  # lists of scenes or keyframes
      return order(*arguments, **fields)

  def finish(
    self,
    workflow: str,
    prompt: str | Sequence[str] | Mapping[Any, str],
    frames: int,
    order: Callable[..., Plan],
    *arguments,
    **fields,
  ) -> Request:
    """Builds the plan and the request.

    `prompt` is a text, a schedule `{frame: text}`, or the texts that the order
    refers to by itself.
    """
    given = sorted(self.conditioning, key=lambda clip: clip.frame)
    height, width = self.resolution([clip.video for clip in given])
    texts, switches = self._prompts(prompt, frames)
    begun = any(not clip.frame for clip in given)
    make = functools.partial(self.plan, frames, begun, order, *arguments)
    if switches:
      fields['prompts'] = prompt_switches.on_time(
        lambda prompts: make(**fields, prompts=prompts), switches
      )
    plan = make(**fields)
    if not switches:
      check_count(texts, plan)
    fitted = tuple(
      Conditioning(clip.frame, fit_once(clip.video, height, width))
      for clip in given
    )
    remarks = [*self.remarks, *self.text_remarks(texts)]
    if switches:
      used = {*plan.prompt[~plan.conditioning].tolist()}
      remarks += [
        f'the prompt {shown(text)!r} has no effect: its frames are given'
        for index, text in enumerate(texts)
        if index not in used
      ]
    sound = self._sound
    if sound is not None:
      sound = place(sound, given[0].frame / self.fps, frames / self.fps)
    return Request(
      *(workflow, plan, texts, self.seed, height, width, fitted),
      *(tuple(remarks), sound),
    )

  def text_remarks(self, texts: Sequence[str]) -> list[str]:
    """What of the prompts the model will not read."""
    return [
      remark
      for prompt in dict.fromkeys(texts)
      if self._tokenizer is not None
      for remark in self._tokenizer.remarks(prompt, self.card.text.length)
    ]

  def _prompts(self, prompt, frames):
    """Returns the texts, and (position, index) of the switches."""
    texts = texts_of(prompt)
    if not isinstance(prompt, Mapping):
      return texts, ()
    if not prompt:
      raise UserError('the prompt schedule is empty; give {0: text}.')
    times, written = {}, {}
    for at, text in prompt.items():
      frame = timeline.frame(at, self.fps, frames, 'the time of a prompt')
      if frame in times:
        raise UserError(
          f'{written[frame]} and {at}, at which prompts begin, are both frame '
          f'{frame}; keep one.'
        )
      times[frame], written[frame] = text, at
    if 0 not in times:
      raise UserError('a prompt schedule needs a text at frame 0.')
    moments = sorted(times)
    switches = [
      (self.start + -(-frame // timeline.STRIDE), index)
      for index, frame in enumerate(moments)
      if frame
    ]
    if len({position for position, _ in switches}) < len(switches):
      raise UserError(
        f'of the frames {moments}, at which prompts begin, two are less than 4 '
        'apart; keep them further apart.'
      )
    return tuple(times[frame] for frame in moments), tuple(switches)

  def resolution(self, clips: Sequence[np.ndarray]) -> tuple[int, int]:
    """Height and width: as asked for, else like the first clip, else own."""
    height, width = self._size
    own = (self.card.height, self.card.width)
    shape = clips[0].shape[1:3] if clips else own
    if height is None and width is None:
      return self.card.best_size(shape[0] / shape[1])
    step = self.card.size_step
    if height is None:
      height = max(round(width * shape[0] / shape[1] / step), 1) * step
    if width is None:
      width = max(round(height * shape[1] / shape[0] / step), 1) * step
    self.card.latent_grid(height, width)
    return height, width


@functools.lru_cache(32)
def _made_once(order, arguments, fields) -> Plan:
  """Many prompts share one plan, so that they can share a batch."""
  return order(*arguments, **dict(fields))
