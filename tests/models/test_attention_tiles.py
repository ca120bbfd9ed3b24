"""Sizes of blocks: what is wanted, what fits, and where it is written."""

import json
import os

import hypothesis.strategies as st
import pytest
from hypothesis import given

from unitemp_jax.errors import UserError
from unitemp_jax.models.attention import splash, tiles
from unitemp_jax.models.attention.tiles import Entry, Table, Tiles

GENERATIONS = {
  'v5e': 'TPU v5 lite',
  'v5p': 'TPU v5',
  'v6e': 'TPU v6 lite',
  '7x': 'TPU7x',
}
HOW = 'made up'


@given(
  total=st.integers(1, 100_000),
  block=st.integers(1, 40),
  unit=st.integers(1, 8),
)
def test_blocks_cover_the_tokens_evenly(total, block, unit):
  padded, size = tiles.fit(total, 128 * block, 128 * unit, 128)
  assert padded % size == 0 and size % 128 == 0
  assert total <= padded
  # Whole units unless an eighth is wasted; never more than one per block.
  whole = size % (128 * unit) == 0 or total < 128 * unit
  assert padded - total <= max(total / 8, 128 * (padded // size)) or whole
  for most in (128, size, 10**6):
    part = tiles.divisor(padded, most, 128)
    assert padded % part == 0 and part % 128 == 0
    assert part <= max(most, 128)


def test_chunks_of_wan_need_no_padding_of_queries():
  for frames in (1, 3, 6, 21):
    assert tiles.fit(1560 * frames, 1560, 8) == (1560 * frames, 1560)
  assert tiles.fit(21 * 1560, 1024, 512, 128) == (32768, 1024)
  assert tiles.fit(1560, 1664, 1664, 128) == (1664, 1664)
  # Control: blocks of 128 do pad.
  assert tiles.fit(1560, 1560, 128)[0] > 1560


@pytest.mark.parametrize('name', GENERATIONS)
def test_every_generation_has_a_table(name):
  table = tiles.read(tiles.TABLES / f'{name}.json')
  assert GENERATIONS[name] in table.hardware
  assert {entry.masked for entry in table.entries} == {True, False}
  assert all('not run' in entry.how for entry in table.entries)
  masked = tiles.lookup(GENERATIONS[name], 1560, 1560, True)
  layout = splash.training_layout(masked, 62, 1560, 62, 1560, False, 2**28)
  assert layout.keys.padded == 1664 and not layout.blocks.use_fused_bwd_kernel


def test_the_nearest_entry_is_taken():
  small, large = Tiles(block_q=8), Tiles(block_q=16)
  entries = [
    Entry(500, 500, False, small, HOW),
    Entry(4000, 30_000, False, large, HOW),
  ]
  assert tiles.nearest(entries, 600, 400) is small
  assert tiles.nearest(entries, 5000, 20_000) is large


def test_measured_tiles_come_before_those_that_ship(tmp_path, monkeypatch):
  paths, sizes = [], (Tiles(block_q=40), Tiles(block_q=48))
  for k, size in enumerate(sizes):
    entry = Entry(10**k, 10**k, False, size, HOW)
    paths.append(tmp_path / f'{k}.json')
    paths[k].write_text(tiles.to_json(Table(('TPU v5',), (entry,))))
  shipped = tiles.lookup('TPU v5', 1, 1, False)
  masked = tiles.lookup('TPU v5', 1, 1, True)
  assert shipped not in sizes
  monkeypatch.setenv(tiles.ENVIRONMENT, str(paths[0]))
  assert tiles.lookup('TPU v5', 20, 20, False) == sizes[0]
  both = os.pathsep.join(map(str, paths))
  monkeypatch.setenv(tiles.ENVIRONMENT, both)
  assert tiles.lookup('TPU v5', 20, 20, False) == sizes[1]
  # Controls: for masks nothing was measured, and on no other hardware.
  assert tiles.lookup('TPU v5', 1, 1, True) == masked
  assert tiles.lookup('TPU v6 lite', 1, 1, False) not in sizes
  assert tiles.lookup('another', 1, 1, False) == Tiles()


@pytest.mark.parametrize(
  'text',
  [
    'no json',
    '{}',
    json.dumps({'hardware': [], 'entries': [{'queries': 1}]}),
    tiles.to_json(Table((), (Entry(1, 1, True, Tiles(), HOW),))).replace(
      '1560', '1561'
    ),
  ],
)
def test_what_is_no_table_is_refused(text, tmp_path, monkeypatch):
  path = tmp_path / 'bad.json'
  path.write_text(text)
  monkeypatch.setenv(tiles.ENVIRONMENT, str(path))
  with pytest.raises(UserError, match=r'bad\.json is not a table of tiles'):
    tiles.lookup('cpu', 1, 1, False)
