"""Storyboards become requests: everything stands where the file puts it."""

import itertools
import pathlib
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unitemp_jax import plans
from unitemp_jax.errors import UserError
from unitemp_jax.generate import storyboard
from unitemp_jax.sampling import model_folder
from unitemp_jax.video.write import write_image, write_video

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / 'configs' / 'storyboards' / 'three_digits.yaml'
CARD = model_folder.read_card(model_folder.TINY)
SIZE = CARD.height

BOARD = """\
loop: true
seed: 5
scenes:
  - name: fall
    prompt: a red seven falls
    length: 24
    first: grey.png
    at: {12: clip.mp4}
  - name: bounce
    prompt: a red two bounces
    length: 2s
    last: clip.mp4
transitions:
  - {from: bounce, to: fall, length: 16, prompt: a red two turns into a seven}
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A picture, and a clip of 9 frames that become brighter."""
  folder = tmp_path_factory.mktemp('storyboard')
  grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
  write_image(folder / 'grey.png', grey)
  ramp = np.arange(9, dtype=np.uint8)[:, None, None, None] * 25
  clip = np.broadcast_to(ramp, (9, SIZE, SIZE, 3))
  write_video(folder / 'clip.mp4', clip, CARD.fps)
  write_video(folder / 'even.mp4', clip[:8], CARD.fps)
  return folder


def request(folder, text):
  path = folder / 'board.yaml'
  path.write_text(text)
  return storyboard.to_request(storyboard.read(path), CARD)


def complaint(folder, old, new):
  assert old in BOARD
  text = BOARD.replace(old, new, 1)
  with pytest.raises(UserError) as caught:
    request(folder, text)
  sentence = str(caught.value)
  path, line, message = sentence.split(':', 2)
  assert pathlib.Path(path) == folder / 'board.yaml', sentence
  return text.splitlines()[int(line) - 1], message


def test_everything_stands_where_the_file_puts_it(folder):
  made = request(folder, BOARD)
  # 24 + one block of 12 + 24 + 16 frames, and frame 0.
  assert made.num_frames == 24 + 4 * CARD.block + 24 + 16 + 1
  assert (made.workflow, made.seed) == ('story', 5)
  assert (made.height, made.width) == (SIZE, SIZE)
  at = {clip.frame: clip.video for clip in made.conditioning}
  end = 24 + 4 * CARD.block + 24
  assert {frame: len(video) for frame, video in at.items()} == {
    **{0: 1, 12: 9},
    end - 8: 9,
  }
  assert abs(int(at[0].mean()) - 128) < 4
  assert at[12][0].mean() < 10 and at[12][-1].mean() > 180
  assert len(made.prompts) == 3
  plans.check(made.plan)


def rows_of_prompt(made):
  """Positions that are generated, by prompt."""
  found = {}
  for row in np.flatnonzero(~made.plan.conditioning):
    for position, _ in made.plan.entries(row):
      found.setdefault(int(made.plan.prompt[row]), set()).add(position)
  return found


def test_a_transition_has_its_own_prompt_or_those_of_its_scenes(folder):
  found = rows_of_prompt(request(folder, BOARD))
  last = 1 + (24 + 12 + 24 + 16) // 4 - 1
  assert found[2] == set(range(last - 3, last + 1))
  # The other one is shared by both scenes: 7 + 6 latents, 3 between them.
  assert {7, 8, 9} <= found[0] | found[1]
  assert found[0] & {7, 8, 9} and found[1] & {7, 8, 9}
  without = BOARD.replace(', prompt: a red two turns into a seven', '')
  assert set(rows_of_prompt(request(folder, without))) == {0, 1}


BROKEN = [
  ('length: 24', 'length: 30', 'use 28', 'length: 30'),
  ('length: 2s', 'length: 1.9s', 'is 1.9s, which is not a multiple', '1.9s'),
  ('length: 16', 'length: 15', 'use 12 .* or 16', 'length: 15'),
  ('{12:', '{13:', 'use 12 .* or 16', '{13:'),
  ('{12:', '{20:', 'can begin at 0 to 16', '{20:'),
  ('{12:', '{0:', 'begins at frame 0, but', 'clip.mp4'),
  ('{12: clip', '{12: even', '1 . 4k', 'even.mp4'),
  ('last: clip.mp4', 'at: {0: grey.png}', 'can begin at 4 to 24', 'grey.png'),
  ('length: 2s', 'length: 8', 'do not fit', 'last: clip.mp4'),
]


