"""From what a user has to a `Request`: one function per thing to do.

Every function takes the model (a `Pipeline` or its card) first. Lengths and
times are whole frames (`24`) or seconds as text (`'2s'`); frames are PIL
images, arrays uint8 `[H, W, 3]` or `[n, H, W, 3]` at the model's frame rate, or
paths of image and video files. A prompt is a text, or a schedule
`{frame: text}` on the finished timeline that begins at frame 0.

Settings that all of them take: `seed`, `height` and `width` (pixels),
`anchors` and `start` (see `orders`; the model's own by default).
"""

from collections.abc import Mapping
from typing import Any

from unitemp_jax.generate.request import Request

Frames = Any  # PIL image, array or path
Length = int | str
Prompt = str | Mapping[int | str, str]


def text_to_video(
  model,
  prompt: Prompt,
  length: Length | None = None,
  order='forward',
  **settings,
) -> Request:
  """A video from text alone, in any order that needs nothing given."""
  raise NotImplementedError


def image_to_video(
  model,
  image: Frames,
  prompt: Prompt,
  length: Length | None = None,
  at: Length = 0,
  **settings,
) -> Request:
  """A video around a picture that is its frame `at` (-1: its last frame)."""
  raise NotImplementedError


def extend(
  model,
  clip: Frames,
  prompt: Prompt,
  before: Length = 0,
  after: Length = 0,
  sides: str = 'alternate',
  **settings,
) -> Request:
  """A clip made longer, at its beginning, its end or both."""
  raise NotImplementedError


def fill(
  model,
  keyframes: Mapping[Length, Frames],
  prompt: Prompt,
  length: Length | None = None,
  side: str = 'past',
  **settings,
) -> Request:
  """A video around given pictures and clips at given times."""
  raise NotImplementedError


def transition(
  model,
  first: Frames,
  last: Frames,
  prompt: Prompt,
  length: Length | None = None,
  side: str = 'outside_in',
  **settings,
) -> Request:
  """One continuous shot from one scene to another."""
  raise NotImplementedError


def loop(
  model,
  prompt: Prompt,
  length: Length | None = None,
  first: Frames | None = None,
  side: str = 'past',
  **settings,
) -> Request:
  """A video whose last frame is its first."""
  raise NotImplementedError


def long_video(
  model,
  prompt: Prompt,
  length: Length = '120s',
  direction: str = 'forward',
  window: int | None = None,
  sinks: str = 'both',
  **settings,
) -> Request:
  """A long video through a sliding window, in constant memory."""
  raise NotImplementedError


def regenerate(
  model,
  clip: Frames,
  span: tuple[Length, Length],
  prompt: Prompt,
  side: str = 'past',
  **settings,
) -> Request:
  """A clip with new frames in a span of it; all others stay as they are."""
  raise NotImplementedError
