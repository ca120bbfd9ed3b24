"""What is shown to users without a traceback: an error, and a remark."""

import contextlib
import difflib
import errno
import os
from collections.abc import Iterable, Iterator


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


def check_known(
  what: str, name: object, known: Iterable[str], count: str = 'one'
) -> None:
  """Refuses a name that is not known; `what` begins the sentence."""
  known = list(known)
  if name not in known:
    raise UserError(f'{what} {name!r}; use {count} of {", ".join(known)}.')


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
  """The known word that one may be a misspelling of, '' if none is near."""
  return next(iter(difflib.get_close_matches(word, list(known), 1, cutoff)), '')


def foreign(
  path: str | os.PathLike[str],
  why: str = 'was not made by this command',
  place: str = '--out',
) -> UserError:
  """The complaint about a file that must not be replaced."""
  return UserError(
    f'{os.fspath(path)} is there already and {why}; choose another {place}, or '
    'move it away.'
  )


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
