"""The one error type that is shown to users without a traceback."""


class UserError(Exception):
  """Bad input, in one sentence: what is wrong, where, and how to mend it.

  The command line prints the sentence and exits with code 2. Raise it before
  anything is written, so that bad input destroys nothing.
  """
