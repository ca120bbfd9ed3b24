"""The page of a comparison: table, videos side by side, what stands alone."""

from __future__ import annotations

import collections
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from unitemp_jax.compare import table
from unitemp_jax.compare.pairing import Pair, Unpaired
from unitemp_jax.compare.pictures import Pictures
from unitemp_jax.evaluation.clips.tables import Clip as Measured
from unitemp_jax.evaluation.metrics.bootstrap import Interval
from unitemp_jax.report import charts, shell
from unitemp_jax.report import rows as report_rows
from unitemp_jax.report.read import Clip
from unitemp_jax.report.shell import plural

_LATENT = 4  # frames
_LISTED = 400  # unpaired clips on the page; all are in the CSV


@dataclasses.dataclass(frozen=True)
class Contents:
  """All that the page shows.

  Attributes:
    title: plain text.
    names: of the systems.
    folders: of each system.
    matches: names of two systems and the rows of their table.
    pairs: of clips.
    measured: what was measured of each clip, by its path.
    pictures: of some clips, by path.
    unpaired: clips that stand alone.
    notes: sentences.
    command: that made it.
    blind: link to the blind page, or ''.
  """

  title: str
  names: tuple[str, ...]
  folders: tuple[Path, ...]
  matches: tuple[tuple[tuple[str, str], tuple[table.Row, ...]], ...]
  pairs: tuple[Pair, ...]
  measured: Mapping[Path, Measured]
  pictures: Mapping[Path, Pictures]
  unpaired: tuple[Unpaired, ...]
  notes: tuple[str, ...]
  command: str
  blind: str


def render(contents: Contents, out: Path) -> str:
  """Returns the page; videos stay where they are and are linked from there."""
  sections = [
    (f'table-{i}', f'{escape(a)} against {escape(b)}', comparison((a, b), rows))
    for i, ((a, b), rows) in enumerate(contents.matches)
  ]
  sections += [
    ('videos', 'Videos', videos(contents, out)),
    ('unpaired', 'Not paired', unpaired(contents.unpaired)),
    ('provenance', 'Provenance', provenance(contents)),
  ]
  link = ''
  if contents.blind:
    link = f' <a href="{contents.blind}">Vote blind</a>.'
  lead = (
    f'{plural(len(contents.pairs), "pair")} of '
    f'{plural(len(contents.names), "system")}; '
    f'{plural(len(contents.unpaired), "clip")} not paired. One line per clip '
    f'in <a href="clips.csv">clips.csv</a>.{link}'
  )
  return shell.page(
    contents.title, 'unitemp comparison', lead, sections, contents.notes
  )


def comparison(names: tuple[str, str], rows: Sequence[table.Row]) -> str:
  """Returns the paired table of two systems, a part per section."""
  parts: dict[str, list[table.Row]] = {}
  for row in rows:
    parts.setdefault(row.section, []).append(row)
  hint = (
    '<p class="hint">Intervals are 95 % by bootstrap over pairs; of twenty, '
    'one misses by chance. A clip that stands still wins nothing.</p>'
  )
  return hint + ''.join(
    f'<article class="metric"><h3>{escape(section)}</h3>'
    f'{_table(names, part)}</article>'
    for section, part in parts.items()
  )


def _table(names: tuple[str, str], rows: Sequence[table.Row]) -> str:
  heads = ''.join(
    f'<th scope="col">{text}</th>'
    for text in (
      escape(names[0]),
      escape(names[1]),
      'difference',
      '95 %',
      'wins',
      'n',
      '',
    )
  )
  lines = ''.join(_line(row) for row in rows)
  return (
    '<table class="pairs"><thead><tr><th scope="col">metric</th>'
    f'{heads}</tr></thead><tbody>{lines}</tbody></table>'
  )


def _line(row: table.Row) -> str:
  sign = '×' if row.is_ratio else ''
  difference = span = ''
  if row.difference is not None:
    difference = f'{sign}{_number(row.difference.value)}'
    span = f'{_number(row.difference.low)} to {_number(row.difference.high)}'
  wins = '' if row.wins is None else f'{100 * row.wins.value:.0f} %'
  told = ' told' if row.verdict.endswith('better') else ''
  cells = ''.join(
    f'<td class="{kind}">{text}</td>'
    for kind, text in (
      ('n', _level(row.first)),
      ('n', _level(row.second)),
      (f'value{told}', difference),
      ('span', span),
      ('n', wins),
      ('n', str(row.pairs)),
      ('verdict', escape(row.verdict)),
    )
  )
  return f'<tr><th scope="row">{escape(row.metric)}</th>{cells}</tr>'


