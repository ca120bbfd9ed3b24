"""The numbers behind the drawings of a page; templates turn them into SVG.

Every drawing fills the width it is given.
"""

import math
from collections.abc import Sequence

MAX_POINTS = 600  # of a line; more than the pixels it is drawn with
WIDTH, HEIGHT = 1000.0, 100.0  # of a chart, in its own units


def thin(values: Sequence[float]) -> list[tuple[int, float]]:
  """Reduces a long series to at most MAX_POINTS pairs (index, value).

  The largest value of each bin is kept where it stands, so no spike is lost.
  """
  size = max(1, math.ceil(len(values) / MAX_POINTS))
  points = []
  for start in range(0, len(values), size):
    group = values[start : start + size]
    peak = max(range(len(group)), key=group.__getitem__)
    points.append((start + peak, group[peak]))
  return points


def difference_chart(
  values: Sequence[float], boundaries: Sequence[int], top: float
) -> tuple[str, list[tuple[str, str]]]:
  """Draws frame difference over time with the block boundaries marked.

  Args:
    values: change from frame j to frame j + 1, for each j.
    boundaries: the j that cross from one block to the next.
    top: value at the upper edge, so that charts share a scale.

  Returns:
    The points of the line, and (x, y) of each boundary inside.
  """
  top = top if top > 0 else 1.0

  def place(j: int, value: float) -> tuple[str, str]:
    x = WIDTH * (j + 1) / (len(values) + 1)  # The edge between two frames.
    return f'{x:.1f}', f'{HEIGHT * (1 - min(value / top, 1.0)):.1f}'

  line = ' '.join(','.join(place(*point)) for point in thin(values))
  inside = [j for j in boundaries if 0 <= j < len(values)]
  return line, [place(j, values[j]) for j in inside]


def merge(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
  """Joins frame ranges that touch or overlap; ends are inclusive."""
  merged: list[tuple[int, int]] = []
  for start, end in sorted(spans):
    if merged and start <= merged[-1][1] + 1:
      merged[-1] = (merged[-1][0], max(merged[-1][1], end))
    else:
      merged.append((start, end))
  return merged


def cascade(
  spans: Sequence[tuple[int, int]], frames: int, strip: str = ''
) -> list[list[tuple[str, str]]]:
  """Draws the clip as it grew: one line per step, time to the right.

  Args:
    spans: first and last frame of each block, in generation order.
    frames: length of the clip.
    strip: path of a picture of the whole clip; '' draws plain bars.

  Returns:
    The segments of each line: 'old' or 'new', and the style that places it.
  """
  return [
    [
      *(('old', _place(old, frames, strip)) for old in merge(spans[:step])),
      ('new', _place(span, frames, strip)),
    ]
    for step, span in enumerate(spans)
  ]


def _place(span: tuple[int, int], frames: int, strip: str) -> str:
  start, end = span
  length = end - start + 1
  style = f'left:{100 * start / frames:.2f}%;width:{100 * length / frames:.2f}%'
  if strip:
    rest = frames - length
    shift = 100 * start / rest if rest else 0.0
    style += (
      f';background-size:{100 * frames / length:.2f}% 100%'
      f';background-position:{shift:.2f}% 0'
    )
  return style


def interval_bar(
  value: float, low: float, high: float, limits: tuple[float, float]
) -> tuple[str, str, str] | None:
  """Places a value and its interval between the limits, in percent.

  Returns:
    Left end, width, and the value's place; None where one is not finite.
  """
  left, right = limits
  if not all(map(math.isfinite, (value, low, high))) or right <= left:
    return None

  def place(number: float) -> float:
    return 100 * (min(max(number, left), right) - left) / (right - left)

  width = max(place(high) - place(low), 0)
  return f'{place(low):.1f}', f'{width:.1f}', f'{place(value):.1f}'
