"""Writes the measurements of a folder: tables, one line per clip, one page."""

import json
import pathlib
from collections.abc import Sequence

from unitemp_jax.evaluation.suites import runner
from unitemp_jax.evaluation.suites.bench import Section
from unitemp_jax.report import shell
from unitemp_jax.report.tables import measurements

CLIPS = 'clips.csv'


def write(
  out: pathlib.Path,
  sections: Sequence[Section],
  clips: str,
  problems: Sequence[str],
) -> None:
  """Writes metrics.json, metrics.md, clips.csv, notes.json and index.html.

  Args:
    out: folder.
    sections: tables.
    clips: CSV, one line per clip.
    problems: sentences about what was left out.

  Raises:
    UserError: a file cannot be written.
  """
  shell.write(out / CLIPS, clips)
  shell.write(out / runner.TABLES, runner.to_markdown(sections))
  shell.write(out / 'notes.json', json.dumps(list(problems), indent=1) + '\n')
  shell.write(
    out / 'index.html',
    shell.page(
      out.resolve().name,
      'unitemp measurements',
      f'{shell.plural(len(sections), "table")}; every number with its '
      f'95 % interval over clips. One line per clip in <a href="{CLIPS}">'
      f'{CLIPS}</a>.',
      tables(sections),
      problems,
    ),
  )
  runner.join(sections).to_json(out / runner.METRICS)


def tables(sections: Sequence[Section]) -> list[tuple[str, str, str]]:
  """The sections of a page: one per table."""
  return [
    (f'table-{number}', section.title, measurements(section.rows))
    for number, section in enumerate(sections)
  ]
