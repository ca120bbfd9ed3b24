import os

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
  with pytest.raises(UserError, match='cannot read'):
    results.ResultTable.from_json(path)
  for text in ('{', '[]', '{"results": [{"metric": 1}]}'):
    path.write_text(text)
    with pytest.raises(UserError, match='not a table'):
      results.ResultTable.from_json(path)


def test_markdown_shows_every_row():
  text = table().to_markdown()
  assert '| digit read | forward | 90.0 % | [85.0 95.0] | 256 |' in text
  assert '| flicker | backward | 1.23 |  | 9 |' in text


def test_grid_puts_groups_against_metrics():
  lines = table().to_grid().splitlines()
  assert lines[0] == '| | digit read (%) | flicker |'
  assert lines[2] == '| forward | 90.0 [85.0 95.0] |  |'
  assert lines[3] == '| backward | 85.0 [80.0 90.0] | 1.23 |'
  twice = results.ResultTable(table().rows * 2)
  with pytest.raises(UserError, match='two results'):
    twice.to_grid()


def test_select_keeps_the_named_rows():
  assert len(table().select(metrics=['flicker']).rows) == 1
  assert len(table().select(groups=['backward']).rows) == 2
  assert table().select() == table()
