"""What jaxtyping's import hook wraps functions of the package in."""

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function):
  """Checks the types of calls.

  Not of what makes a dataclass: readers refuse the sizes that users write in
  words, and jax makes trees of arrays with placeholders in them.
  """
  return function if function.__name__ == '__init__' else _checked(function)
