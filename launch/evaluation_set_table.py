"""The table of an evaluation set: wall times, and the numbers of every order.

usage: python launch/evaluation_set_table.py FOLDER PROMPTS [MARKDOWN]

FOLDER is what launch/evaluation_set.sh wrote. The table is printed, kept in
FOLDER/table.md, and written to the Markdown file.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics.results import ResultTable
from unitemp_jax.evaluation_sets import store
from unitemp_jax.evaluation_sets.store import Store, duration

COMMAND = 'launch/evaluation_set.sh'
_STEPS = ('real clips', 'generate', 'verify', 'measure', 'report')
_METRICS = (
  'temporal flickering, moving clips',
  'BFR',
  'loop closure',
  'motion to real',
  'moves',
  'called forward',
  'brightness drift, as made',
  'PSNR, made frames',
  'PSNR of a cross-fade',
  'SSIM, made frames',
)


def read_steps(path: Path, prompts: str) -> Iterator[tuple[str, int, int]]:
  """Yields the name, the seconds and the attempts of each finished step.

  The first success counts: when it is run again, there is little left to do.
  """
  lines = [line.split('\t') for line in path.read_text().splitlines()]
  lines = [line for line in lines if line[2] == prompts]
  for name in _STEPS:
    attempts = 0
    for event, *rest in (line for line in lines if line[1] == name):
      attempts += event == 'begin'
      if event == 'end':
        yield name, int(rest[2]), attempts
        break


def make(folder: Path, prompts: str) -> str:
  """Returns the table as Markdown."""
  settings = Store(folder / 'set').read_settings()
  effort = store.read_effort(folder / 'set')
  steps = list(read_steps(folder / 'steps.tsv', prompts))
  total = sum(seconds for _, seconds, _ in steps)
  where = os.environ.get('JAX_PLATFORMS') or 'the accelerator'
  lines = [
    f'{settings["clips"]:,} clips ({settings["prompts"]} prompts in '
    f'{len(settings["orders"])} orders, {settings["frames"]} frames each) by '
    f'model `{settings["model"]}`, on {where} with {os.cpu_count()} cores: '
    f'{duration(total)} in all. Generation: {effort}.',
    '',
    '| step | wall time |',
    '|---|---|',
  ]
  for name, seconds, attempts in steps:
    more = f' (the last of {attempts} attempts)' if attempts > 1 else ''
    lines.append(f'| {name} | {duration(seconds)}{more} |')
  table = ResultTable.from_json(folder / 'measured' / 'metrics.json')
  shown = [row for metric in _METRICS for row in table.select(metric)]
  lines += ['', ResultTable(tuple(shown)).to_grid()]
  return '\n'.join(lines)


def main(arguments: list[str]) -> None:
  """Writes and prints the table."""
  folder = Path(arguments[0])
  text = make(folder, arguments[1])
  files.write(folder / 'table.md', text)
  for path in arguments[2:]:
    files.write_generated(path, f'# Results\n\n{text}', COMMAND)
  print(text)
  print(folder / 'set' / 'index.html')


if __name__ == '__main__':
  if len(sys.argv) not in (3, 4):
    sys.exit(__doc__)
  try:
    main(sys.argv[1:])
  except UserError as error:
    sys.exit(f'{Path(sys.argv[0]).name}: error: {error}')
