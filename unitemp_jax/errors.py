"""What is shown to users without a traceback: an error, and a remark."""


class UserError(Exception):
  """Bad input, in one sentence: what is wrong, where, and how to mend it.

  Whatever reads files, options or sizes raises it for what cannot be used; a
  docstring says so only where something else holds.
  The command line prints the sentence and exits with code 2. Raise it before
  anything is written, so that bad input destroys nothing.
  """


class Remark(UserWarning):
  """A warning in one sentence; the command line prints it as a note."""
