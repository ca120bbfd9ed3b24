"""A request on its way: sizes, given frames and prompts that fit the model."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import orders
from unitemp_jax.errors import Remark, UserError
from unitemp_jax.generate import lengths
from unitemp_jax.generate.conditioning import Source, read_frames
from unitemp_jax.generate.lengths import Length
from unitemp_jax.generate.request import Given, Request
from unitemp_jax.plans import Plan
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.video.resize import fit


class Draft:
  """What workflows have in common.

  Attributes:
    card: of the model.
    fps: frames per second.
    start: temporal position of the first latent.
    given: frames so far, as they were read; `finish` fits their size.
    order: settings of the order, see `orders.Settings`.
  """

  def __init__(self, model: Any, settings: Mapping[str, Any]):
    """Takes the settings that all workflows share.

    Args:
      model: a `Pipeline` or its card.
      settings: see `workflows`.

    Raises:
      UserError: a setting is unknown or cannot be.
    """
    self.card: ModelCard = getattr(model, 'card', model)
    self.fps = self.card.fps
    self.start = 0
    self.given: list[Given] = []
    rest = dict(settings)
    self._seed = int(rest.pop('seed', 0))
    self._size = rest.pop('height', None), rest.pop('width', None)
    self._trim = bool(rest.pop('trim', False))
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
    return lengths.video(value, self.fps)

  def read(self, source: Source, what: str) -> np.ndarray:
    """Frames `[1 + 4k, H, W, 3]` of a picture or clip."""
    frames = read_frames(source, self.fps)
    what = str(source) if isinstance(source, str | Path) else what
    extra = (len(frames) - 1) % 4
    if extra and not self._trim:
      low = len(frames) - extra
      raise UserError(
        f'{what} has {len(frames)} frames at {self.fps:g} per second, but a '
        f'given clip must have 1 + 4k; cut it to {low} (trim does so), or make '
        f'it {low + 4}.'
      )
    return frames[: len(frames) - extra]

  def give(self, frame: int, frames: np.ndarray) -> None:
    """Puts frames on the timeline."""
    if frame < 0:
      raise UserError(
        f'a given clip of {len(frames)} frames would begin {-frame} frames '
        'before the video; make the video longer or the clip shorter.'
      )
    self.given.append(Given(frame, frames))

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
      *arguments: its own.
      **fields: its own.

    Raises:
      UserError: anything does not fit.
    """
    given = sorted(self.given, key=lambda clip: clip.frame)
    height, width = self.resolution([clip.video for clip in given])
    texts, switches = self._prompts(prompt, frames)
    if switches:
      fields['prompts'] = switches
    fields = {**self.order, **fields}
    name = fields.get('direction', order.__name__)
    untrained = self.card.untrained(name)
    if untrained:
      warnings.warn(untrained, Remark, stacklevel=3)
      if not self._anchors_asked:  # What begins within needs some.
        fields['anchors'] = max(fields['anchors'], self.card.block)
    if 'span' not in fields and frames > self.card.frames:
      # Positions that no row was trained on are not for it to see.
      fields['span'] = 1 + (self.card.frames - 1) // 4
    # Forward begins with what it begins with in training, however short it is.
    begun = order is orders.forward or any(not clip.frame for clip in given)
    if frames < self.card.frames and not begun and fields['anchors']:
      fields['open_start'] = True
    plan = order(*arguments, **fields)
    return Request(
      workflow,
      plan,
      texts,
      self._seed,
      height,
      width,
      tuple(
        Given(clip.frame, fit(clip.video, height, width)) for clip in given
      ),
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
      lengths.frame(at, self.fps, frames, f'the prompt at {at}'): text
      for at, text in prompt.items()
    }
    if len(times) < len(prompt) or 0 not in times:
      raise UserError(
        'a prompt schedule needs one text at frame 0, and no frame twice.'
      )
    moments = sorted(times)
    switches = [
      (self.start + -(-frame // 4), index)
      for index, frame in enumerate(moments)
      if frame
    ]
    if len({position for position, _ in switches}) < len(switches):
      raise UserError(
        f'two prompts switch within one latent (4 frames) of {moments}; keep '
        'them further apart.'
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
