"""Every workflow's plan is lawful, complete, and sees what it should.

`broken_laws` reads a plan without the package's own checks.
"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lawful import made

from unitemp_jax import orders
from unitemp_jax.errors import UserError
from unitemp_jax.plans import DATA_FIELDS, META_FIELDS, check
from unitemp_jax.sampling.sampler import bucket


def generated(plan):
  """The positions of the generated rows, in order of generation."""
  return [
    [position for position, _ in plan.entries(row)]
    for row in np.flatnonzero(~plan.conditioning)
  ]


def schedule(prompts, position):
  return max(((p, i) for p, i in prompts if p <= position), default=(0, 0))[1]


def broken_laws(
  plan, begin, length, window=None, prompts=(), span=None, is_open=False
):
  """An independent reading of what a plan must do; empty when all is well.

  The video has 4 `length` - 3 frames, the first one at position `begin`.
  """
  found = []
  if (plan.begin, plan.num_frames) != (begin, 4 * length - 3):
    found.append('the video has another length or another place')
  # A loop begins within its first latent, which ends it, too.
  begin, length = begin + (is_open and not plan.loops), length - is_open
  end = begin + length
  made = [p for block in generated(plan) for p in block]
  if len(set(made)) < len(made):
    found.append('a position is made twice')
  positions, entries = plan.timeline()
  if positions.tolist() != list(range(begin, end)):
    found.append('the video is not whole')
  if entries.tolist() != list(range(length)):
    found.append('the video is not the start of the buffer')
  written = {
    entry
    for row in np.flatnonzero(~plan.conditioning)
    for _, entry in plan.entries(row)
  }
  if written & set(plan.preloaded()[1].tolist()):
    found.append('a given latent is written')
  known = {e: p for p, e in zip(*plan.preloaded(), strict=True)}
  cache, writers = {}, {}
  for row in range(plan.num_rows):
    own = plan.entries(row)
    visible, anchored = int(plan.visible[row]), bool(plan.anchor[row])
    for _, entry in own:
      if plan.conditioning[row] and entry not in known:
        found.append(f'row {row} reads what is not there')
    if plan.conditioning[row] and (plan.write[row] < 0).all():
      continue  # computes nothing
    if not (
      plan.conditioning[row] or anchored or visible or own[0][0] == begin
    ):
      found.append(f'row {row} is made from nothing')
    if any(slot not in cache for slot in range(visible)):
      found.append(f'row {row} sees a slot that holds nothing good')
    if window is not None and visible - plan.num_sinks > window:
      found.append(f'row {row} sees more than the window')
    seen = [cache.get(slot, 0) for slot in range(visible)]
    moved = plan.sinks[row, : min(visible, plan.num_sinks)].tolist()
    met = [*moved, *seen[plan.num_sinks :], *(p for p, _ in own)]
    met.append(own[0][0] - plan.num_anchors * anchored)
    if span is not None and max(met) - min(met) >= span:
      found.append(f'positions {min(met)} and {max(met)} meet in row {row}')
    if len(set(met[visible:])) < len(set(met)) - visible:
      found.append(f'row {row} sees two latents at one position')
    before = anchored and own[0][0] - plan.num_anchors < begin < own[0][0]
    if before and not is_open:
      found.append(f'anchors of row {row} begin before the video')
    # What is context elsewhere too keeps the prompt of its own place.
    homes = [known.get(e, p) if plan.conditioning[row] else p for p, e in own]
    if any(plan.prompt[row] != schedule(prompts, p) for p in homes):
      found.append(f'prompt of row {row}')
    # Everything behind what is visible is scratch while the row runs.
    for slot in [slot for slot in cache if slot >= visible]:
      room = visible + plan.block + plan.num_anchors * anchored
      if slot < room:
        del cache[slot]
    for (position, entry), slot in zip(own, plan.write[row], strict=False):
      if slot >= 0:
        cache[int(slot)] = position
        writers[int(slot)] = entry
      if not plan.conditioning[row]:
        known[entry] = position
  return found


@st.composite
def styles(draw, low, high):
  """Settings that every order takes, for positions low .. high - 1."""
  block = draw(st.integers(1, 4))
  anchors = draw(st.integers(0, block))
  spans = st.none() | st.integers(block + anchors + 1, 14)
  switches = draw(
    st.dictionaries(st.integers(low, high - 1), st.integers(0, 3), max_size=3)
  )
  return {
    'block': block,
    'anchors': anchors,
    'start': 2,
    'span': draw(spans),
    'window': draw(st.none() | st.integers(1, 9)),
    'prompts': tuple(sorted(switches.items())),
  }


def law_of(style):
  return {name: style[name] for name in ('window', 'span', 'prompts')}


def maybe_open(data, style, begun, length):
  """Opens the start of some videos; returns whether this one's is."""
  wanted = style['anchors'] > 0 and length > 1 and data.draw(st.booleans())
  style['open_start'] = wanted
  return wanted and not begun


