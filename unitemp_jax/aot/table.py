"""Lists of configs and topologies, and their verdicts as Markdown tables."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unitemp_jax.aot.memory_report import HEADROOM, StepVerdict, Verdict
from unitemp_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Entry:
  """One config on one topology.

  Attributes:
    name: of its result.
    config: file, with its argument.
    topology: of a slice.
    steps: which to compile.
    slices: how many.
    overrides: of the config, `a.b=value`.
    fast: least effort of the compiler.
  """

  name: str
  config: str
  topology: str
  steps: tuple[str, ...]
  slices: int = 1
  overrides: tuple[str, ...] = ()
  fast: bool = True

  def is_of(self, known: Verdict) -> bool:
    """Whether a verdict is the one that is asked for."""
    return (
      known.config == self.config
      and known.topology == self.topology
      and known.slices == self.slices
      and tuple(known.overrides) == self.overrides
      and known.layers is None
      and known.mode == ('fast' if self.fast else 'exact')
    )


@dataclasses.dataclass(frozen=True)
class List:
  """What a file of entries says.

  Attributes:
    results: folder of the verdicts.
    tables: title -> names of entries, in order.
    growth: title -> names, for tables of how costs grow.
    entries: all of them.
  """

  results: Path
  tables: dict[str, list[str]]
  growth: dict[str, list[str]]
  entries: tuple[Entry, ...]


def read_list(path: Path) -> List:
  """Reads a YAML file; configs are relative to the working directory.

  Raises:
    UserError: it cannot be read, or an entry is wrong.
  """
  try:
    fields: dict[str, Any] = yaml.safe_load(path.read_text())
    parts = {
      kind: {title: _entries(rows) for title, rows in fields[kind].items()}
      for kind in ('tables', 'growth')
    }
  except OSError as error:
    raise UserError(
      f'--table={path} cannot be read ({error.strerror}); check the path.'
    ) from error
  except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
    raise UserError(
      f'--table={path} is no list of topologies ({error}); see '
      'configs/aot/table.yaml.'
    ) from error
  entries = [
    e for kind in parts.values() for rows in kind.values() for e in rows
  ]
  names = [entry.name for entry in entries]
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise UserError(f'--table={path} has two entries {twice[0]!r}; rename one.')
  named = {
    kind: {title: [e.name for e in rows] for title, rows in tables.items()}
    for kind, tables in parts.items()
  }
  return List(
    path.parent / 'results', named['tables'], named['growth'], tuple(entries)
  )


def _entries(rows: Sequence[Mapping[str, Any]]) -> list[Entry]:
  found = []
  for row in rows:
    values: dict[str, Any] = {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in row.items()
    }
    found.append(Entry(**values))
  return found


def markdown(listed: List, found: Mapping[str, Verdict]) -> str:
  """Returns all tables; entries without a verdict are said to be missing."""
  parts = []
  for title, names in listed.tables.items():
    parts.append(f'## {title}\n\n{_split(names, found, _verdicts)}')
  for title, names in listed.growth.items():
    parts.append(f'## {title}\n\n{_split(names, found, _growth)}')
  if found:
    parts.append(_how(found))
  return '\n'.join(parts)


def _how(found: Mapping[str, Verdict]) -> str:
  versions = {
    f'{name} {number}'
    for one in found.values()
    for name, number in one.versions.items()
  }
  shares = {f'{100 * one.utilisation:.0f} %' for one in found.values()}
  return (
    'Mesh: data x fsdp x context. Tight: less than '
    f'{100 * HEADROOM:.0f} % to spare. Sizes are per device. Operations are '
    'counted from sizes; times are estimates at '
    f'{", ".join(sorted(shares))} utilisation. Compiled with '
    f'{", ".join(sorted(versions))}; nothing was run.\n'
  )


def _split(
  names: Sequence[str], found: Mapping[str, Verdict], tables: Callable
) -> str:
  """Tables of the entries, by config."""
  configs: dict[str, list[Verdict]] = {}
  for name in names:
    if name in found:
      configs.setdefault(found[name].config, []).append(found[name])
  parts = [f'`{config}`:\n\n{tables(v)}' for config, v in configs.items()]
  missing = [name for name in names if name not in found]
  if missing:
    parts.append(f'Not compiled: {", ".join(missing)}.\n')
  return '\n'.join(parts)


def _where(one: Verdict, step: StepVerdict) -> list[str]:
  slices = f'{one.slices} x ' if one.slices > 1 else ''
  return [f'{slices}{one.topology}', 'x'.join(map(str, step.mesh.values()))]


def _rows(head: str, cells: list[list[str]]) -> str:
  titles = head.split(', ')
  lines = [titles, ['---'] * len(titles), *cells]
  return ''.join('| ' + ' | '.join(line) + ' |\n' for line in lines)


def _verdicts(verdicts: Sequence[Verdict]) -> str:
  memory, work = [], []
  for one in verdicts:
    for step in one.steps:
      where = _where(one, step)
      word = one.word(step)
      memory.append(
        [
          *where,
          str(step.rows),
          step.name,
          f'{step.peak_gib:.2f} of {one.chip_gib:g}',
          'tight' if word.startswith('fits with') else word,
          f'{step.tflops:,.0f}',
          f'{step.estimate_seconds:.1f} s' if step.compiled else '',
        ]
      )
      largest = [f'{k} {v:.1f}' for k, v in step.contributors()[:2]]
      took = f'{one.mode}, {step.compile_seconds:.0f} s'
      work.append([*where, step.name, ', '.join(largest), took])
  peaks = 'topology, mesh, batch, step, peak of GiB, verdict, TFLOP, estimate'
  largest = _rows('topology, mesh, step, largest (GiB), compiled', work)
  return f'{_rows(peaks, memory)}\n{largest}'


def _growth(verdicts: Sequence[Verdict]) -> str:
  steps: dict[str, list[list[str]]] = {}
  for one in verdicts:
    for step in one.steps:
      state = step.state_gib()
      steps.setdefault(step.name, []).append(
        [
          str(one.chips),
          *_where(one, step),
          str(step.rows),
          f'{state:.3f}',
          f'{state * one.chips:.1f}',
          f'{step.peak_gib:.2f}',
          f'{step.sent / 1e9:.2f}',
          f'{sum(t.count for t in step.traffic):,.0f}',
          f'{step.tflops / one.chips:,.0f}',
        ]
      )
  head = (
    'chips, topology, mesh, batch, state GiB, x chips, peak GiB, '
    'GB sent, collectives, TFLOP'
  )
  return '\n'.join(
    f'Step `{name}`, per chip; the state is what is trained:\n\n'
    f'{_rows(head, cells)}'
    for name, cells in steps.items()
  )
