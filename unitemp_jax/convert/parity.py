"""How close our networks are to PyTorch's: errors, tolerances, the table.

The error of a module is the norm of the difference over the norm of PyTorch's
output, for the same input on both sides. A module's input is PyTorch's own, so
that errors do not add up from layer to layer; the rows named `network` run
both sides from end to end.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

# dtype -> largest relative error of (a module, a whole network). bfloat16 has
# 8 bits, so that one rounding is up to 2^-9 = .002, and both sides round.
TOLERANCES = {'float32': (1e-5, 1e-4), 'bfloat16': (2e-2, 5e-2)}


@dataclasses.dataclass(frozen=True)
class Row:
  """The comparison of one module.

  Attributes:
    module: its name in PyTorch, or `network` and what was run.
    dtype: that both sides computed in.
    max_error: largest absolute difference of two outputs.
    relative_error: norm of the difference over norm of PyTorch's output.
    tolerance: the largest relative error allowed.
  """

  module: str
  dtype: str
  max_error: float
  relative_error: float
  tolerance: float

  @property
  def passed(self) -> bool:
    """Whether the error is within the tolerance; never for NaN."""
    return self.relative_error <= self.tolerance


def compare(module: str, dtype: str, ours, theirs) -> Row:
  """Compares two outputs of equal shape; a name with `network` is a whole one.

  Raises:
    ValueError: the shapes differ.
  """
  ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
  if ours.shape != theirs.shape:
    raise ValueError(f'{module}: {ours.shape} here, {theirs.shape} in PyTorch')
  whole = module.startswith('network')
  size = max(float(np.linalg.norm(theirs)), 1e-30)
  return Row(
    module,
    dtype,
    float(np.abs(ours - theirs).max()),
    float(np.linalg.norm(ours - theirs)) / size,
    TOLERANCES[dtype][whole],
  )


def format_rows(rows: Sequence[Row]) -> str:
  """The rows as a text table, one line each."""
  width = max(len(row.module) for row in rows)
  head = f'{"module":<{width}}  dtype     max error  relative  tolerance'
  lines = [
    f'{row.module:<{width}}  {row.dtype:<8}  {row.max_error:9.2e}  '
    f'{row.relative_error:8.1e}  {row.tolerance:9.0e}'
    f'{"" if row.passed else "  FAILS"}'
    for row in rows
  ]
  return '\n'.join([head, *lines])
