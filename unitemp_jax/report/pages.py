"""Pages from the jinja2 templates in assets/report.

A page needs no server and no network: it is one file, and for many clips a
folder of parts beside it. Everything that a template shows is escaped by
jinja2; there is no HTML in Python. Templates turn numbers into drawings, which
fill the width they are given.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from unitemp_jax import files
from unitemp_jax.errors import UserError

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


_ASSETS = pathlib.Path(__file__).parents[1] / 'assets' / 'report'


def number(value: float) -> str:
  """Formats with three significant digits; a dash for what is not finite."""
  if not math.isfinite(value):
    return '–'
  if abs(value) >= 100:
    return f'{value:.0f}'
  if 0 < abs(value) < 0.1:
    return f'{value:.3g}'.replace('e-0', 'e-')
  digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
  return f'{value:.{digits}f}'


def plural(count: int, noun: str) -> str:
  """Returns '1 clip', '2 clips', '5,000 clips'."""
  return f'{count} {noun}' if count == 1 else f'{count:,} {noun}s'


def grouped(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
  """Returns the values of each key, in the order of first appearance."""
  found: dict[Any, list[Any]] = {}
  for key, value in pairs:
    found.setdefault(key, []).append(value)
  return found


def label(order: str) -> str:
  """Returns the name of an order as a reader sees it."""
  return order.replace('_', ' ')


def link(path: str) -> str:
  """Returns a relative path as an address; names need not be UTF-8."""
  return quote(os.fsencode(path))


def asset(name: str) -> Markup:
  """Returns a style sheet or script of the pages as it is."""
  return Markup((_ASSETS / name).read_text(encoding='utf-8'))


def _environment() -> jinja2.Environment:
  made = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_ASSETS),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  for function in (number, plural, label, link):
    made.filters[function.__name__] = function
  for drawing in (cascade, difference_chart, interval_bar):
    made.globals[drawing.__name__] = drawing
  made.globals['asset'] = asset
  return made


_TEMPLATES = _environment()


def render(template: str, **context: Any) -> str:
  """Returns the page of a template; what is no Unicode becomes `?`."""
  text = _TEMPLATES.get_template(template).render(**context)
  return text.encode('utf-8', 'replace').decode('utf-8')


def check_own(
  path: pathlib.Path, eyebrow: str, beside: Iterable[str] = ()
) -> None:
  """Raises UserError where a page of another kind, or no page, is in the way.

  Args:
    path: where a page will be written.
    eyebrow: of that page.
    beside: names of what is written with it.
  """
  try:
    head = path.read_text(encoding='utf-8', errors='replace')
  except FileNotFoundError:
    for name in beside:
      if os.path.lexists(path.parent / name):
        raise UserError(
          f'{path.parent / name} is there without its page {path.name}, and '
          'may be a file of yours; move it away.'
        ) from None
    return
  except OSError as error:
    raise UserError(
      f'{path} cannot be replaced ({error.strerror}); choose another folder.'
    ) from error
  if f'<p class="eyebrow">{eyebrow}</p>' not in head:
    raise UserError(
      f'{path} is there already and no page of {eyebrow!r}; choose another '
      'folder or delete it.'
    )


PART = 100  # clips of a part of a gallery, at least

# A heading, what stands beside it, and clips as `read.Clip` says.
Row = tuple[str, str, Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Gallery:
  """Rows of clips on a page; what is beyond its first part lies beside it."""

  groups: Sequence[str]  # names of what a row compares
  rows: int  # number of all rows
  first: Markup  # the rows of the first part
  parts: Sequence[str] = ()  # files of the others, as addresses from the page
  # file of the headings of all, for the search; '' without parts
  texts: str = ''


def write_gallery(
  page: pathlib.Path, rows: Iterable[Row], groups: Sequence[str]
) -> Gallery:
  """Writes all parts of a gallery but the first, in the memory of one part.

  Files are named by their content, so that those of the page that is there stay
  until `remove_parts`. UserError if a part cannot be written.
  """
  row = _TEMPLATES.get_template('clips.html').module.row  # type: ignore
  folder = page.with_suffix('.parts')

  def script(value: Any) -> str:
    text = f'unitempPart = {json.dumps(value)};\n'
    path = folder / f'{files.sha256(text)[:16]}.js'
    if not path.exists():
      files.write(path, text)
    return link(f'{folder.name}/{path.name}')

  count, first, parts = 0, Markup(), []
  texts: list[list[tuple[str | None, str]]] = []
  for part in _parts(rows):
    shown, last = [row(*one) for one in part], None
    if texts:
      parts.append(script(shown))
    else:
      first = Markup().join(shown)
    texts.append([])
    for heading, beside, _ in part:
      texts[-1].append((None if heading == last else heading, beside))
      last = heading
    count += len(part)
  named = script(texts) if parts else ''
  return Gallery(groups, count, first, parts, named)


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
  part: list[Row] = []
  for row in rows:
    part.append(row)
    if sum(len(clips) for *_, clips in part) >= PART:
      yield part
      part = []
  if part:
    yield part


def remove_parts(page: pathlib.Path, gallery: Gallery) -> None:
  """Removes the parts of former pages, once the page is written."""
  folder = page.with_suffix('.parts')
  named = {name.rpartition('/')[2] for name in (*gallery.parts, gallery.texts)}
  for path in folder.glob('*.js'):
    if re.fullmatch(r'[0-9a-f]{16}\.js', path.name) and path.name not in named:
      path.unlink(missing_ok=True)
