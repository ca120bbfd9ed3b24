"""The laws of a plan, its JSON, its padding, its place in a jitted program."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lawful import made

from unitemp_jax import orders
from unitemp_jax.errors import UserError
from unitemp_jax.plans import DATA_FIELDS, META_FIELDS, Plan, align, check, text
from unitemp_jax.sampling.sampler import bucketed


def example():
  """Rows: given 0, given 12, [10..12], [7..9], [4..6], [3], [0..2]."""
  return orders.inbetween(13, side='future', start=2)


def changed(plan, field, row, value):
  array = getattr(plan, field).copy()
  array[row] = value
  return dataclasses.replace(plan, **{field: array})


def same(left, right):
  return all(
    np.array_equal(getattr(left, name), getattr(right, name))
    and np.asarray(getattr(left, name)).dtype
    == np.asarray(getattr(right, name)).dtype
    for name in DATA_FIELDS
  ) and all(getattr(left, name) == getattr(right, name) for name in META_FIELDS)


def rows_of(block, num_anchors, num_slots, *rows):
  """A hand-made plan from (first, entries, given, anchor, visible, write)."""

  def padded(values):
    return [*values, *[-1] * (block - len(values))]

  firsts, entries, is_given, anchor, visible, write = zip(*rows, strict=True)
  zeros = np.zeros(len(rows), np.int32)
  return Plan(
    target=np.array([range(f, f + block) for f in firsts], np.int32),
    count=np.array([len(e) for e in entries], np.int32),
    conditioning=np.array(is_given),
    latent=np.array([padded(e) for e in entries], np.int32),
    anchor=np.array(anchor),
    start=zeros,
    visible=np.array(visible, np.int32),
    write=np.array([padded(w) for w in write], np.int32),
    prompt=zeros,
    sinks=np.zeros((len(rows), 0), np.int32),
    num_latents=1 + max(max(e, default=0) for e in entries),
    num_slots=num_slots,
    num_anchors=num_anchors,
    block=block,
  )


def test_the_example_is_lawful():
  check(example())


@pytest.mark.parametrize(
  ('field', 'row', 'value', 'named', 'words'),
  [
    ('count', 2, 0, 2, 'generates no latent'),
    ('count', 3, 4, 3, 'count is 4'),
    ('count', 3, -1, 3, 'count is -1'),
    ('count', 3, 2, 3, 'must be -1 from entry 2'),
    ('count', 5, 2, 5, 'latent must lie'),
    ('target', 3, [7, 8, 10], 3, 'target must be'),
    ('target', 3, [10, 11, 12], 3, 'makes position 10 again after row 2'),
    ('target', 2, [20, 21, 22], 1, 'so that the video has a hole'),
    ('target', 1, [14, 15, 16], 1, 'so that the video has a hole'),
    ('latent', 3, [7, 8, 15], 3, 'latent must lie in 0..14'),
    ('latent', 3, [7, -1, 9], 3, 'latent must lie'),
    ('latent', 3, [7, 8, 12], 3, 'makes latent 12 again after row 2'),
    ('latent', 1, [4, -1, -1], 1, 'which row 4 makes only later'),
    ('anchor', 0, True, 0, 'has anchors'),
    ('start', 4, -1, 4, 'start must be 0'),
    ('start', 1, 1, 1, 'start must be 0 in a given row'),
    ('start', 2, 1, 2, 'starts from carried anchors'),
    ('start', 5, 1, 5, 'starts from carried anchors'),
    ('visible', 2, 3, 2, 'sees cache slot 2'),
    ('visible', 6, -1, 6, 'needs cache slots'),
    ('visible', 6, 99, 6, 'needs cache slots'),
    ('visible', 3, 3, 3, 'which row 4 reads afterwards'),
    ('write', 3, [5, 6, 99], 3, 'write must lie'),
    ('write', 3, [5, 6, -2], 3, 'write must lie'),
    ('write', 3, [5, 6, 6], 3, 'writes one cache slot twice'),
    ('write', 3, [5, 6, -1], 4, 'sees cache slot 7'),
    ('prompt', 3, -1, 3, 'prompt must be'),
    ('conditioning', 2, True, 2, 'has anchors, but is given'),
  ],
)
def test_each_broken_law_is_found_and_the_row_named(
  field, row, value, named, words
):
  with pytest.raises(UserError, match=f'^plan row {named}: .*{words}'):
    check(changed(example(), field, row, value))


def test_start_needs_the_latest_anchors_and_a_block_of_their_number():
  plan = orders.backward(9, start=1)
  assert plan.start.tolist() == [0, 1, 1]
  without = changed(plan, 'anchor', 1, False)
  with pytest.raises(UserError, match='row 2: starts from carried anchors'):
    check(without)
  # Three latents in a row of four are no whole block.
  assert not orders.backward(11, block=4, start=1).start.any()
  short = orders.backward(9, anchors=2, start=1)
  assert short.start.tolist() == [0, 0, 0]
  with pytest.raises(UserError, match='row 1: starts from carried anchors'):
    check(changed(short, 'start', 1, 1))


def test_a_position_is_given_once_unless_it_is_generated_too():
  twice = [(0, [0], True, False, 0, [0]), (0, [1], True, False, 1, [1])]
  made = (0, [2], False, False, 2, [2])
  check(rows_of(1, 0, 3, *twice, made))
  with pytest.raises(UserError, match='row 1: gives position 0 again'):
    check(rows_of(1, 0, 2, *twice))


def test_anchors_stay_in_the_video_except_before_its_earliest_block():
  far = (2, [2], False, True, 0, [0])
  near = (0, [0, 1], False, False, 1, [1, 2])
  with pytest.raises(UserError, match=r'row 0: has anchors at -1\.\.1'):
    check(rows_of(2, 3, 5, far, near))
  # The same block alone is a run that may still be extended backward.
  check(rows_of(2, 3, 5, far))


def test_negative_positions_are_lawful():
  plan = orders.backward(9)
  moved = dataclasses.replace(plan, target=plan.target - 9)
  # The earliest block has anchors while the run may be extended.
  check(changed(moved.pad(num_slots=12), 'anchor', 2, True))
  positions, entries = moved.timeline()
  assert positions.tolist() == list(range(-9, 0))
  assert entries.tolist() == list(range(9))


def test_eviction_is_lawful_and_clobbering_is_not():
  # Row 1 takes slot 0 over from row 0: a window of one latent.
  window = rows_of(
    1,
    0,
    2,
    (0, [0], False, False, 0, [0]),
    (1, [1], False, False, 1, [0]),
    (2, [2], False, False, 1, [0]),
  )
  check(window)
  assert window.context() == [[], [0], [1]]
  # Row 1 works in slot 1, which holds what row 2 wants to read.
  clobbering = rows_of(
    2,
    0,
    4,
    (0, [0, 1], False, False, 0, [0, 1]),
    (2, [2], False, False, 1, [-1]),
    (3, [3], False, False, 2, [2]),
  )
  with pytest.raises(UserError, match=r'row 1: works in cache slot 1, .*row 2'):
    check(clobbering)
  check(changed(clobbering, 'visible', 1, 2))


def test_a_short_block_still_needs_the_room_of_a_full_one():
  short = (0, [0], False, False, 0, [0])
  check(rows_of(3, 0, 3, short))
  with pytest.raises(UserError, match=r'row 0: needs cache slots 0\.\.2'):
    check(rows_of(3, 0, 2, short))


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'num_slots': 0}, 'num_slots must lie in 1..'),
    ({'num_slots': 2_000_000_000}, 'num_slots must lie in 1..100001'),
    ({'num_anchors': -1}, 'num_anchors must lie in 0..'),
    ({'block': 2}, 'target is int32'),
    ({'conditioning': np.zeros(7, np.int32)}, 'conditioning is int32'),
    ({'start': np.zeros(6, np.int32)}, 'start is int32'),
    ({'target': np.zeros((7, 3))}, 'target is float64'),
  ],
)
def test_wrong_shapes_and_types_are_found(change, words):
  with pytest.raises(UserError, match=words):
    check(dataclasses.replace(example(), **change))


def test_a_plan_of_nothing_is_refused():
  inert = example().pad(rows=9)
  alone = jax.tree.map(lambda array: array[7:], inert)
  with pytest.raises(UserError, match='every row is inert'):
    check(alone)


def test_preloaded_and_timeline():
  plan = orders.forward(12, given_first=2, given_last=4)
  positions, entries = plan.preloaded()
  assert positions.tolist() == [0, 1, 8, 9, 10, 11]
  assert entries.tolist() == [0, 1, 12, 9, 10, 11]
  positions, entries = plan.timeline()
  assert positions.tolist() == entries.tolist() == list(range(12))
  assert orders.loop(9).preloaded()[0].size == 0


def test_padding_changes_nothing_but_shapes():
  plan = example()
  large = plan.pad(rows=10, num_latents=20, num_slots=30)
  check(large)
  assert (large.num_rows, large.num_latents, large.num_slots) == (10, 20, 30)
  for left, right in zip(plan.timeline(), large.timeline(), strict=True):
    assert left.tolist() == right.tolist()
  assert large.context() == [*plan.context(), [], [], []]
  for size in ({'rows': 6}, {'num_latents': 14}, {'num_slots': 3}):
    with pytest.raises(UserError, match='cannot be padded'):
      plan.pad(**size)


def test_aligned_plans_share_one_compilation():
  traced = []

  @jax.jit
  def generated(plan):
    traced.append(plan.num_slots)

    def step(total, row):
      return total + row.count * ~row.conditioning, row.visible

    return jax.lax.scan(step, jnp.int32(0), plan)[0]

  plans = [make(9) for make in orders.ORDERS.values()]
  # A loop's first frame is its last: it has no latent of its own.
  wanted = [9 - (name == 'loop') for name in orders.ORDERS]
  assert [int(generated(plan)) for plan in align(*plans)] == wanted
  assert len(traced) == 1
  # The control: without padding, the shapes differ.
  for plan in plans:
    generated(plan)
  assert len(traced) > 2
  with pytest.raises(UserError, match='differ in block'):
    align(orders.forward(9), orders.forward(9, anchors=2))


def test_bucketed_plans_of_all_workflows_share_a_shape():
  def shape(plan):
    leaves = jax.tree.leaves(plan)
    return jax.tree.structure(plan), [leaf.shape for leaf in leaves]

  # Rows enough for what a loop loads again, its beginning.
  seen = {'window': 8, 'rows': 17}
  made = [
    orders.forward(37, **seen),
    orders.backward(38, given_last=1, **seen),
    orders.loop(38, **seen),
    orders.keyframes(35, ((9, 1),), **seen),
    orders.long(39, direction='backward', **seen),
  ]
  shapes = [shape(bucketed(plan)) for plan in made]
  assert all(one == shapes[0] for one in shapes)
  for plan in made:
    check(bucketed(plan), window=8)
  # The controls: unpadded they differ, and so does another window.
  assert shape(made[0]) != shape(made[1])
  assert shape(bucketed(orders.forward(37, window=10, rows=17))) != shapes[0]


def test_a_plan_is_a_pytree_with_static_sizes():
  leaves, tree = jax.tree.flatten(example())
  assert len(leaves) == len(DATA_FIELDS)
  assert same(jax.tree.unflatten(tree, leaves), example())
  larger = jax.tree.structure(example().pad(num_slots=99))
  assert tree != larger


@settings(max_examples=40, deadline=None)
@given(
  st.sampled_from(list(orders.ORDERS)),
  st.integers(4, 20),
  st.integers(0, 3),
  st.integers(0, 4),
)
def test_json_round_trip(order, length, anchors, extra):
  plan = made(orders.ORDERS[order], length, anchors=anchors, start=1)
  plan = plan.pad(rows=plan.num_rows + extra)
  assert same(text.from_json(text.to_json(plan)), plan)


def test_json_of_a_plan_with_sinks():
  plan = orders.long(30, sinks='both', span=21).pad(rows=20)
  tree = json.loads(text.to_json(plan))
  assert tree['num_sinks'] == 6 and len(tree['rows'][0]['sinks']) == 6
  assert same(text.from_json(json.dumps(tree)), plan)
  tree['rows'][3]['sinks'].pop()
  with pytest.raises(UserError, match='row 3: sinks must be a list of 6'):
    text.from_json(json.dumps(tree))
  # A plan without says nothing of them, as before there were any.
  assert 'sinks' not in text.to_json(example())


def test_a_sink_slot_holds_one_latent_for_good():
  plan = orders.long(30, sinks='past', span=21)
  row = plan.num_rows - 1  # nobody reads what it writes
  with pytest.raises(UserError, match='where the sink is latent 0'):
    check(changed(plan, 'write', row, [0, 4, 5]))
  with pytest.raises(UserError, match='need as many cache slots'):
    check(
      dataclasses.replace(
        plan, num_sinks=99, sinks=np.zeros((plan.num_rows, 99), np.int32)
      )
    )


def test_window_and_span_are_laws_if_they_are_named():
  plan = orders.forward(30, window=6)
  check(plan, window=6, span=9)
  with pytest.raises(UserError, match='sees 6 latents, but the window holds 5'):
    check(plan, window=5)
  with pytest.raises(UserError, match='positions 0 and 8 meet'):
    check(plan, span=8)


def test_a_given_row_that_writes_nothing_computes_nothing():
  plan = orders.extend(20, after=3, window=4)
  assert [row for row in range(plan.num_rows) if plan.idle(row)] == [*range(6)]
  check(plan)
  # It may stand anywhere, since it works in no slot.
  check(jax.tree.map(lambda array: np.roll(array, -6, axis=0), plan))


def test_a_file_is_read(tmp_path):
  path = tmp_path / 'plan.json'
  path.write_text(text.to_json(example()))
  assert same(text.load(path), example())


@pytest.mark.parametrize(
  ('edit', 'words'),
  [
    (lambda tree: tree.pop('format'), 'expected a JSON object with "format"'),
    (lambda tree: tree.pop('num_slots'), 'num_slots is missing'),
    (lambda tree: tree.update(colour=1), 'colour is not a field'),
    (lambda tree: tree.update(block=True), 'block must be a whole number'),
    (lambda tree: tree.update(rows=[]), 'at least one row'),
    (lambda tree: tree['rows'].insert(2, 7), 'row 2: must be a JSON object'),
    (lambda tree: tree['rows'][2].pop('start'), 'row 2: start is missing'),
    (lambda tree: tree['rows'][2].update(given=0), 'row 2: given must be true'),
    (lambda tree: tree['rows'][2].update(count=1.5), 'row 2: count must be'),
    (lambda tree: tree['rows'][2].update(count=2**40), 'row 2: count must be'),
    (lambda tree: tree['rows'][2].update(write=[0, 1]), 'row 2: write must be'),
    (lambda tree: tree['rows'][2].update(visible=9), 'row 2: '),
  ],
)
def test_bad_json_plans_are_refused_in_one_sentence(tmp_path, edit, words):
  tree = json.loads(text.to_json(example()))
  edit(tree)
  path = tmp_path / 'plan.json'
  path.write_text(json.dumps(tree))
  with pytest.raises(UserError, match=words) as caught:
    text.load(path)
  assert str(path) in str(caught.value)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'content', [b'', b'{', b'[' * 99999, b'\xff\xfe', b'3']
)
def test_files_that_are_no_plan(tmp_path, content):
  path = tmp_path / 'plan.json'
  path.write_bytes(content)
  with pytest.raises(UserError, match=r'plan\.json'):
    text.load(path)
  with pytest.raises(UserError, match='There is no file'):
    text.load(tmp_path / 'none.json')


@settings(max_examples=300, deadline=None)
@given(
  st.sampled_from(DATA_FIELDS),
  st.integers(0, 6),
  st.integers(0, 2),
  st.one_of(st.integers(-3, 30), st.booleans(), st.none(), st.text()),
)
def test_no_single_change_escapes_as_another_error(field, row, k, value):
  tree = json.loads(text.to_json(example()))
  if isinstance(tree['rows'][row].get(field), list):
    tree['rows'][row][field][k] = value
  else:
    tree['rows'][row][field] = value
  try:
    plan = text.from_json(json.dumps(tree))
  except UserError:
    return
  # What passes can be read in full: every method works.
  assert plan.timeline()[0].tolist() == list(range(13))
  assert text.table(plan) and plan.context()


def test_the_table_shows_every_row():
  lines = text.table(example().pad(rows=8)).splitlines()
  assert lines[0].split() == list(text.HEADINGS)
  assert [line.split()[0] for line in lines[1:9]] == list('01234567')
  assert lines[3].split()[:5] == ['2', 'generate', '10..12', '10..12', '7..9']
  assert 'anchors at level 2' in lines[4]
  assert lines[8].split() == ['7', 'inert']
  assert '49 frames' in lines[9]
