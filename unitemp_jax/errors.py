"""What is shown to users without a traceback: an error, and a remark."""

import contextlib
import errno
import os
from collections.abc import Iterator


class UserError(Exception):
  """Bad input, in one sentence: what is wrong, where, and how to mend it.

  Whatever reads files, options or sizes raises it for what cannot be used; a
  docstring says so only where something else holds.
  The command line prints the sentence and exits with code 2. Raise it before
  anything is written, so that bad input destroys nothing.
  """


class Remark(UserWarning):
  """A warning in one sentence; the command line prints it as a note."""


_MOST_SHOWN = 60


def plain(text: str) -> str:
  """A text for a terminal: what would steer it is written as an escape."""
  if text.isprintable():
    return text
  return ''.join(
    c if c.isprintable() or c == '\n' else ascii(c)[1:-1] for c in text
  )


def shown(text: str) -> str:
  """What a user wrote, for one line of a terminal: cut to 60 characters."""
  cut = text if len(text) <= _MOST_SHOWN else f'{text[:_MOST_SHOWN]}...'
  return plain(cut).replace('\n', '\\n')


def is_blank(text: str) -> bool:
  """Whether nothing of a text is seen, as of spaces and byte-order marks."""
  return not any(c.isprintable() and c != ' ' for c in text)


@contextlib.contextmanager
def optional(what: str, extra: str, instead: str = '') -> Iterator[None]:
  """Around imports of packages that few need: says how to install them.

  Args:
    what: half a sentence on what needs them.
    extra: of this package, which brings them.
    instead: what else can be done, from its comma on.
  """
  try:
    yield
  except ImportError as error:
    raise UserError(
      f'{what}, and {error.name or extra} is not installed; run: pip install '
      f'"unitemp_jax[{extra}]"{instead}.'
    ) from error


def system_error(error: Exception) -> OSError | None:
  """What the system said in an error of a library or of ours, if it did."""
  cause = error.__cause__ if isinstance(error, UserError) else error
  if isinstance(cause, OSError):
    return cause
  codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
  found = [code for code in codes if os.strerror(code) in str(error)]
  return OSError(found[0], os.strerror(found[0])) if found else None