@st.composite
def some_given(draw, length):
  """Disjoint (position, count) pairs that leave something to generate."""
  given, position, kept = [], 0, 0
  while True:
    position += draw(st.integers(0, 6))
    count = draw(st.integers(1, 4))
    if position + count > length or draw(st.integers(0, 4)) == 0:
      return given
    kept += count - (count == 1 or position > 0)
    if kept >= length:
      return given
    given.append((position, count))
    position += count


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 30), st.sampled_from(orders.SIDES))
def test_keyframes_obey_the_laws(data, length, side):
  given = data.draw(some_given(length))
  style = data.draw(styles(0, length))
  is_open = maybe_open(data, style, begun=0 in dict(given), length=length)
  plan = made(orders.keyframes, length, given, side=side, **style)
  assert broken_laws(plan, 0, length, **law_of(style), is_open=is_open) == []
  wanted = [
    position
    for first, count in given
    for position in range(first, first + count)
  ]
  assert plan.preloaded()[0].tolist() == wanted


@settings(max_examples=150, deadline=None)
@given(
  st.data(),
  st.integers(1, 8),
  st.integers(0, 14),
  st.integers(0, 14),
  st.sampled_from(orders.GROWTHS),
)
def test_extensions_obey_the_laws(data, count, before, after, sides):
  after += before + after == 0
  style = data.draw(styles(-before, count + after))
  is_open = maybe_open(data, style, begun=before == 0, length=2)
  plan = orders.extend(count, before=before, after=after, sides=sides, **style)
  length = before + count + after
  laws = {**law_of(style), 'is_open': is_open}
  assert broken_laws(plan, -before, length, **laws) == []
  assert plan.preloaded()[0].tolist() == list(range(count))


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(3, 30), st.sampled_from(orders.SIDES))
def test_regeneration_obeys_the_laws(data, length, side):
  first = data.draw(st.integers(1, length - 2))
  count = data.draw(st.integers(1, length - 1 - first))
  style = data.draw(styles(0, length))
  plan = orders.regenerate(length, first, count, side=side, **style)
  assert broken_laws(plan, 0, length, **law_of(style)) == []
  made = sorted(p for block in generated(plan) for p in block)
  assert made == list(range(first, first + count))


@settings(max_examples=100, deadline=None)
@given(
  st.data(),
  st.integers(2, 30),
  st.integers(0, 5),
  st.sampled_from(orders.SIDES),
)
def test_loops_obey_the_laws(data, length, first, side):
  length += max(first, 1)
  style = data.draw(styles(0, length))
  laws = law_of(style)
  if style['span'] is None:  # copies would be farther away than in training
    least = style['block'] + style['anchors'] + 1
    laws['span'] = max(length, least)
  is_open = first == 0 and style['anchors'] > 0
  plan = made(orders.loop, length, side=side, given_first=first, **style)
  assert broken_laws(plan, 0, length, **laws, is_open=is_open) == []
  assert plan.loops
  homes = plan.homes()
  copies = {
    (position, homes[entry])
    for row in np.flatnonzero(plan.conditioning)
    for position, entry in plan.entries(row)
    if position != homes[entry]
  }
  assert copies <= {(length - 1 + k, k) for k in range(style['block'] + 1)}
  assert (length - 1, 0) in copies


scenes = st.builds(orders.Scene, st.integers(1, 10), st.integers(0, 3))
connections = st.integers(1, 7).flatmap(
  lambda length: st.builds(
    orders.Connection,
    st.just(length),
    st.none() | st.integers(0, length),
    st.none() | st.integers(0, 5),
  )
)


def story_prompts(parts, links):
  """(first position, prompt) of all that a story consists of, and its end."""
  prompts, end = [], 0
  for i, part in enumerate(parts):
    prompts.append((end, part.prompt))
    end += part.length
    if i < len(links):
      link, following = links[i], parts[(i + 1) % len(parts)].prompt
      half = link.length // 2 if link.switch is None else link.switch
      if link.prompt is not None:
        prompts.append((end, link.prompt))
      elif half < link.length:
        prompts.append((end + half, following))
      end += link.length
  return tuple(prompts), end