def _number(value: float) -> str:
  """Three significant digits, however small the number."""
  if not math.isfinite(value):
    return '–'
  return f'{value:.3g}'.replace('e-0', 'e-')


def _level(value: Interval | None) -> str:
  return '' if value is None else _number(value.value)


def videos(contents: Contents, out: Path) -> str:
  """Returns a row per pair, the systems side by side."""
  rows = []
  for pair in contents.pairs:
    clips = [
      shown(contents, name, pair, out)
      for name in contents.names
      if name in pair.clips
    ]
    rows.append(report_rows.row(pair.prompt, f'sample {pair.sample}', clips))
  return report_rows.gallery(rows, contents.names)


def shown(contents: Contents, name: str, pair: Pair, out: Path) -> Clip:
  """A clip as the report shows it, under the name of its system."""
  file = pair.clips[name]
  measured = contents.measured[file.path]
  pictures = contents.pictures.get(file.path, Pictures('', ''))
  layout = file.layout
  spans = layout.spans or played(layout.boundaries, measured.curves.frames)
  values = measured.values
  note = f'motion {charts.number(255 * values["mean step"])}/255'
  if 'BFR' in values:
    note = f'BFR {charts.number(values["BFR"])}, {note}'
  return Clip(
    name=file.name,
    order=name,
    video=os.path.relpath(file.path, out).replace(os.sep, '/'),
    prompt=pair.prompt,
    seed=0,
    frames=measured.curves.frames,
    fps=file.fps,
    width=measured.curves.width,
    height=measured.curves.height,
    boundary_frames=list(layout.boundaries),
    frame_difference=[round(float(s), 5) for s in measured.curves.steps],
    generation_order=[latents(span) for span in spans],
    checkpoint='',
    version='',
    timings={},
    plan_image='',
    poster=pictures.poster,
    strip=pictures.strip,
    stages=[],
    sample=pair.sample,
    note=note,
  )


def played(boundaries: Sequence[int], frames: int) -> list[tuple[int, int]]:
  """First and last frame of blocks that were made as they play."""
  inside = [j for j in boundaries if 0 <= j < frames - 1]
  starts = [0, *(j + 1 for j in inside)]
  return list(zip(starts, [*inside, frames - 1], strict=True))


def latents(span: tuple[int, int]) -> list[int]:
  """Temporal latents that code frames first to last: frame 0 has its own."""
  return list(range(-(-span[0] // _LATENT), -(-span[1] // _LATENT) + 1))


def unpaired(clips: Sequence[Unpaired]) -> str:
  """Returns what stands alone, by system and reason."""
  groups: dict[tuple[str, str], list[str]] = {}
  for clip in clips[:_LISTED]:
    groups.setdefault((clip.system, clip.reason), []).append(clip.clip.name)
  more = len(clips) - _LISTED
  rest = f'<p class="meta">and {plural(more, "clip")}</p>' if more > 0 else ''
  return (
    ''.join(
      f'<details><summary>{escape(system)}: {plural(len(names), "clip")}, '
      f'{escape(reason)}</summary><p class="meta">'
      f'{"<br>".join(map(escape, names))}</p></details>'
      for (system, reason), names in groups.items()
    )
    + rest
  )


def provenance(contents: Contents) -> str:
  """Returns where the clips come from, their sizes and rates."""
  lines = []
  for name, folder in zip(contents.names, contents.folders, strict=True):
    shapes = collections.Counter(
      f'{m.curves.frames} frames, {m.curves.width} × {m.curves.height}, '
      f'{p.clips[name].fps:g} per second'
      for p in contents.pairs
      if name in p.clips
      for m in [contents.measured[p.clips[name].path]]
    )
    text = '<br>'.join(
      f'{escape(shape)} ({plural(count, "clip")})'
      for shape, count in shapes.most_common()
    )
    lines.append(
      f'<dt>{escape(name)}</dt><dd><code>{escape(str(folder))}</code><br>'
      f'{text}</dd>'
    )
  command = f'<dt>Command</dt><dd><code>{escape(contents.command)}</code></dd>'
  return f'<dl>{"".join(lines)}{command}</dl>'
