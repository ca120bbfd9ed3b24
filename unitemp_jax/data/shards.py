"""Sets that are made shard by shard, by one command or by several at once."""

from collections.abc import Sequence
from pathlib import Path

import jax

from unitemp_jax import files
from unitemp_jax.errors import UserError


def read_prompts(paths: Sequence[Path]) -> list[str]:
  """The lines of all files that are not blank; UserError if there are none."""
  lines = [line for path in paths for line in files.read_lines(path)]
  if not lines:
    raise UserError('the files hold no prompts; write one per line.')
  return lines


def part_of(text: str | None) -> tuple[int, int]:
  """Which parts of N this command makes, 'I/N'; by default this host's."""
  if text is None:
    return jax.process_index(), jax.process_count()
  try:
    part, parts = map(int, text.split('/'))
  except ValueError:
    part, parts = -1, 0
  if not 0 <= part < parts:
    raise UserError(f'--shard={text} is not I/N with 0 <= I < N, such as 0/4.')
  return part, parts