@settings(max_examples=100, deadline=None)
@given(
  st.data(),
  st.lists(scenes, min_size=2, max_size=4),
  st.booleans(),
  st.sampled_from(orders.SIDES),
)
def test_stories_obey_the_laws(data, parts, loop, side):
  number = len(parts) - 1 + loop
  links = data.draw(st.lists(connections, min_size=number, max_size=number))
  prompts, end = story_prompts(parts, links)
  given = data.draw(some_given(end - links[-1].length))
  style = data.draw(styles(0, 1))
  style['prompts'] = ()
  begun = 0 in dict(given)
  is_open = maybe_open(data, style, begun, end)
  if loop:
    is_open = style['anchors'] > 0 and not begun
  parts[0] = dataclasses.replace(parts[0], length=parts[0].length + is_open)
  prompts, end = story_prompts(parts, links)
  style |= {'given': given, 'loop': loop, 'side': side}
  plan = made(orders.story, parts, links, **style)
  laws = {**law_of(style), 'prompts': prompts, 'is_open': is_open}
  found = broken_laws(plan, 0, end, **laws)
  assert found == []


def test_scenes_too_short_for_anchors_see_what_is_before_them():
  parts = [orders.Scene(1), orders.Scene(1), orders.Scene(4)]
  plan = orders.story(parts, 1, side='past', block=3, anchors=3, start=2)
  assert generated(plan)[:3] == [[0], [1], [2]]
  assert plan.visible[: plan.num_rows].tolist()[:3] == [0, 1, 2]
  assert not plan.anchor[1:3].any()
  assert broken_laws(plan, 0, 8) == []


@st.composite
def long_requests(draw):
  sinks = draw(st.sampled_from(orders.SINKS))
  number = draw(st.integers(1, 3))
  block = draw(st.integers(1, 4))
  anchors = draw(st.integers(0, block))
  least = block + anchors + 2 * number + 1
  return {
    'num_latents': draw(st.integers(2 * block + 2 * number + 12, 40)),
    'direction': draw(st.sampled_from(orders.DIRECTIONS)),
    'sinks': sinks,
    'sink_latents': None if sinks == 'none' else number,
    'block': block,
    'anchors': anchors,
    'span': least + draw(st.integers(0, 12)),
    'given_first': draw(st.integers(0, 5)),
    'given_last': draw(st.integers(0, 5)),
    'start': 2,
  }


@settings(max_examples=200, deadline=None)
@given(long_requests())
def test_long_videos_obey_the_laws(request):
  plan = made(orders.long, **request)
  length, span = request['num_latents'], request['span']
  window = plan.num_slots - plan.num_sinks - plan.block - plan.num_anchors
  assert broken_laws(plan, 0, length, window=window, span=span) == []
  ends = {'none': 0, 'past': 1, 'future': 1, 'both': 2}[request['sinks']]
  assert ends <= plan.num_sinks <= ends * (request['sink_latents'] or 0)
  # Once filled, sinks are seen by all later rows.
  full = False
  for row in range(plan.num_rows):
    if plan.idle(row):
      continue
    assert not full or plan.visible[row] >= plan.num_sinks
    full = full or plan.visible[row] >= plan.num_sinks > 0
  assert full or not plan.num_sinks


def test_the_independent_reading_can_fail():
  plan = orders.forward(20, window=6, prompts=((9, 1),))
  laws = {'window': 6, 'prompts': ((9, 1),), 'span': 9}
  assert broken_laws(plan, 0, 20, **laws) == []
  row = 3
  for field, value in (
    ('visible', 7),
    ('visible', 3),
    ('write', [0, 1, 2]),
    ('write', [3, 4, 11]),
    ('write', [-1, -1, -1]),
    ('target', [8, 9, 10]),
    ('latent', [8, 9, 10]),
    ('prompt', 0),
    ('anchor', True),
  ):
    array = getattr(plan, field).copy()
    array[row] = value
    wrong = dataclasses.replace(plan, **{field: array})
    failed = bool(broken_laws(wrong, 0, 20, **laws))
    # Harmless changes are no faults: seeing less, and anchors inside.
    assert failed == ((field, value) not in (('visible', 3), ('anchor', True)))
  for law, value in (('window', 5), ('span', 8), ('prompts', ((8, 1),))):
    assert broken_laws(plan, 0, 20, **{**laws, law: value})