@pytest.mark.parametrize(('old', 'new', 'part', 'at'), BROKEN)
def test_impossible_timing_is_refused_with_its_line(folder, old, new, part, at):
  line, message = complaint(folder, old, new)
  assert at in line
  assert re.search(part, message), message


def test_what_the_model_cannot_do_is_refused_with_the_file(folder):
  for old, new, part in (
    ('seed: 5', 'size: 33x32', 'multiples of'),
    ('seed: 5', 'anchors: 9', 'anchors'),
  ):
    path = folder / 'board.yaml'
    path.write_text(BOARD.replace(old, new))
    with pytest.raises(UserError, match=rf'board.yaml: .*{part}'):
      storyboard.to_request(storyboard.read(path), CARD)


def test_the_description_shows_the_timeline(folder):
  (folder / 'board.yaml').write_text(BOARD)
  text = storyboard.describe(storyboard.read(folder / 'board.yaml'), CARD)
  lines = text.splitlines()
  assert '77 frames' in lines[0] and 'a loop' in lines[0]
  assert sum('#' in line for line in lines) == 2
  assert sum('~' in line for line in lines) == 2
  assert any('given: clip.mp4 at its end' in line for line in lines)
  # The bars follow one another without a gap.
  bars = [line.split('|')[1] for line in lines if '|' in line]
  ends = [
    (len(bar) - len(bar.lstrip('.')), len(bar.rstrip('.'))) for bar in bars
  ]
  assert ends[0][0] == 0 and ends[-1][1] == len(bars[0])
  assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))


def test_the_example_is_lawful():
  board = storyboard.read(EXAMPLE)
  made = storyboard.to_request(board, CARD)
  assert made.num_frames == 1 + 3 * 32 + 3 * 12
  assert 'seven' in storyboard.describe(board, CARD)


@settings(
  max_examples=25,
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
  lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
  links=st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=4),
  loop=st.booleans(),
  window=st.one_of(st.none(), st.integers(6, 12)),
)
def test_any_storyboard_fills_its_timeline_once(
  folder, lengths, links, loop, window
):
  loop = loop or len(lengths) == 1
  lines = [f'loop: {str(loop).lower()}']
  lines += [] if window is None else [f'window: {window}']
  lines += ['scenes:'] + [
    f'  - {{name: s{k}, prompt: p{k}, length: {4 * n}}}'
    for k, n in enumerate(lengths)
  ]
  count = len(lengths) if loop else len(lengths) - 1
  links = links[:count]
  named = [(k, n) for k, n in enumerate(links) if n is not None]
  if named:
    lines += ['transitions:'] + [
      f'  - {{from: s{k}, to: s{(k + 1) % len(lengths)}, length: {4 * n}}}'
      for k, n in named
    ]
  made = request(folder, '\n'.join(lines) + '\n')
  total = sum(lengths) + sum(CARD.block if n is None else n for n in links)
  assert made.num_frames == 1 + 4 * total
  positions, _ = made.plan.timeline()
  # Of a loop, or a short video, frame 0 has no latent of its own.
  opening = made.plan.opening is not None and not loop
  end = total + (made.plan.opening is None or not loop)
  np.testing.assert_array_equal(positions, np.arange(opening, end))
  generated = [
    position
    for row in np.flatnonzero(~made.plan.conditioning)
    for position, _ in made.plan.entries(row)
  ]
  assert sorted(generated) == list(range(opening, end))
  # Every position has the prompt of its scene.
  prompt = dict(
    (position, int(made.plan.prompt[row]))
    for row in np.flatnonzero(~made.plan.conditioning)
    for position, _ in made.plan.entries(row)
  )
  begin = 0
  for k, (n, link) in enumerate(
    zip(lengths, [*links, 0, 0, 0, 0], strict=False)
  ):
    own = range(begin + (opening or k > 0), begin + n + 1)
    assert {prompt[p] for p in own} == {k}
    begin += n + (CARD.block if link is None else link)
