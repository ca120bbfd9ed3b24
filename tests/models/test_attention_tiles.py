"""Sizes of blocks: what is wanted, what fits, and where it is written."""

import json

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
  masked = table.nearest(1560, 1560, True)
  layout = splash.training_layout(masked, 62, 1560, 62, 1560, False, 2**28)
  assert layout.keys.padded == 1664 and not layout.blocks.use_fused_bwd_kernel
  assert tiles.lookup(GENERATIONS[name], 4680, 32760, False) != Tiles(block_q=8)


def test_the_nearest_entry_is_taken():
  small, large, masked = (Tiles(block_q=8 * k) for k in (1, 2, 3))
  table = Table(
    ('A',),
    (
      Entry(500, 500, False, small, HOW),
      Entry(4000, 30_000, False, large, HOW),
      Entry(500, 500, True, masked, HOW),
    ),
  )
  assert table.nearest(600, 400, False) is small
  assert table.nearest(5000, 20_000, False) is large
  assert table.nearest(5000, 20_000, True) is masked
  assert Table(('A',), ()).nearest(1, 1, False) == Tiles()


def test_measured_tiles_come_before_those_that_ship(tmp_path, monkeypatch):
  own = Tiles(block_q=40)
  path = tmp_path / 'own.json'
  path.write_text(
    tiles.to_json(Table(('TPU v5',), (Entry(1, 1, False, own, HOW),)))
  )
  shipped = tiles.lookup('TPU v5', 1, 1, False)
  assert shipped != own
  monkeypatch.setenv(tiles.ENVIRONMENT, str(path))
  assert tiles.lookup('TPU v5', 1, 1, False) == own
  # Control: it is a table of one generation.
  assert tiles.lookup('TPU v6 lite', 1, 1, False) != own
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