def same(left, right):
  return all(
    np.array_equal(getattr(left, name), getattr(right, name))
    for name in DATA_FIELDS
  ) and all(getattr(left, name) == getattr(right, name) for name in META_FIELDS)


def test_named_orders_are_special_keyframes():
  for side in orders.SIDES:
    ends = orders.inbetween(14, side=side, start=1)
    assert same(
      orders.keyframes(14, ((13, 1), (0, 1)), side=side, start=1), ends
    )
    assert same(orders.transition(14, side=side, start=1), ends)
  assert same(orders.keyframes(11), orders.forward(11))
  assert same(orders.extend(4, after=5), orders.forward(9, given_first=4))
  assert same(orders.long(11), orders.forward(11))
  assert same(
    orders.long(11, direction='backward', window=4),
    orders.backward(11, window=4),
  )


def test_a_window_that_holds_everything_changes_nothing():
  for make in orders.ORDERS.values():
    whole, windowed = make(9), make(9, window=20)
    for name in DATA_FIELDS:
      assert np.array_equal(getattr(whole, name), getattr(windowed, name))


def test_a_window_slides_over_a_ring_of_slots():
  plan = orders.forward(18, window=6)
  assert plan.visible.tolist() == [0, 3, 6, 6, 6, 6]
  assert plan.write.tolist() == [
    [0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5],
  ]  # fmt: skip
  assert [sorted(seen) for seen in plan.context()[3:]] == [
    list(range(first, first + 6)) for first in (3, 6, 9)
  ]
  assert plan.num_slots == orders.forward(180, window=6).num_slots


def test_both_sides_of_a_gap_stay_in_a_window():
  plan = orders.forward(30, window=6, given_last=4)
  for row in np.flatnonzero(~plan.conditioning)[:8]:
    assert {26, 27, 28} <= set(plan.context()[row])
  # The control: without what is given, the window is all past.
  plan = orders.forward(30, window=6)
  assert max(max(seen, default=0) for seen in plan.context()) == 26


def test_extension_grows_both_ways():
  plan = orders.extend(3, before=5, after=6, start=1)
  assert generated(plan) == [[-2, -1, 0], [3, 4, 5], [-5, -4, -3], [6, 7, 8]]
  assert plan.anchor[~plan.conditioning].tolist() == [True, False, False, False]
  assert plan.entries(0) == [(0, 14), (1, 6), (2, 7)]
  first = {
    sides: generated(orders.extend(3, before=5, after=6, sides=sides))
    for sides in ('past', 'future')
  }
  assert first['past'][:2] == [[-2, -1, 0], [-5, -4, -3]]
  assert first['future'][:2] == [[3, 4, 5], [6, 7, 8]]


def test_keyframes_fill_gap_by_gap():
  plan = orders.keyframes(16, ((4, 1), (9, 3)))
  assert generated(plan) == [
    [0, 1, 2], [3, 4], [5, 6, 7], [8, 9], [12, 13, 14], [15],
  ]  # fmt: skip
  assert plan.entries(0) == [(4, 16)]
  assert plan.entries(1) == [(9, 17), (10, 10), (11, 11)]
  backward = orders.keyframes(16, ((4, 1), (9, 3)), side='future')
  assert generated(backward)[0] == [13, 14, 15]
  assert generated(backward)[-1] == [0, 1, 2]


def test_what_stands_too_near_to_the_start_for_anchors_waits():
  plan = orders.keyframes(8, ((1, 1),), side='future')
  assert generated(plan) == [[5, 6, 7], [0, 1], [2, 3, 4]]
  assert plan.anchor[~plan.conditioning].tolist() == [True, False, False]


def test_regeneration_keeps_both_sides():
  plan = orders.regenerate(12, 1, 3)
  assert generated(plan) == [[1, 2, 3]]
  positions, entries = plan.preloaded()
  # Position 3 is there twice: as the first frame behind the span, an image.
  assert positions.tolist() == [0, *range(3, 12)]
  assert entries.tolist() == [0, 12, *range(4, 12)]


