"""From what a user has to a `Request`: one function per thing to do.

Every function takes the model (a `Pipeline` or its card) first. Lengths and
times are whole frames (24) or seconds as text ('2s'). Pictures and clips are
paths of files, PIL images, or arrays `[H, W, 3]` or `[n, H, W, 3]`; files are
resampled to the model's frame rate, arrays are taken to have it. A prompt is a
text, or a schedule `{frame: text}` on the finished timeline from frame 0 on; a
switch takes effect with the latent that holds the frame.

Settings that all of them take, beside their own:

* seed: of all noise, 0.
* height, width: pixels. By default the model's own; the shape of a given clip,
  as nearly as the model can make it, at the model's area.
* anchors, start: see `orders.Settings`; the model's own by default.
* window: latents that a block sees at most, the nearest; everything by default.
  In a video longer than those that the model was trained on, nothing is seen
  that is farther away than it was in training.
* trim: cut up to 3 frames off the end of given clips that have not 1 + 4k.

Every function raises UserError, in one sentence, for what cannot be made.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unitemp_jax import orders
from unitemp_jax.errors import UserError
from unitemp_jax.generate import lengths
from unitemp_jax.generate.conditioning import Source
from unitemp_jax.generate.draft import Draft
from unitemp_jax.generate.lengths import Length
from unitemp_jax.generate.request import Request

Prompt = str | Mapping[Any, str]


def text_to_video(
  model,
  prompt: Prompt,
  length: Length | None = None,
  order: str = 'forward',
  **settings,
) -> Request:
  """A video from text alone.

  Args:
    model: pipeline or card.
    prompt: what it shows.
    length: of the video; the model's own by default.
    order: forward, backward or loop.
    **settings: see the module.
  """
  if order not in ('forward', 'backward', 'loop'):
    raise UserError(
      f'the order {order!r} needs more than text, or does not exist; use '
      'forward, backward or loop.'
    )
  draft = Draft(model, settings)
  frames = draft.length(length)
  make = orders.ORDERS[order]
  return draft.finish(order, prompt, frames, make, 1 + (frames - 1) // 4)


def image_to_video(
  model,
  image: Source,
  prompt: Prompt,
  length: Length | None = None,
  at: Length = 0,
  **settings,
) -> Request:
  """A video around a picture, or a clip, at any time in it.

  Args:
    model: pipeline or card.
    image: the picture or clip.
    prompt: what the video shows.
    length: of the video; the model's own by default.
    at: frame where it stands; -1 makes it the last one, and the video runs
      backward from it.
    **settings: see the module.
  """
  draft = Draft(model, settings)
  frames = draft.length(length)
  given = draft.read(image, 'the given picture')
  before = lengths.moment(at, draft.fps, frames, 'at')
  if _counts_back(at):
    before -= len(given) - 1
  return _grow(draft, 'image', prompt, given, before, frames, 'alternate')


def _grow(draft, workflow, prompt, given, before, frames, sides) -> Request:
  """A video of so many frames around what is given."""
  after = frames - len(given) - before
  if after < 0:
    raise UserError(
      f'{len(given)} given frames from frame {before} on do not fit a video of '
      f'{frames}; make it at least {before + len(given)} long.'
    )
  draft.give(before, given)
  draft.start = -before // 4
  return draft.finish(
    workflow,
    prompt,
    frames,
    orders.extend,
    1 + (len(given) - 1) // 4,
    before=before // 4,
    after=after // 4,
    sides=sides,
  )


def _counts_back(at: Length) -> bool:
  return str(at).strip().startswith('-')


def extend(
  model,
  clip: Source,
  prompt: Prompt,
  before: Length = 0,
  after: Length = 0,
  sides: str = 'alternate',
  **settings,
) -> Request:
  """A clip made longer, at its beginning, its end or both.

  Args:
    model: pipeline or card.
    clip: what is there; all its frames stay as they are.
    prompt: what the video shows.
    before: how much is added before it.
    after: how much is added after it.
    sides: which side grows first: past, future, or alternate.
    **settings: see the module.
  """
  draft = Draft(model, settings)
  past = lengths.addition(before, draft.fps, 'before')
  future = lengths.addition(after, draft.fps, 'after')
  given = draft.read(clip, 'the clip')
  frames = past + len(given) + future
  return _grow(draft, 'extend', prompt, given, past, frames, sides)


def fill(
  model,
  keyframes: Mapping[Any, Source],
  prompt: Prompt,
  length: Length | None = None,
  side: str = 'past',
  **settings,
) -> Request:
  """A video around given pictures and clips at given times.

  Args:
    model: pipeline or card.
    keyframes: by time; a time that counts from the end (-1) is where it ends.
    prompt: what the video shows.
    length: of the video; by default it ends with the last that is given, or
      has the model's own length if that is longer.
    side: from which side gaps are filled: past, future, outside_in, middle_out.
    **settings: see the module.
  """
  draft = Draft(model, settings)
  if not keyframes:
    raise UserError('give at least one keyframe.')
  clips = {
    at: draft.read(source, f'the keyframe at {at}')
    for at, source in keyframes.items()
  }
  own = draft.card.frames
  for at, clip in clips.items():
    if length is None and not _counts_back(at):
      begin = lengths.moment(at, draft.fps, 10**9 + 1, f'keyframe {at}')
      own = max(own, begin + len(clip))
  frames = draft.length(own if length is None else length)
  for at, clip in clips.items():
    begin = lengths.moment(at, draft.fps, frames, f'keyframe {at}')
    draft.give(begin - (len(clip) - 1 if _counts_back(at) else 0), clip)
  return draft.finish(
    'keyframes',
    prompt,
    frames,
    orders.keyframes,
    1 + (frames - 1) // 4,
    [(clip.frame // 4, clip.num_latents) for clip in draft.given],
    side=side,
  )


def transition(
  model,
  first: Source,
  last: Source,
  prompt: Prompt,
  length: Length | None = None,
  side: str = 'outside_in',
  **settings,
) -> Request:
  """One continuous shot from one scene to another.

  Args:
    model: pipeline or card.
    first: picture or clip that it begins with.
    last: picture or clip that it ends with.
    prompt: what it shows; a schedule can switch it on the way.
    length: of the video, both ends included; the model's own by default.
    side: see `fill`.
    **settings: see the module.
  """
  draft = Draft(model, settings)
  frames = draft.length(length)
  ends = draft.read(first, 'the first'), draft.read(last, 'the last')
  draft.give(0, ends[0])
  draft.give(frames - len(ends[1]), ends[1])
  return draft.finish(
    'transition',
    prompt,
    frames,
    orders.transition,
    1 + (frames - 1) // 4,
    given_first=1 + (len(ends[0]) - 1) // 4,
    given_last=1 + (len(ends[1]) - 1) // 4,
    side=side,
  )


def loop(
  model,
  prompt: Prompt,
  length: Length | None = None,
  first: Source | None = None,
  side: str = 'future',
  **settings,
) -> Request:
  """A video whose last frame is its first.

  Args:
    model: pipeline or card.
    prompt: what it shows.
    length: of the video, the repeated frame included.
    first: picture or clip that it begins with, if any.
    side: see `fill`.
    **settings: see the module.
  """
  draft = Draft(model, settings)
  frames = draft.length(length)
  count = 0
  if first is not None:
    given = draft.read(first, 'the first')
    draft.give(0, given)
    count = 1 + (len(given) - 1) // 4
  return draft.finish(
    'loop',
    prompt,
    frames,
    orders.loop,
    1 + (frames - 1) // 4,
    given_first=count,
    side=side,
  )


def long_video(
  model,
  prompt: Prompt,
  length: Length,
  direction: str = 'forward',
  sinks: str | None = None,
  first: Source | None = None,
  last: Source | None = None,
  **settings,
) -> Request:
  """A video of any length through a sliding window, in constant memory.

  Args:
    model: pipeline or card.
    prompt: what it shows.
    length: of the video.
    direction: forward or backward.
    sinks: ends of the video that stay in view: none, past, future, both; the
      model's own by default.
    first: picture or clip that it begins with, if any.
    last: picture or clip that it ends with, if any.
    **settings: see the module; the window is by default as large as the
      positions allow that the model was trained on.
  """
  draft = Draft(model, settings)
  frames = draft.length(length)
  counts = {'first': 0, 'last': 0}
  for name, source in (('first', first), ('last', last)):
    if source is not None:
      clip = draft.read(source, f'the {name}')
      draft.give(0 if name == 'first' else frames - len(clip), clip)
      counts[name] = 1 + (len(clip) - 1) // 4
  return draft.finish(
    'long',
    prompt,
    frames,
    orders.long,
    1 + (frames - 1) // 4,
    direction=direction,
    sinks=draft.card.sinks if sinks is None else sinks,
    span=1 + (draft.card.frames - 1) // 4,
    given_first=counts['first'],
    given_last=counts['last'],
  )


def regenerate(
  model,
  clip: Source,
  span: tuple[Length, Length],
  prompt: Prompt,
  side: str = 'outside_in',
  **settings,
) -> Request:
  """A clip with new frames in a span of it; all others stay as they are.

  Args:
    model: pipeline or card.
    clip: what is there, 1 + 4k frames.
    span: its first and last frame to be made anew. What is made is the
      smallest span of whole latents that holds them: 4a + 1 .. 4b - 1.
    prompt: what the video shows.
    side: see `fill`.
    **settings: see the module.
  """
  draft = Draft(model, settings)
  given = draft.read(clip, 'the clip')
  frames = len(given)
  low, high = (lengths.frame(t, draft.fps, frames, 'the span') for t in span)
  if not 1 <= low <= high <= frames - 6:
    raise UserError(
      f'the span {low}..{high} does not lie inside the clip: of its {frames} '
      f'frames, 1..{frames - 6} can be made anew.'
    )
  first, end = -(-low // 4), high // 4 + 2  # latents first .. end - 1
  draft.give(0, given[: 4 * first - 3])
  draft.give(4 * (end - 1), given[4 * (end - 1) :])
  return draft.finish(
    'regenerate',
    prompt,
    frames,
    orders.regenerate,
    1 + (frames - 1) // 4,
    first,
    end - first,
    side=side,
  )


def story(
  model,
  scenes: Sequence[tuple[str, Length]],
  connections: Length = '1s',
  loop: bool = False,
  side: str = 'outside_in',
  **settings,
) -> Request:
  """Scenes in one continuous video; storyboard files can do more.

  Args:
    model: pipeline or card.
    scenes: prompt and length of each.
    connections: length of what leads from each scene to the next.
    loop: whether the last scene leads back to the first.
    side: see `fill`.
    **settings: see the module.
  """
  draft = Draft(model, settings)
  between = lengths.addition(connections, draft.fps, 'connections') // 4
  made, total = [], 0
  for index, (_, length) in enumerate(scenes):
    what = f'the length of scene {index + 1}'
    count = lengths.addition(length, draft.fps, what) // 4 + (index == 0)
    made.append(orders.Scene(count, index))
    total += count + between * (loop or index + 1 < len(scenes))
  texts = [text for text, _ in scenes]
  return draft.finish(
    'story',
    texts,
    1 + 4 * (total - 1),
    orders.story,
    made,
    between,
    loop=loop,
    side=side,
  )
