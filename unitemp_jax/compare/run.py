"""Comparison of systems: from folders to tables, pages and a blind test."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unitemp_jax import files
from unitemp_jax.compare import blind, gallery, numbers, table
from unitemp_jax.compare.pairing import Pair, Pairing, System
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import tables
from unitemp_jax.evaluation.clips.folder import Listing
from unitemp_jax.evaluation.clips.measure import Measurer
from unitemp_jax.evaluation.clips.tables import SHAPES, Clip
from unitemp_jax.evaluation.metrics.results import Result, ResultTable, to_csv
from unitemp_jax.report import pages

METRICS, TABLES, CLIPS, UNPAIRED = (
  'metrics.json',
  'comparison.md',
  'clips.csv',
  'unpaired.csv',
)


def run(
  systems: Sequence[tuple[System, Path]],
  pairing: Pairing,
  real: Listing | None,
  out: Path,
  *,
  workers: int,
  pictures: int,
  trials: int,
  question: str,
  command: str,
) -> str:
  """Measures, compares and writes everything below `out`.

  Args:
    systems: with their folders; the first is compared with each of the others.
    pairing: of their clips.
    real: footage that says how much real clips move, or None.
    out: folder.
    workers: processes.
    pictures: pairs that get posters and strips, at most.
    trials: of the blind page, at most; 0 for none.
    question: of the blind page.
    command: for the record.

  Returns:
    The tables as Markdown.

  Raises:
    UserError: no two clips could be paired and measured, or a file cannot be
      written.
  """
  notes = list(pairing.notes)
  listed = {c.path: c for pair in pairing.pairs for c in pair.clips.values()}
  measurer = Measurer(out / 'measured', workers)
  own, problems = tables.measure_clips(list(listed.values()), measurer)
  notes += problems
  measured = {clip.file.path: clip for clip in own if clip.file}
  pairs = _whole(pairing.pairs, measured)
  if not pairs:
    raise UserError('not one pair of clips could be measured.')
  usual = None
  if real is not None:
    group, problems = tables.measure_real(real, own, measurer)
    notes += problems
    usual = float(np.mean([clip.values['mean step'] for clip in group.clips]))
  notes += _unlike(systems, pairs, measured)
  names = tuple(system.name for system, _ in systems)
  matches, results = _compare(names, pairs, measured, usual, command, notes)
  clips = {
    clip.path: measured[clip.path].frames
    for pair in pairs[:pictures]
    for clip in pair.clips.values()
  }
  drawn = gallery.draw(list(clips.items()), out, workers)
  texts = {}
  if trials:
    texts = blind.make(out, names, pairs, count=trials, question=question)
  contents = gallery.Contents(
    names,
    tuple(folder for _, folder in systems),
    tuple(matches),
    pairs,
    measured,
    dict(zip(clips, drawn, strict=True)),
    pairing.unpaired,
    tuple(notes),
    command,
    blind.PAGE if texts else '',
  )
  return _write(out, contents, results, texts)


def _compare(
  names, pairs, measured, usual, command, notes
) -> tuple[list[gallery.Match], list[Result]]:
  """Compares the first system with each of the others."""
  matches, results = [], []
  for other in names[1:]:
    both = [p for p in pairs if names[0] in p.clips and other in p.clips]
    if not both:
      notes.append(f'{names[0]} and {other} have no clips of one prompt.')
      continue
    match = (names[0], other)
    values = [
      (
        measured[p.clips[names[0]].path].values,
        measured[p.clips[other].path].values,
      )
      for p in both
    ]
    rows = table.compare(match, values, usual)
    matches.append((match, tuple(rows)))
    results += table.to_results(match, rows, command)
    results += _numbers(match, both, command, notes)
  return matches, results


def _whole(
  pairs: Sequence[Pair], measured: Mapping[Path, Clip]
) -> tuple[Pair, ...]:
  """The pairs of which two clips at least could be measured."""
  found = []
  for pair in pairs:
    clips = {n: c for n, c in pair.clips.items() if c.path in measured}
    if len(clips) > 1:
      found.append(dataclasses.replace(pair, clips=clips))
  return tuple(found)


def _unlike(systems, pairs, measured) -> list[str]:
  """What differs between the systems and so limits the comparison."""
  sentences = []
  kinds = {'kinds of file': lambda clip: clip.file.path.suffix.lower()}
  for what, read in {**SHAPES, **kinds}.items():
    common = {}
    for system, _ in systems:
      clips = [
        measured[p.clips[system.name].path]
        for p in pairs
        if system.name in p.clips
      ]
      if clips:
        counts = collections.Counter(map(read, clips))
        common[system.name] = counts.most_common(1)[0][0]
    if len(set(common.values())) > 1:
      listed = ', '.join(f'{name}: {value}' for name, value in common.items())
      sentences.append(
        f'the systems have different {what} ({listed}): flickering, motion and '
        'drift depend on them; ratios (BFR, joins, loops) hardly.'
      )
  return sentences


def _numbers(match, pairs, command, notes) -> list[Result]:
  """Rows from npz files beside both clips of a pair, if there are any."""
  rows = []
  for pair in pairs:
    first, second = (
      pair.clips[name].path.with_suffix('.npz') for name in match
    )
    if not (first.is_file() and second.is_file()):
      continue
    try:
      gaps = numbers.compare(first, second)
    except UserError as error:
      notes.append(str(error))
      continue
    name = f'{pair.prompt[:60]} #{pair.sample}'
    rows += numbers.to_results(
      gaps, f'{match[0]} - {match[1]}: {name}', command
    )
  return rows


def _write(out: Path, contents: gallery.Contents, results, texts) -> str:
  """Writes all files, or none: a page without its numbers is of no use."""
  parts = []
  for names, rows in contents.matches:
    parts.append(f'## {names[0]} against {names[1]}\n')
    parts.append(table.to_markdown(names, rows))
  text = '\n'.join(parts)
  csv_text = table.to_csv(
    (pair.prompt, pair.sample, name, c.name, contents.measured[c.path].values)
    for pair in contents.pairs
    for name, c in pair.clips.items()
  )
  page, shown = gallery.render(contents, out)
  files.write_all(
    {
      **texts,
      out / CLIPS: csv_text,
      out / UNPAIRED: to_csv(
        ['system', 'clip', 'reason'],
        [(own.system, own.clip.name, own.reason) for own in contents.unpaired],
      ),
      out / TABLES: text,
      out / gallery.PAGE: page,
      out / METRICS: ResultTable(tuple(results)).to_text(),
    },
    out / files.HASHES,
  )
  pages.remove_parts(out / gallery.PAGE, shown)
  for note in contents.notes:
    print(f'note: {note}')
  return text