def test_a_loop_sees_its_beginning_behind_its_end():
  plan = orders.loop(13, side='past', span=20)
  # Position 12 is position 0: its frames before frame 0 end the video.
  assert plan.timeline()[0].tolist() == list(range(12))
  assert generated(plan) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
  assert plan.entries(1) == [(12, 0), (13, 1), (14, 2)]
  assert plan.context()[-1] == [0, 1, 2, 12, 13, 14, *range(3, 9)]
  # The first block has anchors, for what comes before it.
  assert plan.anchor.tolist() == [True, False, False, False, False]
  assert (plan.opening, plan.begin, plan.num_frames) == (0, 0, 49)
  assert plan.loops and not orders.backward(13).loops


def test_an_open_start_gives_the_first_block_anchors():
  closed, opened = orders.backward(6), orders.backward(6, open_start=True)
  assert generated(closed) == [[3, 4, 5], [0, 1, 2]]
  assert generated(opened) == [[3, 4, 5], [1, 2]]
  assert closed.anchor.tolist() == [True, False]
  assert opened.anchor.tolist() == [True, True]
  assert closed.num_frames == opened.num_frames == 21
  assert (closed.opening, opened.opening) == (None, 1)
  # What is given at the start is where the video begins.
  given = orders.backward(6, given_first=1, open_start=True)
  assert given.opening is None and given.begin == 0
  with pytest.raises(UserError, match='open start needs anchors'):
    orders.backward(6, anchors=0, open_start=True)


def test_a_story_begins_with_the_key_block_of_each_scene():
  parts = [orders.Scene(9, 0), orders.Scene(9, 1), orders.Scene(6, 2)]
  plan = orders.story(parts, 4)
  blocks = generated(plan)
  assert blocks[:3] == [[3, 4, 5], [16, 17, 18], [29, 30, 31]]
  assert blocks[3:5] == [[0, 1, 2], [6, 7, 8]]
  assert sorted(p for b in blocks[3:8] for p in b) == [
    *range(3), *range(6, 9), *range(13, 16), *range(19, 22), *range(26, 29),
  ]  # fmt: skip
  assert blocks[8:] == [[9, 10], [11, 12], [22, 23], [24, 25]]
  # Key blocks see nothing; a connection sees the two scenes beside it.
  context = plan.context()
  rows = np.flatnonzero(~plan.conditioning)
  assert [context[row] for row in rows[:3]] == [[], [], []]
  assert set(context[rows[8]]) == {*range(9), *range(13, 22)}
  prompts = {
    p: int(plan.prompt[row]) for row in rows for p, _ in plan.entries(row)
  }
  assert [prompts[p] for p in (8, 9, 10, 11, 13, 23, 24)] == [
    0, 0, 0, 1, 1, 1, 2,
  ]  # fmt: skip


def test_a_story_in_a_loop_leads_back_to_its_first_scene():
  parts = [orders.Scene(9, 0), orders.Scene(9, 1), orders.Scene(6, 2)]
  plan = orders.story(parts, 4, loop=True)
  blocks, context = generated(plan), plan.context()
  assert sorted(p for block in blocks for p in block) == list(range(35))
  assert blocks[-2:] == [[32, 33], [34]]
  assert plan.loops and plan.num_frames == 141
  # The last connection sees its scene and the first one's beginning.
  rows = np.flatnonzero(~plan.conditioning)
  assert set(context[rows[-2]]) == {*range(26, 32), 35, 36, 37}
  prompts = {
    p: int(plan.prompt[row])
    for row in range(plan.num_rows)
    for p, _ in plan.entries(row)
  }
  assert [prompts[p] for p in (33, 34, 35)] == [2, 0, 0]


def test_sinks_are_made_early_and_keep_within_the_span():
  plan = orders.long(60, span=21, sinks='both')
  assert generated(plan)[:3] == [[0, 1, 2], [57, 58, 59], [3, 4, 5]]
  # The window leaves room for a distance to the end.
  assert (plan.num_sinks, plan.num_slots) == (6, 6 + 6 + 3 + 3)
  context = plan.context()
  assert context[8] == [12, 13, 14, 30, 31, 32, *range(15, 21)]
  assert context[-1][:6] == [39, 40, 41, 57, 58, 59]
  assert sorted(context[-1][6:]) == list(range(48, 54))
  backward = orders.long(60, span=21, sinks='both', direction='backward')
  assert generated(backward)[:3] == [[57, 58, 59], [0, 1, 2], [54, 55, 56]]
  assert backward.context()[8][:6] == [45, 46, 47, 27, 28, 29]
  past = orders.long(60, span=21, sinks='past')
  assert generated(past)[:2] == [[0, 1, 2], [3, 4, 5]]
  assert (past.sinks[1:4] == [0, 1, 2]).all()
  # The law finds a sink that is seen too far away.
  sinks = past.sinks.copy()
  sinks[-1] = [0, 1, 2]
  with pytest.raises(UserError, match='positions 0 and 59 meet'):
    check(dataclasses.replace(past, sinks=sinks), span=21)


