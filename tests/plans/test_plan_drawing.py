"""The drawing is well formed and shows every row of the plan."""

from xml.etree import ElementTree

import pytest

from unitemp_jax import orders
from unitemp_jax.plans.drawing import INK, TEAL, draw

SVG = '{http://www.w3.org/2000/svg}'


def groups(root, name):
  return [g for g in root.iter(f'{SVG}g') if g.get('class') == name]


def count(group, tag, name):
  return sum(1 for item in group.iter(SVG + tag) if item.get('class') == name)


def texts(group):
  return [item.text for item in group.iter(f'{SVG}text')]


@pytest.mark.parametrize('name', list(orders.ORDERS))
@pytest.mark.parametrize('length', [4, 9, 150])
def test_every_row_is_drawn(name, length):
  plan = orders.ORDERS[name](length, start=1)
  plan = plan.pad(rows=plan.num_rows + 1)
  root = ElementTree.fromstring(draw(plan))
  rows = groups(root, 'plan-row')
  assert len(rows) == plan.num_rows
  context = plan.context()
  for row, group in enumerate(rows):
    number = len(plan.entries(row))
    given = bool(plan.conditioning[row])
    assert count(group, 'rect', 'plan-given') == number * given
    assert count(group, 'rect', '') == number * (not given)
    assert count(group, 'rect', 'plan-seen') == len(set(context[row]))
    assert count(group, 'path', 'plan-anchor') == 3 * plan.anchor[row]
    assert texts(group)[0].startswith(f'{row}  ')
  assert 'inert' in texts(rows[-1])[0]
  (video,) = groups(root, 'plan-video')
  assert len(list(video.iter(f'{SVG}rect'))) == length - plan.loops


def test_windows_and_sinks_are_drawn_where_rows_see_them():
  plan = orders.long(30, sinks='both', span=14, sink_latents=1)
  root = ElementTree.fromstring(draw(plan))
  rows = groups(root, 'plan-row')
  lefts = {}
  for row, (group, seen) in enumerate(zip(rows, plan.context(), strict=True)):
    sinks, window = seen[:2], seen[2:]
    assert count(group, 'rect', 'plan-sink') == len(sinks)
    assert count(group, 'rect', 'plan-seen') == len(window)
    for box in group.iter(f'{SVG}rect'):
      if box.get('class') == 'plan-sink':
        lefts.setdefault(row, []).append(float(box.get('x')))
  # Sinks move along with the window, once they are out of reach.
  assert lefts[4] < lefts[5] < lefts[6]
  assert any('of' in texts(group)[-1].split() for group in rows)
  legend = 'sink, where it is seen'
  assert legend in draw(plan) and legend not in draw(orders.forward(9))


def test_what_rows_do_is_said():
  def notes(plan):
    root = ElementTree.fromstring(draw(plan))
    return ' | '.join(texts(group)[-1] for group in groups(root, 'plan-row'))

  story = notes(orders.story([orders.Scene(6), orders.Scene(6, 1)], loop=True))
  for words in ('loads again latent', 'copy of latent 0', 'prompt 1'):
    assert words in story
  assert 'keeps latent' in notes(orders.extend(20, after=3, window=4))
  assert 'prompt' not in notes(orders.forward(9))


def test_boxes_stand_at_their_positions():
  root = ElementTree.fromstring(draw(orders.backward(9)))
  lefts = [
    [
      float(box.get('x'))
      for box in row.iter(f'{SVG}rect')
      if not box.get('class')
    ]
    for row in groups(root, 'plan-row')
  ]
  # Backward: each row lies wholly to the left of the one before.
  assert max(lefts[2]) < min(lefts[1]) and max(lefts[1]) < min(lefts[0])
  (video,) = groups(root, 'plan-video')
  boxes = [float(box.get('x')) for box in video.iter(f'{SVG}rect')]
  assert boxes == lefts[2] + lefts[1] + lefts[0]


def test_everything_lies_on_the_page():
  for plan in (orders.forward(1), orders.loop(150), orders.inbetween(9)):
    root = ElementTree.fromstring(draw(plan))
    width, height = float(root.get('width')), float(root.get('height'))
    for box in root.iter(f'{SVG}rect'):
      right = float(box.get('x')) + float(box.get('width'))
      bottom = float(box.get('y')) + float(box.get('height'))
      assert right <= width and bottom <= height
    for text in root.iter(f'{SVG}text'):
      assert 0 <= float(text.get('x')) < width
      assert 0 <= float(text.get('y')) < height


def test_ink_follows_the_page():
  text = draw(orders.inbetween(9))
  assert 'prefers-color-scheme: dark' in text
  root = ElementTree.fromstring(text)
  for colour, names in ((INK, {'plan-ink'}), (TEAL, {'plan-teal'})):
    found = {
      item.get('class') for item in root.iter() if item.get('fill') == colour
    }
    assert found == names
  assert ' id=' not in text
