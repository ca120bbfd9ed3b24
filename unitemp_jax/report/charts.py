"""The drawings of the report: HTML and SVG text made from plain numbers.

Every drawing fills the width it is given; labels are HTML, so that they keep
their size. All numbers are formatted here and no text from outside is used.
"""

import math
from collections.abc import Sequence
from urllib.parse import quote

MAX_POINTS = 600  # of a line; more than the pixels it is drawn with


def number(value: float) -> str:
  """Formats with three significant digits; a dash for what is not finite."""
  if not math.isfinite(value):
    return '–'
  if abs(value) >= 100:
    return f'{value:.0f}'
  digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
  return f'{value:.{digits}f}'


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
) -> str:
  """Draws frame difference over time with the block boundaries marked.

  Args:
    values: change from frame j to frame j + 1, for each j.
    boundaries: the j that cross from one block to the next.
    top: value at the upper edge, so that charts share a scale.
  """
  if not values:
    return '<p class="none">no frame differences recorded</p>'
  width, height = 1000.0, 100.0
  top = top if top > 0 else 1.0

  def x_of(j: float) -> float:
    return width * (j + 1) / (len(values) + 1)  # The edge between two frames.

  def y_of(value: float) -> float:
    return height * (1 - min(value / top, 1.0))

  points = ' '.join(f'{x_of(j):.1f},{y_of(v):.1f}' for j, v in thin(values))
  inside = [j for j in boundaries if 0 <= j < len(values)]
  marks = ''.join(
    f'<path class="edge" d="M{x_of(j):.1f} 0V{height:.0f}"/>'
    f'<path class="stem" d="M{x_of(j):.1f} {height:.0f}'
    f'V{y_of(values[j]):.1f}"/>'
    for j in inside
  )
  label = (
    f'frame difference over {len(values)} transitions, '
    f'largest {number(max(values))}, {len(inside)} block boundaries'
  )
  return (
    f'<div class="chart"><span class="top">{number(top)}</span>'
    f'<svg viewBox="0 0 {width:.0f} {height:.0f}" preserveAspectRatio="none" '
    f'role="img" aria-label="{label}">{marks}'
    f'<polyline class="line" points="{points}"/></svg>'
    f'<span class="from">0</span><span class="to">frame {len(values)}</span>'
    '</div>'
  )


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
) -> str:
  """Draws the clip as it grew: one line per step, time to the right.

  Args:
    spans: first and last frame of each block, in generation order.
    frames: length of the clip.
    strip: path of a picture of the whole clip; '' draws plain bars.
  """
  if not spans:
    return '<p class="none">no generation order recorded</p>'
  lines = []
  for step, span in enumerate(spans):
    earlier = ''.join(
      _segment(run, frames, strip, 'old') for run in merge(spans[:step])
    )
    newest = _segment(span, frames, strip, 'new')
    lines.append(f'<li>{earlier}{newest}</li>')
  style = f' style="--strip:url(\'{quote(strip)}\')"' if strip else ''
  return f'<ol class="cascade"{style}>{"".join(lines)}</ol>'


def _segment(span: tuple[int, int], frames: int, strip: str, kind: str) -> str:
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
  return f'<i class="{kind}" style="{style}"></i>'


def interval_bar(value: float, low: float, high: float, limits) -> str:
  """Draws a value and its interval between the limits (left, right)."""
  left, right = limits
  if not all(map(math.isfinite, (value, low, high))) or right <= left:
    return ''

  def place(number_: float) -> float:
    return 100 * (min(max(number_, left), right) - left) / (right - left)

  return (
    '<div class="bar">'
    f'<i style="left:{place(low):.1f}%;'
    f'width:{max(place(high) - place(low), 0):.1f}%"></i>'
    f'<b style="left:{place(value):.1f}%"></b></div>'
  )
