"""Pages from the jinja2 templates in assets/report.

A page is one file that needs no server and no network. Everything that a
template shows is escaped by jinja2; there is no HTML in Python.
"""

import math
import os
import pathlib
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.report import charts

_ASSETS = pathlib.Path(__file__).parents[1] / 'assets' / 'report'


def number(value: float) -> str:
  """Formats with three significant digits; a dash for what is not finite."""
  if not math.isfinite(value):
    return '–'
  if abs(value) >= 100:
    return f'{value:.0f}'
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
  for drawing in (charts.cascade, charts.difference_chart, charts.interval_bar):
    made.globals[drawing.__name__] = drawing
  made.globals['asset'] = asset
  return made


_TEMPLATES = _environment()


def render(template: str, **context: Any) -> str:
  """Returns the page of a template; what is no Unicode becomes `?`."""
  text = _TEMPLATES.get_template(template).render(**context)
  return text.encode('utf-8', 'replace').decode('utf-8')


def check_own(path: pathlib.Path, eyebrow: str) -> None:
  """Raises UserError where a page of another kind, or no page, is in the way.

  Args:
    path: where a page will be written.
    eyebrow: of that page.
  """
  try:
    head = path.read_text(encoding='utf-8', errors='replace')
  except FileNotFoundError:
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


def write(path: pathlib.Path, template: str, **context: Any) -> pathlib.Path:
  """Writes the page of a template atomically, and returns its path.

  Raises:
    UserError: it cannot be written.
  """
  return files.write(path, render(template, **context))
