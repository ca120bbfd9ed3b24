"""Sets that are made shard by shard, by one command or by several at once."""

from collections.abc import Sequence
from pathlib import Path

import jax

from unitemp_jax.errors import UserError


def read_prompts(paths: Sequence[Path]) -> list[str]:
  """The lines of all files that are not blank; UserError if there are none."""
  lines: list[str] = []
  for path in paths:
    try:
      lines += path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(
        f'{path} cannot be read as text ({error}); check the path.'
      ) from error
  lines = [line for line in lines if line.strip()]
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
