"""A request on its way: sizes, given frames and prompts that fit the model."""

import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

from unitemp_jax import orders, timeline
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import Remark, UserError
from unitemp_jax.generate.request import Given, Request
from unitemp_jax.plans import Plan
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.timeline import Length
from unitemp_jax.video.read import fit, read_image, read_video

Source = str | Path | Image.Image | np.ndarray
_IMAGES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')


class Model(NamedTuple):
  """What requests must know of a model, without its weights."""

  card: ModelCard
  tokenizer: Tokenizer | None = None


class Draft:
  """What workflows have in common.

  Attributes:
    card: of the model.
    fps: frames per second.
    start: temporal position of the first latent.
    given: frames so far, as they were read; `finish` fits their size.
    order: settings of the order, see `orders.Settings`.
    remarks: sentences on what of the input the video will not have.
  """

  def __init__(self, model: Any, settings: Mapping[str, Any]):
    """Takes the settings that all workflows share.

    Args:
      model: a `Pipeline`, a `Model`, or a card.
      settings: see `workflows`.

    Raises:
      UserError: a setting is unknown or cannot be.
    """
    self.card: ModelCard = getattr(model, 'card', model)
    self._tokenizer: Tokenizer | None = getattr(model, 'tokenizer', None)
    self.fps = self.card.fps
    self.start = 0
    self.given: list[Given] = []
    self.remarks: list[str] = []
    rest = dict(settings)
    self._seed = int(rest.pop('seed', 0))
    self._size = rest.pop('height', None), rest.pop('width', None)
    self._trim = bool(rest.pop('trim', False))
    self._bounded = bool(rest.pop('bounded', True))
    self.order: dict[str, Any] = {'block': self.card.block}
    for name in ('anchors', 'start', 'window'):
      self.order[name] = getattr(self.card, name)
    self._anchors_asked = rest.get('anchors') is not None
    for name in ('anchors', 'start', 'window'):
      value = rest.pop(name, None)
      if value is not None:
        self.order[name] = value
    if rest:
      raise UserError(
        f'there is no setting {next(iter(rest))!r}; use seed, height, width, '
        'anchors, start, window or trim.'
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

  def read(self, source: Source, what: str, join: str = 'start') -> np.ndarray:
    """Frames `[1 + 4k, H, W, 3]` of a picture or clip.

    Args:
      source: see `read_frames`.
      what: its name in a complaint, unless it is a file.
      join: 'start' or 'end' of it, where the video goes on; frames too many
        are cut from the other end.

    Raises:
      UserError: it cannot be read, or has not 1 + 4k frames.
    """
    frames = read_frames(source, self.fps)
    if isinstance(source, str | Path):
      what = str(source)
      if _has_sound(Path(source)):
        self.remarks.append(f'{what} has sound; the video will have none')
    extra = (len(frames) - 1) % timeline.STRIDE
    if extra and not self._trim:
      low = len(frames) - extra
      raise UserError(
        f'{what} has {len(frames)} frames at {self.fps:g} per second, but a '
        f'given clip must have 1 + 4k; cut it to {low} (trim does so), or make '
        f'it {low + 4}.'
      )
    if extra:
      side = 'first' if join == 'end' else 'last'
      self.remarks.append(
        f'{what}: its {side} {extra} of {len(frames)} frames were cut'
      )
    return frames[extra:] if join == 'end' else frames[: len(frames) - extra]

  def give(self, frame: int, frames: np.ndarray) -> None:
    """Puts frames on the timeline."""
    if frame < 0:
      raise UserError(
        f'a given clip of {len(frames)} frames would begin {-frame} frames '
        'before the video; make the video longer or the clip shorter.'
      )
    self.given.append(Given(frame, frames))

  def ends(
    self, frames: int, first: Source | None, last: Source | None
  ) -> dict[str, int]:
    """Puts what a video begins and ends with; arguments of the order."""
    counts = {'given_first': 0, 'given_last': 0}
    if first is not None:
      self.give(0, self.read(first, 'the first', 'end'))
      counts['given_first'] = self.given[-1].num_latents
    if last is not None:
      clip = self.read(last, 'the last')
      self.give(frames - len(clip), clip)
      counts['given_last'] = self.given[-1].num_latents
    return counts

  def plan(
    self,
    frames: int,
    begun: bool,
    order: Callable[..., Plan],
    *arguments,
    **own,
  ) -> Plan:
    """The plan of a video of so many frames, with the shared settings.

    Args:
      frames: of the video.
      begun: whether its first frame is given.
      order: from `orders`.
      *arguments: its own, after the length in latents if it takes that.
      **own: its own.
    """
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
    if 'span' not in fields and other > 0:
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

    Args:
      workflow: its name.
      prompt: a text, a schedule `{frame: text}`, or the texts that the order
        refers to by itself.
      frames: of the video.
      order: from `orders`.
      *arguments: see `plan`.
      **fields: see `plan`.

    Raises:
      UserError: anything does not fit.
    """
    given = sorted(self.given, key=lambda clip: clip.frame)
    height, width = self.resolution([clip.video for clip in given])
    texts, switches = self._prompts(prompt, frames)
    if switches:
      fields['prompts'] = switches
    begun = any(not clip.frame for clip in given)
    plan = self.plan(frames, begun, order, *arguments, **fields)
    fitted = tuple(
      Given(clip.frame, fit(clip.video, height, width)) for clip in given
    )
    remarks = list(self.remarks)
    if self._tokenizer is not None:
      for prompt in dict.fromkeys(texts):
        remarks += self._tokenizer.remarks(prompt, self.card.text.length)
    return Request(
      workflow, plan, texts, self._seed, height, width, fitted, tuple(remarks)
    )

  def _prompts(self, prompt, frames):
    """Returns the texts, and (position, index) of the switches."""
    if isinstance(prompt, str):
      return (prompt,), ()
    if not isinstance(prompt, Mapping):
      return tuple(prompt), ()
    if not prompt:
      raise UserError('the prompt schedule is empty; give {0: text}.')
    times = {
      timeline.frame(at, self.fps, frames, f'the prompt at {at}'): text
      for at, text in prompt.items()
    }
    if len(times) < len(prompt) or 0 not in times:
      raise UserError(
        'a prompt schedule needs one text at frame 0, and no frame twice.'
      )
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
      return best_size(self.card, shape[0] / shape[1])
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


def read_frames(source: Source, fps: float) -> np.ndarray:
  """Frames of an image or a clip, uint8 `[n, H, W, 3]`.

  Args:
    source: a path of an image or video file, a PIL image, or an array
      `[H, W, 3]` or `[n, H, W, 3]`, uint8 or floats in [0, 1].
    fps: frames per second that video files are resampled to.

  Raises:
    UserError: unreadable, or no picture at all.
  """
  if isinstance(source, str | Path):
    path = Path(source)
    if path.suffix.lower() in _IMAGES:
      return read_image(path)[None]
    return read_video(path, fps)[0]
  if isinstance(source, Image.Image):
    return np.asarray(source.convert('RGB'))[None]
  frames = np.asarray(source)
  if frames.dtype.kind == 'f' and frames.size:
    if not (frames.min() >= 0 and frames.max() <= 1):
      raise UserError('frames given as floats must lie in [0, 1].')
    frames = np.round(frames * 255).astype(np.uint8)
  frames = frames[None] if frames.ndim == 3 else frames
  if frames.ndim != 4 or 0 in frames.shape or frames.shape[-1] != 3:
    raise UserError(
      'given frames must be an image [H, W, 3] or a clip [n, H, W, 3], not '
      f'an array of shape {list(frames.shape)}.'
    )
  if frames.dtype != np.uint8:
    raise UserError(
      f'given frames must be uint8 or floats in [0, 1], not {frames.dtype}.'
    )
  return frames


def _has_sound(path: Path) -> bool:
  if path.suffix.lower() in _IMAGES:
    return False
  with av.open(str(path)) as container:
    return bool(container.streams.audio)


def best_size(card: ModelCard, aspect: float) -> tuple[int, int]:
  """Height and width at the model's area that come nearest to a shape.

  Args:
    card: of the model.
    aspect: height over width.

  Returns:
    Multiples of `card.size_step`; the model's own size where that is as near.
  """
  step, area = card.size_step, card.height * card.width
  own = (card.height, card.width)

  def distance(size):
    height, width = size
    shape = abs(math.log(height / width / aspect))
    # An area that is off by a factor of 2 is as bad as a shape by 1.4.
    return shape + 0.5 * abs(math.log(height * width / area)), size != own

  heights = range(step, 4 * max(own) + 1, step)
  sizes = [
    (height, max(round(height / aspect / step), 1) * step) for height in heights
  ]
  return min([own, *sizes], key=distance)
