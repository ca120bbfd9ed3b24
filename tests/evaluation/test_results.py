import dataclasses
import os
import re

import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import results
from unitemp_jax.evaluation.metrics.bootstrap import Interval


def table():
  rows = [
    results.result(
      'digit read',
      group,
      Interval(value, value - 0.05, value + 0.05, 256),
      unit='%',
      how='unitemp evaluate',
    )
    for group, value in (('forward', 0.9), ('backward', 0.85))
  ]
  rows.append(
    results.Result('flicker', 'backward', 1.234, 1.234, 1.234, 9, 'ratio', '')
  )
  return results.ResultTable(tuple(rows))


def test_json_round_trip_leaves_no_other_file(tmp_path):
  path = tmp_path / 'results.json'
  path.write_text('old')
  table().to_json(path)
  assert results.ResultTable.from_json(path) == table()
  assert [file.name for file in tmp_path.iterdir()] == ['results.json']


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'results.json'
  table().to_json(path)
  before = path.read_text()

  def fail(*_):
    raise OSError('disk full')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(UserError, match='disk full'):
    results.ResultTable(()).to_json(path)
  assert path.read_text() == before


def test_bad_file_is_one_sentence(tmp_path):
  path = tmp_path / 'results.json'
  with pytest.raises(UserError, match='it is missing'):
    results.ResultTable.from_json(path)
  for text in ('{', '[]', '{"results": [{"metric": 1}]}'):
    path.write_text(text)
    with pytest.raises(UserError, match='a table of results'):
      results.ResultTable.from_json(path)


def test_markdown_shows_every_row():
  text = table().to_markdown()
  assert '| digit read | forward | 90.0 % | [85.0 95.0] | 256 |' in text
  assert '| flicker | backward | 1.23 |  | 9 |' in text


def test_grid_puts_groups_against_metrics():
  lines = table().to_grid().splitlines()
  assert lines[0] == '|  | digit read (%) | flicker |'
  assert lines[2] == '| forward | 90.0 [85.0 95.0] |  |'
  assert lines[3] == '| backward | 85.0 [80.0 90.0] | 1.23 |'
  twice = results.ResultTable(table().rows * 2)
  with pytest.raises(UserError, match='two results'):
    twice.to_grid()


def test_a_wide_grid_goes_on_below():
  rows = tuple(
    results.Result(f'long: metric {i}', group, i, i, i + 1, 3, '', '')
    for i in range(12)
    for group in ('a' * 20, 'b')
    if i > 9 or group == 'b'
  )
  text = results.ResultTable(rows).to_grid()
  assert max(map(len, text.splitlines())) <= 100
  first, *_, last = text.split('\n\n')
  # The shared name is left out, and groups without a number of this table.
  assert first.startswith('|  | metric 0 | metric 1 |') and 'aaa' not in first
  assert 'metric 11' in last and 'aaa' in last
  cells = re.findall(r'metric (\d+)', text)
  assert cells == [str(i) for i in range(12)]


def test_select_keeps_the_rows_of_a_metric():
  assert [row.group for row in table().select('flicker')] == ['backward']
  assert table().select('BFR') == []


def test_a_name_has_one_value():
  section = results.Section('one', table().rows)
  assert results.join([section, section]) == table()
  [first, *_] = table().rows
  other = results.Section('other', (dataclasses.replace(first, value=50.0),))
  with pytest.raises(ValueError, match='has two values'):
    results.join([section, other])
