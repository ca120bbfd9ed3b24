"""The frame of every page: head, title, links, what was left out, script.

A page is one file that needs no server and no network. Every text from outside
is escaped by whoever puts it in.
"""

import pathlib
from collections.abc import Sequence
from html import escape

from unitemp_jax import files

_ASSETS = pathlib.Path(__file__).parents[1] / 'assets' / 'report'
_SHOWN_PROBLEMS = 5


def page(
  title: str,
  eyebrow: str,
  lead: str,
  sections: Sequence[tuple[str, str, str]],
  problems: Sequence[str] = (),
  scripts: Sequence[str] = ('page.js',),
) -> str:
  """Returns a whole page, styles and scripts included.

  Args:
    title: plain text.
    eyebrow: HTML above the title.
    lead: HTML below the title.
    sections: (anchor, heading, HTML) each; empty ones are left out, and a
      single one has no heading.
    problems: plain sentences about what was left out.
    scripts: files of assets/report that run at the end of the page.
  """
  shown = [section for section in sections if section[2]]
  links = ''.join(f'<a href="#{key}">{name}</a>' for key, name, _ in shown)
  if len(shown) > 1:
    links = f'<nav>{links}</nav>'
    shown = [(key, f'<h2>{name}</h2>', text) for key, name, text in shown]
  else:
    links, shown = '', [(key, '', text) for key, _, text in shown]
  body = ''.join(
    f'<section id="{key}">{name}{text}</section>' for key, name, text in shown
  )
  title = escape(title)
  code = '\n'.join(asset(name) for name in scripts)
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
    f'<link rel="icon" href="data:,"><title>{title} · {eyebrow}</title>'
    f'<style>\n{asset("page.css")}</style></head><body>'
    f'<header class="page"><p class="eyebrow">{eyebrow}</p>'
    f'<h1>{title}</h1><p class="lead">{lead}</p>'
    f'{links}</header>'
    f'<main>{left_out(problems)}{body}</main>'
    f'<script>\n{code}</script></body></html>\n'
  )


def asset(name: str) -> str:
  """Returns the text of a file that belongs to the pages."""
  return (_ASSETS / name).read_text(encoding='utf-8')


def write(path: pathlib.Path, text: str) -> pathlib.Path:
  """Writes a text file atomically and returns its path.

  Raises:
    UserError: it cannot be written.
  """
  return files.write(path, text)


def plural(count: int, noun: str) -> str:
  """Returns '1 clip', '2 clips', '5,000 clips'."""
  return f'{count} {noun}' if count == 1 else f'{count:,} {noun}s'


def label(order: str) -> str:
  """Returns the name of an order as a reader sees it, escaped."""
  return escape(order.replace('_', ' '))


def left_out(sentences: Sequence[str]) -> str:
  """Lists what was left out, or nothing; a long list is folded."""
  if not sentences:
    return ''
  items = [f'<li>{escape(sentence)}</li>' for sentence in sentences]
  rest = ''.join(items[_SHOWN_PROBLEMS:])
  if rest:
    rest = (
      f'<details><summary>{plural(len(items) - _SHOWN_PROBLEMS, "more")[:-1]}'
      f'</summary><ul>{rest}</ul></details>'
    )
  return (
    f'<aside class="problems"><h2>Worth knowing: '
    f'{plural(len(sentences), "note")}</h2>'
    f'<ul>{"".join(items[:_SHOWN_PROBLEMS])}</ul>{rest}</aside>'
  )
