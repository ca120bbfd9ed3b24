"""Lists of configs and topologies, and their reports as Markdown tables."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unitemp_jax.aot import compiler, memory_report, topology
from unitemp_jax.aot.memory_report import HEADROOM, MemoryReport, StepReport
from unitemp_jax.data import yaml_reader
from unitemp_jax.data.yaml_reader import Node
from unitemp_jax.errors import UserError

# Of the values of an entry; else text.
_KINDS = {'steps': list, 'overrides': list, 'slices': int, 'mesh': dict}
# Title of a column -> what stands there.
Cells = Mapping[str, Callable[[MemoryReport, StepReport], str]]


@dataclasses.dataclass(frozen=True)
class Entry:
  """One config on one topology."""

  name: str  # of its result
  config: str  # file, with its argument
  topology: str  # of a slice
  steps: tuple[str, ...]  # which to compile
  slices: int = 1  # how many
  overrides: tuple[str, ...] = ()  # of the config, `a.b=value`
  # sizes of axes that a clip is made on; all along `data` without
  mesh: Mapping[str, int] = dataclasses.field(default_factory=dict)
  depth: int | None = None  # compiles so many layers only
  fast: bool = False  # least effort of the compiler

  def is_of(self, known: MemoryReport) -> bool:
    """Returns whether a report is the one that is asked for."""
    return (
      known.config == self.config
      and known.topology == self.topology
      and known.slices == self.slices
      and tuple(known.overrides) == self.overrides
      and known.layers == self.depth
      and known.mode == ('fast' if self.fast else 'exact')
      and all(self.mesh.items() <= step.mesh.items() for step in known.steps)
    )

  def compile(self) -> MemoryReport:
    """Compiles the steps; see `compiler.compile_config`."""
    return compiler.compile_config(
      self.config,
      list(self.overrides),
      topology.parse(self.topology, self.slices),
      list(self.steps),
      depth=self.depth,
      fast=self.fast,
      mesh=self.mesh,
    )


@dataclasses.dataclass(frozen=True)
class List:
  """What a file of entries says."""

  results: Path  # folder of the reports
  tables: dict[str, list[Entry]]  # title -> entries, in order
  growth: dict[str, list[Entry]]  # likewise, for tables of how costs grow

  @property
  def entries(self) -> list[Entry]:
    """All of them."""
    tables = (*self.tables.values(), *self.growth.values())
    return [entry for entries in tables for entry in entries]


def read_list(path: Path) -> List:
  """Reads a YAML file; configs are relative to the working directory.

  Raises:
    UserError: it cannot be read, or an entry is wrong.
  """
  parts = ('tables', 'growth')
  fields = yaml_reader.read(path).fields(parts, parts, 'a list of topologies')
  tables, growth = (
    {
      title: [_entry(row) for row in rows.expect(list, what=title)]
      for title, rows in fields[part].expect(dict, what=part).items()
    }
    for part in parts
  )
  listed = List(path.parent / 'results', tables, growth)
  names = [entry.name for entry in listed.entries]
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise UserError(f'--table={path} has two entries {twice[0]!r}; rename one.')
  return listed


def _entry(row: Node) -> Entry:
  names = [field.name for field in dataclasses.fields(Entry)]
  values: dict[str, Any] = {}
  for name, node in row.fields(names, names[:4], 'an entry').items():
    found = node.expect(_KINDS.get(name, str), what=name)
    for one in found if isinstance(found, list) else ():
      one.expect(str, what=f'one of {name}')
    for axis, size in found.items() if isinstance(found, dict) else ():
      size.expect(int, what=axis)
    value = node.plain()
    values[name] = tuple(value) if isinstance(value, list) else value
  return Entry(**values)


def fill(listed: List, known_only: bool = False) -> dict[str, MemoryReport]:
  """Reports by name; those that are not there yet are compiled and kept."""
  found = {}
  for entry in listed.entries:
    path = listed.results / f'{entry.name}.json'
    known = memory_report.read(path) if path.exists() else None
    if known is None or not entry.is_of(known):
      if known_only:
        print(f'{entry.name}: to be compiled')
        continue
      known = entry.compile()
      memory_report.write(path, known)
    print(f'{entry.name}: {path}')
    found[entry.name] = known
  return found


_WHERE: Cells = {
  'topology': lambda one, _: (
    f'{one.slices} x {one.topology}' if one.slices > 1 else one.topology
  ),
  'mesh': lambda _, step: 'x'.join(map(str, step.mesh.values())),
}
_MEMORY: Cells = {
  **_WHERE,
  'batch': lambda _, step: str(step.rows),
  'step': lambda _, step: step.name,
  'peak of GiB': lambda one, step: f'{step.peak_gib:.2f} of {one.chip_gib:g}',
  'outcome': lambda one, step: (
    'tight' if 'to spare' in one.outcome(step) else one.outcome(step)
  ),
  'TFLOP': lambda _, step: f'{step.tflops:,.0f}',
  'schedule': lambda _, step: _seconds(step),
  'roofline': lambda _, step: (
    f'{100 * step.time.roofline:.0f} %'
    if step.time and not step.time.unknown
    else ''
  ),
  'links': lambda one, step: (
    f'{100 * step.time.network / step.time.seconds:.0f} %'
    if step.time and one.chips > 1
    else ''
  ),
}
_LARGEST: Cells = {
  **_WHERE,
  'step': lambda _, step: step.name,
  'largest (GiB)': lambda _, step: ', '.join(
    f'{k} {v:.1f}' for k, v in step.contributors()[:2]
  ),
  'compiled in': lambda _, step: f'{step.compile_seconds:.0f} s',
}
_GROWTH: Cells = {
  'chips': lambda one, _: str(one.chips),
  **_WHERE,
  'batch': lambda _, step: str(step.rows),
  'state GiB': lambda _, step: f'{step.state_gib():.3f}',
  'x chips': lambda one, step: f'{step.state_gib() * one.chips:.1f}',
  'peak GiB': lambda _, step: f'{step.peak_gib:.2f}',
  'GB sent': lambda _, step: f'{step.sent / 1e9:.2f}',
  'collectives': lambda _, step: f'{sum(t.count for t in step.traffic):,.0f}',
  'TFLOP': lambda one, step: f'{step.tflops / one.chips:,.0f}',
}


def _seconds(step: StepReport) -> str:
  if step.time is None:
    return ''
  more = '> ' if step.time.unknown else ''  # A kernel has no schedule.
  seconds = step.time.seconds
  return f'{more}{seconds:.{0 if seconds >= 100 else 2}f} s'


def markdown(listed: List, found: Mapping[str, MemoryReport]) -> str:
  """Returns all tables; entries without a report are said to be missing."""
  parts = []
  for grows, tables in ((False, listed.tables), (True, listed.growth)):
    for title, entries in tables.items():
      parts.append(f'## {title}\n')
      reports = [found[e.name] for e in entries if e.name in found]
      for config in dict.fromkeys(one.config for one in reports):
        own = [one for one in reports if one.config == config]
        parts.append(
          f'`{config}`:\n\n{_growth(own) if grows else _memory(own)}'
        )
      missing = [e.name for e in entries if e.name not in found]
      if missing:
        parts.append(f'Not compiled: {", ".join(missing)}.\n')
  if found:
    versions = {
      f'{name} {number}'
      for one in found.values()
      for name, number in one.versions.items()
    }
    parts.append(
      'Mesh: data x fsdp x context. Tight: less than '
      f'{100 * HEADROOM:.0f} % to spare. Sizes are per device. Operations are '
      "counted from sizes; seconds are those of the compiler's schedule, "
      'roofline is the share of the peak arithmetic in them, links that of '
      'the time in which links between chips are busy, hidden or not. '
      'Compiled for the topology at normal effort with '
      f'{", ".join(sorted(versions))}, not run.\n'
    )
  return '\n'.join(parts)


def _memory(reports: Sequence[MemoryReport]) -> str:
  rows = [(one, step) for one in reports for step in one.steps]
  return f'{_table(_MEMORY, rows)}\n{_table(_LARGEST, rows)}'


def _growth(reports: Sequence[MemoryReport]) -> str:
  rows = [(one, step) for one in reports for step in one.steps]
  return '\n'.join(
    f'Step `{name}`, per chip; the state is what is trained:\n\n'
    + _table(_GROWTH, [row for row in rows if row[1].name == name])
    for name in dict.fromkeys(step.name for _, step in rows)
  )


def _table(
  cells: Cells, rows: Sequence[tuple[MemoryReport, StepReport]]
) -> str:
  lines = [list(cells), ['---'] * len(cells)]
  lines += [[cell(*row) for cell in cells.values()] for row in rows]
  return ''.join('| ' + ' | '.join(line) + ' |\n' for line in lines)
