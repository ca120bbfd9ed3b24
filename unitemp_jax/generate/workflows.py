"""Workflows: one function per task, from prompts and pictures to a `Request`.

Arguments that mean the same everywhere:

* model: a `Pipeline`, a `Model`, or a card.
* prompt: what the video shows, a text, or a schedule `{frame: text}` on the
  finished timeline from frame 0 on; a switch takes effect with the 4 frames
  that hold it.
* lengths and times: whole frames (24), or seconds as text ('2s'); a time below
  0 counts from the end. `length` is that of the video, the model's by default.
* pictures and clips: paths of files, PIL images, or arrays `[H, W, 3]` or
  `[n, H, W, 3]`; files are resampled to the model's frame rate.
* first, last: picture or clip that the video begins or ends with.
* side: from which side gaps are filled: past, future, outside_in, middle_out.

Settings that all of them take, beside their own:

* seed: of all noise, 0.
* height, width: pixels. By default the model's own; the shape of a given clip,
  as nearly as the model can make it, at the model's area.
* anchors, start: see `orders.Settings`; the model's own by default.
* block: latents per block; the model's own by default.
* trained_span: positions of latents that may meet in a block's view; see below.
* window: latents that a block sees at most, the nearest; everything by default.
  In a video longer than those that the model was trained on, nothing is seen
  that is farther away than it was in training.
* bounded: whether what is said of longer videos holds, and shorter ones that
  are not made forward have an open start; True. `unitemp generate --orders` and
  evaluation sets make every length as the model's own.
* trim: cut up to 3 frames off given clips that have not 1 + 4k, on the side
  where the video does not go on.

Every function raises UserError, in one sentence, for what cannot be made. What
of the input the video will not have (sound, but in `extend` and `regenerate`,
cut frames, words that the model does not know) is said in `Request.remarks`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unitemp_jax import orders, timeline
from unitemp_jax.errors import UserError
from unitemp_jax.generate.request import (
  Draft,
  Model,
  Request,
  check_count,
  check_flag,
  check_whole,
  texts_of,
)
from unitemp_jax.plans import Plan
from unitemp_jax.timeline import Length
from unitemp_jax.video.read import Source

__all__ = ['Model']
Prompt = str | Mapping[Any, str]


def text_to_video(
  model,
  prompt: Prompt,
  length: Length | None = None,
  order: str = 'forward',
  first: Source | None = None,
  last: Source | None = None,
  **settings,
) -> Request:
  """A video in one of `orders.ORDERS`; some fill between two given ends."""
  if not isinstance(order, str) or order not in orders.ORDERS:
    raise UserError(
      f'there is no order {order!r:.60}; use {", ".join(orders.ORDERS)}.'
    )
  if order.startswith('inbetween') and (first is None or last is None):
    raise UserError(
      f'the order {order} fills between two given frames; give first and last '
      '(--first and --last).'
    )
  if order == 'loop' and last is not None:
    raise UserError('a loop ends where it starts; leave out the last (--last).')
  draft = Draft(model, settings)
  frames = draft.length(length)
  if order == 'loop':
    _check_loop(frames)
  ends = draft.ends(frames, first, last)
  return draft.finish(order, prompt, frames, orders.ORDERS[order], **ends)


def _check_loop(frames: int) -> None:
  if frames < 9:
    raise UserError(
      f'a loop of {frames} frames is too short; use 9 or more (--length=9).'
    )


def image_to_video(
  model,
  image: Source,
  prompt: Prompt,
  length: Length | None = None,
  at: Length = 0,
  **settings,
) -> Request:
  """A video around a picture, or a clip, that stands at any time in it.

  At -1 it is the end, and the video runs backward from it.
  """
  draft = Draft(model, settings)
  frames = draft.length(length)
  before = timeline.moment(at, draft.fps, frames, 'at')
  given = draft.read(image, 'the given picture', 'start' if before else 'end')
  if _counts_back(at):
    before -= len(given) - 1
  return _grow(draft, 'image', prompt, given, before, frames, 'alternate')


def _grow(draft, workflow, prompt, given, before, frames, sides) -> Request:
  """A video of so many frames around what is given."""
  after = frames - len(given) - before
  if before == after == 0:
    raise UserError(
      f'all {frames} frames of the video are given, so that nothing is left to '
      f'make; make it longer, such as --length={frames + 12}.'
    )
  if after < 0:
    raise UserError(
      f'{len(given)} given frames from frame {before} on do not fit a video of '
      f'{frames}; make it at least {before + len(given)} long.'
    )
  draft.give(before, given)
  draft.start = -before // timeline.STRIDE
  return draft.finish(
    workflow,
    prompt,
    frames,
    orders.extend,
    draft.conditioning[0].num_latents,
    before=before // timeline.STRIDE,
    after=after // timeline.STRIDE,
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
  """A clip made longer by so much before and after it; its frames stay.

  So does its sound, which is silence in what is added.

  `sides` says which side grows first: past, future, or alternate.
  """
  draft = Draft(model, settings)
  past = timeline.fit(before, 'before', draft.fps)
  future = timeline.fit(after, 'after', draft.fps)
  if not past + future:
    raise UserError('extend needs --before or --after, such as --after=24.')
  join = 'start' if past else 'end'
  given = draft.read(clip, 'the clip', join, sound=True)
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
  """A video around pictures and clips by time; one at -1 is where it ends.

  By default it ends with the last that is given, or has the model's own length
  if that is longer.
  """
  draft = Draft(model, settings)
  if not isinstance(keyframes, Mapping) or not keyframes:
    raise UserError('give keyframes by time, such as {0: first, -1: last}.')
  clips = {
    at: draft.read(
      source,
      f'the keyframe at {at}',
      'start' if str(at).strip().strip('0s.') else 'end',
    )
    for at, source in keyframes.items()
  }
  own = draft.card.frames
  for at, clip in clips.items():
    if length is None and not _counts_back(at):
      begin = timeline.moment(
        at, draft.fps, timeline.MOST_FRAMES, f'keyframe {at}'
      )
      own = max(own, begin + len(clip))
  frames = draft.length(own if length is None else length)
  for at, clip in clips.items():
    begin = timeline.moment(at, draft.fps, frames, f'keyframe {at}')
    begin -= len(clip) - 1 if _counts_back(at) else 0
    for other in draft.conditioning:
      last = other.frame + len(other.video) - 1
      if begin <= last and other.frame < begin + len(clip):
        free = timeline.last_frame(timeline.latent_of(last + 1))
        raise UserError(
          f'keyframe {at}: there is '
          f'{_range(other.frame, last)} already; use frame {free} or later, or '
          'leave one out.'
        )
    draft.give(begin, clip)
  given = [
    (clip.frame // timeline.STRIDE, clip.num_latents)
    for clip in draft.conditioning
  ]
  return draft.finish(
    'keyframes', prompt, frames, orders.keyframes, given, side=side
  )


def _range(first: int, last: int) -> str:
  if first == last:
    return f'a picture at frame {first}'
  return f'a clip at frames {first}..{last}'


def transition(
  model,
  first: Source,
  last: Source,
  prompt: Prompt,
  length: Length | None = None,
  side: str = 'outside_in',
  **settings,
) -> Request:
  """One continuous shot from one scene to another; both are in its length."""
  draft = Draft(model, settings)
  frames = draft.length(length)
  ends = draft.ends(frames, first, last)
  if sum(len(clip.video) for clip in draft.conditioning) >= frames:
    raise UserError(
      f'the two given parts have all {frames} frames of the video, so that '
      'nothing is left to make; make it longer (--length).'
    )
  return draft.finish(
    'transition', prompt, frames, orders.transition, side=side, **ends
  )


def loop(
  model,
  prompt: Prompt,
  length: Length | None = None,
  first: Source | None = None,
  side: str = 'future',
  **settings,
) -> Request:
  """A video whose last frame, which counts, is its first."""
  draft = Draft(model, settings)
  frames = draft.length(length)
  _check_loop(frames)
  count = draft.ends(frames, first, None)['given_first']
  return draft.finish(
    'loop', prompt, frames, orders.loop, given_first=count, side=side
  )


def long_video(
  model,
  prompt: Prompt,
  length: Length,
  direction: str = 'forward',
  sinks: str | None = None,
  first: Source | None = None,
  last: Source | None = None,
  sink_latents: int | None = None,
  **settings,
) -> Request:
  """A video of any length through a sliding window, in constant memory.

  Made forward or backward; `sinks` are the ends that stay in view: none, past,
  future, both, the model's own by default, of `sink_latents` each. The window
  is by default as large as the positions allow that the model was trained on.
  """
  draft = Draft(model, settings)
  frames = draft.length(length)
  if sink_latents is not None:
    sink_latents = check_whole('sink_latents', sink_latents)
    block = draft.order['block']
    if sink_latents > block:
      draft.remarks.append(
        f'of {sink_latents} --sink_latents a generated block has {block}; no '
        'more stay in view'
      )
  return draft.finish(
    'long',
    prompt,
    frames,
    orders.long,
    direction=direction,
    sinks=draft.card.sinks if sinks is None else sinks,
    span=timeline.num_latents(draft.card.frames),
    sink_latents=sink_latents,
    **draft.ends(frames, first, last),
  )


def regenerate(
  model,
  clip: Source,
  span: tuple[Length, Length],
  prompt: Prompt,
  side: str = 'outside_in',
  **settings,
) -> Request:
  """A clip of which all frames stay but those of a span.

  `span` is the first and last frame to be made anew. What is made is the
  smallest span of whole latents that holds them: 4a + 1 .. 4b - 1. The whole
  sound of the clip stays.
  """
  draft = Draft(model, settings)
  given = draft.read(clip, 'the clip', sound=True)
  frames = len(given)
  if not isinstance(span, Sequence) or isinstance(span, str) or len(span) != 2:
    raise UserError(f'the span is {span!r:.60}; give two frames, as (9, 19).')
  low, high = (timeline.frame(t, draft.fps, frames, 'the span') for t in span)
  if low > high:
    raise UserError(f'the span {low}:{high} is reversed; write {high}:{low}.')
  if frames < 9:
    raise UserError(
      f'a clip of {frames} frames is too short to make some of it anew; give 9 '
      'frames or more.'
    )
  if not 1 <= low <= high <= frames - 6:
    raise UserError(
      f'the span {low}..{high} does not lie inside the clip: of its {frames} '
      f'frames, 1..{frames - 6} can be made anew.'
    )
  # Latents first .. end - 1 are made anew.
  first = timeline.latent_of(low)
  end = high // timeline.STRIDE + 2
  made = timeline.first_frame(first), timeline.last_frame(end - 1) - 1
  if made != (low, high):
    draft.remarks.append(
      f'frames {made[0]}..{made[1]} are made anew, in fours, to hold the span '
      f'{low}..{high}'
    )
  draft.give(0, given[: timeline.first_frame(first)])
  draft.give(
    timeline.last_frame(end - 1), given[timeline.last_frame(end - 1) :]
  )
  return draft.finish(
    *('regenerate', prompt, frames, orders.regenerate, first, end - first),
    side=side,
  )


def from_plan(model, plan: Plan, prompt: Prompt, **settings) -> Request:
  """A video by a plan that was written elsewhere (`unitemp plan --out`)."""
  draft = Draft(model, settings)
  if not isinstance(plan, Plan):
    raise UserError(f'the plan is {plan!r:.60}; give one of plans.text.load().')
  if len(plan.preloaded()[1]):
    raise UserError(
      'the plan reads frames that are given; use the option of what it does, '
      'such as --extend or --keyframe.'
    )
  texts = texts_of(prompt)
  check_count(texts, plan)
  height, width = draft.resolution([])
  remarks = draft.text_remarks(texts)
  if len(texts) > 1:
    remarks.append('the plan says when each prompt holds, not --prompt_at')
  return Request(
    *('plan', plan, texts, draft.seed, height, width), remarks=tuple(remarks)
  )


def story(
  model,
  scenes: Sequence[tuple[str, Length]],
  connections: Length = '1s',
  loop: bool = False,
  side: str = 'outside_in',
  **settings,
) -> Request:
  """Scenes (prompt, length) in one continuous video, perhaps a loop.

  `connections` is the length of what leads from each scene to the next.
  Storyboard files can do more.
  """
  draft = Draft(model, settings)
  check_flag('loop', loop)
  if not isinstance(scenes, list | tuple) or not all(
    isinstance(scene, list | tuple) and len(scene) == 2 for scene in scenes
  ):
    raise UserError('give scenes as a list of (prompt, length).')
  between = timeline.fit(connections, 'connections', draft.fps)
  between //= timeline.STRIDE
  made, total = [], 0
  for index, (_, length) in enumerate(scenes):
    what = f'the length of scene {index + 1}'
    count = timeline.fit(length, what, draft.fps) // timeline.STRIDE
    count += index == 0
    made.append(orders.Scene(count, index))
    total += count + between * (loop or index + 1 < len(scenes))
  return draft.finish(
    'story',
    [text for text, _ in scenes],
    timeline.num_frames(total),
    orders.story,
    made,
    between,
    loop=loop,
    side=side,
  )
