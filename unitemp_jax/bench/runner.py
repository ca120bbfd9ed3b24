"""Runs benchmarks and writes what they find: one JSON file and one table.

A benchmark is a function from a `Context` to an `Outcome`; add it to
BENCHMARKS and the command has it.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from unitemp_jax import files
from unitemp_jax.bench import (
  attention,
  baselines,
  growth,
  long,
  measure,
  pytorch,
  reading,
)
from unitemp_jax.bench.measure import Context, Outcome
from unitemp_jax.errors import UserError, foreign
from unitemp_jax.evaluation.metrics.results import ResultTable, Section

BENCHMARKS: dict[str, Callable[[Context], Outcome]] = {
  'long': long.run,
  'cache': baselines.run,
  'attention': attention.run,
  'baselines': pytorch.run,
  'growth': growth.run,
  'nag': long.guided,
  'reading': reading.run,
}
NAMED = (
  'baselines',
  'growth',
  'nag',
  'reading',
)  # that run if they are asked for
RESULTS, TABLES = 'bench.json', 'bench.md'


def run(
  context: Context, names: Sequence[str], out: Path
) -> dict[str, Outcome]:
  """Runs benchmarks one after the other and writes `out` after each.

  Args:
    context: the model and how much is measured.
    names: of BENCHMARKS.
    out: folder for bench.json, bench.md and what a benchmark writes beside
      them; older ones are replaced.

  Raises:
    UserError: a bad model, or `out` is a file.
  """
  check(out)
  about = {
    'model': context.model,
    'repeats': context.repeats,
    'blocks': context.blocks,
    **measure.hardware(),
  }
  outcomes: dict[str, Outcome] = {}
  for name in names:
    context.report(f'{name} ...')
    outcomes[name] = BENCHMARKS[name](context)
    for file, text in outcomes[name].files.items():
      files.write(out / file, text)
    stored = {
      key: {**dataclasses.asdict(one), 'files': sorted(one.files)}
      for key, one in outcomes.items()
    }
    results = {'about': about, 'benchmarks': stored}
    files.write_json(out / RESULTS, results)
    files.write(out / TABLES, tables(about, outcomes))
  return outcomes


def check(out: Path) -> None:
  """Refuses, by UserError, a folder whose numbers are of something else."""
  names = (RESULTS, TABLES, attention.TILES)
  there = [out / name for name in names if os.path.lexists(out / name)]
  try:
    files.read_json(out / RESULTS, keys=('about', 'benchmarks'))
  except UserError as error:
    if there:
      raise foreign(there[0], 'not of bench') from error


def tables(about: dict, outcomes: dict[str, Outcome]) -> str:
  """Markdown of all outcomes, what they ran on first."""
  device = f'{about["devices"]} x {about["device"]}'
  if about['platform'] == 'cpu':
    device = f'{about["cores"]} cores of {about["processor"]}'
  parts = [f'On {device}, jax {about["jax"]}.\n']
  for outcome in outcomes.values():
    parts += [_table(section) for section in outcome.sections]
    for claim in outcome.claims:
      holds = 'holds' if claim.holds else 'DOES NOT HOLD'
      parts.append(f'- {claim.text}: {claim.measured:.3g}, {holds}\n')
  return '\n'.join(parts)


def _table(section: Section) -> str:
  hows = dict.fromkeys(f'- {row.metric}: {row.how}' for row in section.rows)
  grid = ResultTable(section.rows).to_grid()
  return f'## {section.title}\n\n{grid}\n' + '\n'.join(hows) + '\n'
