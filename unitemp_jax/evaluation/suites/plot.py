"""A line chart as pixels, for the pictures that suites write."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SIZE, _LEFT, _TOP, _RIGHT, _BOTTOM = (960, 520), 70, 50, 660, 450
# Okabe and Ito's colours, which most colour-blind people can tell apart.
_COLOURS = (
  (90, 90, 90),
  (0, 114, 178),
  (213, 94, 0),
  (0, 158, 115),
  (204, 121, 167),
)
_INK, _FAINT = (30, 30, 30), (220, 220, 220)
_FLOOR = 0.2  # what is lower is drawn there
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def curves(
  x: np.ndarray,
  lines: Mapping[str, np.ndarray],
  *,
  title: str,
  labels: tuple[str, str],
  marked: int,
) -> np.ndarray:
  """Draws lines over whole numbers, on a logarithmic scale.

  Args:
    x: int `[n]`, rising.
    lines: positive values `[n]` by what the legend calls them.
    title: above the chart.
    labels: of the two axes.
    marked: x at which a vertical line stands.

  Returns:
    uint8 `[H, W, 3]`.
  """
  image = Image.new('RGB', _SIZE, (255, 255, 255))
  draw = ImageDraw.Draw(image)
  lines = {name: np.maximum(line, _FLOOR) for name, line in lines.items()}
  values = np.concatenate(list(lines.values()))
  low, high = np.log(values.min() / 1.15), np.log(values.max() * 1.15)

  def across(value):
    share = (value - x[0]) / max(x[-1] - x[0], 1)
    return _LEFT + share * (_RIGHT - _LEFT)

  def down(value):
    share = (np.log(value) - low) / (high - low)
    return _BOTTOM - share * (_BOTTOM - _TOP)

  for tick in _TICKS:
    if low <= np.log(tick) <= high:
      y = down(tick)
      draw.line([(_LEFT, y), (_RIGHT, y)], fill=_FAINT)
      _write(draw, (_LEFT - 8, y), f'{tick:g}', 'rm')
  for value in x[:: max(len(x) // 13, 1)]:
    _write(draw, (across(value), _BOTTOM + 8), str(value), 'mt')
  draw.line([(across(marked), _TOP), (across(marked), _BOTTOM)], fill=_FAINT)
  draw.line([(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)], fill=_INK)
  for k, (name, line) in enumerate(lines.items()):
    colour = _COLOURS[k % len(_COLOURS)]
    points = [(across(a), down(b)) for a, b in zip(x, line, strict=True)]
    draw.line(points, fill=colour, width=3)
    y = _TOP + 12 + 22 * k
    draw.line([(_RIGHT + 14, y), (_RIGHT + 40, y)], fill=colour, width=3)
    _write(draw, (_RIGHT + 48, y), name, 'lm')
  _write(draw, (_LEFT, 24), title, 'lm', 17)
  _write(draw, (_RIGHT, _BOTTOM + 40), labels[0], 'rm')
  _write(draw, (_LEFT + 8, _TOP - 8), labels[1], 'lm')
  return np.asarray(image)


def _write(draw, at, text: str, anchor: str, size: int = 14) -> None:
  draw.text(
    at, text, fill=_INK, anchor=anchor, font=ImageFont.load_default(size)
  )