def test_what_no_row_reads_is_part_of_the_video_all_the_same():
  plan = orders.extend(30, after=6, window=6)
  idle = [row for row in range(plan.num_rows) if plan.idle(row)]
  assert len(idle) == 8 and generated(plan) == [[30, 31, 32], [33, 34, 35]]
  assert plan.timeline()[0].tolist() == list(range(36))
  assert plan.preloaded()[0].tolist() == list(range(30))


def test_bucketed_lengths_share_shapes():
  sizes = [bucket(size) for size in range(1, 1025)]
  assert sizes == sorted(sizes) and len(set(sizes)) == 36
  assert all(size <= padded < 1.25 * size + 1 for size, padded in
             enumerate(sizes, start=1))  # fmt: skip


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (lambda: orders.extend(0, after=3), 'at least one frame'),
    (lambda: orders.extend(3), 'needs --before or'),
    (lambda: orders.extend(3, before=-1, after=2), 'needs --before'),
    (lambda: orders.extend(3, after=2, sides='left'), 'use alternate, past'),
    (lambda: orders.keyframes(0), 'use 1 or more'),
    (lambda: orders.keyframes(9, ((3, 4), (5, 1))), 'overlaps.*frame 28'),
    (lambda: orders.keyframes(9, ((9, 1),)), '1 frames given at frame 36'),
    (lambda: orders.keyframes(9, ((0, 9),)), 'leaves nothing to make'),
    (lambda: orders.keyframes(9, side='up'), "side is 'up'"),
    (lambda: orders.keyframes(9, window=0), 'use 1 or more, or'),
    (lambda: orders.keyframes(9, prompts=((9, 1),)), r'frames 0\.\.32'),
    (lambda: orders.keyframes(9, prompts=((3, 1), (3, 2))), 'within 4 frames'),
    (lambda: orders.keyframes(9, prompts=((3, -1),)), 'must be 0 or more'),
    (lambda: orders.regenerate(2, 1, 1), 'use 9 or more'),
    (lambda: orders.regenerate(9, 0, 2), r'at frame 0, .*begin at 1\.\.25'),
    (lambda: orders.regenerate(9, 3, 6), r'frame 31, .*end at 11\.\.27'),
    (lambda: orders.story([orders.Scene(9)]), 'at least 2 scenes'),
    (lambda: orders.story([orders.Scene(0)] * 2), 'scene 1 has 0 frames'),
    (lambda: orders.story([orders.Scene(3)] * 2, given=((0, 9),)), 'leaves'),
    (lambda: orders.story([orders.Scene(3)] * 2, [1, 2]), 'have 1 connections'),
    (lambda: orders.story([orders.Scene(3)] * 2, -1), 'at least 0'),
    (lambda: orders.story([orders.Scene(3)], 0, loop=True), 'at least 4'),
    (
      lambda: orders.story([orders.Scene(3)] * 2, [orders.Connection(3, 4)]),
      r'16 frames; use 0\.\.12',
    ),
    (lambda: orders.story([orders.Scene(3)] * 2, prompts=((0, 1),)), 'leave'),
    (lambda: orders.long(99, direction='up'), 'forward, backward'),
    (lambda: orders.long(99, sinks='all'), 'none, past, future, both'),
    (lambda: orders.long(99, sinks='past'), 'give --span, or at'),
    (lambda: orders.long(99, sinks='past', span=21, window=16), 'at most 15'),
    (lambda: orders.long(99, sinks='both', span=9, sink_latents=3), 'or more'),
    (
      lambda: orders.long(99, sinks='past', span=9, sink_latents=0),
      '1 or more',
    ),
    (lambda: orders.long(5, sinks='both', span=21), '25 or more'),
  ],
)
def test_impossible_workflows_are_refused(make, words):
  with pytest.raises(UserError, match=words) as error:
    make()
  said = str(error.value).replace('sink_latents', '')
  assert 'order' not in said and 'latent' not in said
