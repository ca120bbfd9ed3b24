"""Writes a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from unitemp_jax.errors import UserError


def write(path: str | os.PathLike[str], content: bytes | str) -> Path:
  """Writes a file and its folder; a reader sees the old one or the new one.

  Nothing is left behind where it fails, so that a full disk does not fill up
  further.

  Raises:
    UserError: it cannot be written.
  """
  path = Path(path)
  partial = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  data = content.encode() if isinstance(content, str) else content
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(data)
    os.replace(partial, path)
  except OSError as error:
    raise UserError(
      f'cannot write {path} ({error.strerror or error}); make room or choose '
      'another folder.'
    ) from error
  finally:
    with contextlib.suppress(OSError):
      partial.unlink(missing_ok=True)
  return path
