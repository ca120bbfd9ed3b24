"""The report as one page of HTML; every text from outside is escaped."""

import math
import pathlib
import statistics
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from unitemp_jax import report_charts as charts
from unitemp_jax.evaluation.results import Result
from unitemp_jax.report_read import Clip, Contents

ASSETS = pathlib.Path(__file__).parent / 'assets' / 'report'


def render(contents: Contents) -> str:
  """Returns the whole page, styles and script included."""
  style = (ASSETS / 'page.css').read_text(encoding='utf-8')
  script = (ASSETS / 'page.js').read_text(encoding='utf-8')
  title = escape(contents.folder.resolve().name)
  sections = [
    ('videos', 'Videos', videos(contents)),
    ('orders', 'Temporal orders', orders(contents)),
    ('measurements', 'Measurements', measurements(contents.results)),
    ('provenance', 'Provenance', provenance(contents)),
  ]
  shown = [section for section in sections if section[2]]
  links = ''.join(f'<a href="#{key}">{name}</a>' for key, name, _ in shown)
  body = ''.join(
    f'<section id="{key}"><h2>{name}</h2>{text}</section>'
    for key, name, text in shown
  )
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
    f'<link rel="icon" href="data:,"><title>{title} · unitemp report</title>'
    f'<style>\n{style}</style></head><body>'
    f'<header class="page"><p class="eyebrow">unitemp report</p>'
    f'<h1>{title}</h1><p class="lead">{lead(contents)}</p>'
    f'<nav>{links}</nav></header>'
    f'<main>{problems(contents.problems)}{body}</main>'
    f'<script>\n{script}</script></body></html>\n'
  )


def lead(contents: Contents) -> str:
  """Returns the sentence below the title: how much there is to see."""
  prompts = len({clip.prompt for clip in contents.clips})
  return (
    f'{plural(len(contents.clips), "clip")} of {plural(prompts, "prompt")} '
    f'in {plural(len(contents.orders), "temporal order")}.'
  )


def plural(count: int, noun: str) -> str:
  """Returns '1 clip', '2 clips'."""
  return f'{count} {noun}' if count == 1 else f'{count} {noun}s'


def label(order: str) -> str:
  """Returns the name of an order as a reader sees it, escaped."""
  return escape(order.replace('_', ' '))


def problems(sentences: Sequence[str]) -> str:
  """Lists what was left out, or nothing."""
  if not sentences:
    return ''
  items = ''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)
  return (
    f'<aside class="problems"><h2>Left out: '
    f'{plural(len(sentences), "file")}</h2><ul>{items}</ul></aside>'
  )


def videos(contents: Contents) -> str:
  """Returns one row per prompt and seed, the orders side by side."""
  rows: dict[tuple[str, int], list[Clip]] = {}
  for clip in sorted(contents.clips, key=lambda c: c.name):
    rows.setdefault((clip.prompt, clip.seed), []).append(clip)
  place = {order: i for i, order in enumerate(contents.orders)}
  hint = (
    '<p class="hint">Point at a video or tap it to play it; '
    'a row plays in step.</p>'
  )
  return hint + ''.join(
    row(prompt, seed, sorted(clips, key=lambda c: (place[c.order], c.name)))
    for (prompt, seed), clips in rows.items()
  )


def row(prompt: str, seed: int, clips: Sequence[Clip]) -> str:
  """Returns one prompt: its videos, and how they came about on demand."""
  top = max((max(c.frame_difference, default=0.0) for c in clips), default=0.0)
  figures = ''.join(map(figure, clips))
  made = ''.join(making(clip, top) for clip in clips)
  return (
    '<article class="row"><header><h3>'
    f'{escape(prompt)}</h3><p class="meta">seed {seed}</p>'
    '<button type="button" class="play">Play row</button></header>'
    f'<div class="clips">{figures}</div>'
    '<details><summary>How they were generated</summary>'
    f'<div class="made">{made}</div></details></article>'
  )


def figure(clip: Clip) -> str:
  """Returns one video with its order below."""
  return (
    f'<figure>{player(clip, clip.video, clip.poster)}'
    f'<figcaption>{label(clip.order)}</figcaption></figure>'
  )


def player(clip: Clip, path: str, poster: str) -> str:
  """Returns a video element that loads nothing until it is near the view."""
  small = ' class="small"' if clip.width <= 128 else ''
  data = f' data-poster="{escape(quote(poster))}"' if poster else ''
  spoken = f'{label(clip.order)}: {escape(clip.prompt)}'
  return (
    f'<video{small} src="{escape(quote(path))}"{data} preload="none" muted '
    f'loop playsinline controls tabindex="0" aria-label="{spoken}" '
    f'style="aspect-ratio:{clip.width}/{clip.height}"></video>'
  )


def making(clip: Clip, top: float) -> str:
  """Returns how one clip grew, and its frame difference over time."""
  stages = ''.join(player(clip, path, '') for path in clip.stages)
  playback = (
    f'<h5>As generated</h5><div class="stages">{stages}</div>' if stages else ''
  )
  return (
    f'<div><h4>{label(clip.order)}</h4><h5>Blocks, first to last made</h5>'
    f'{charts.cascade(clip.block_frames(), clip.frames, clip.strip)}{playback}'
    '<h5>Frame difference</h5>'
    + charts.difference_chart(clip.frame_difference, clip.boundary_frames, top)
    + '</div>'
  )


def orders(contents: Contents) -> str:
  """Returns one card per order: its plans and the mean frame difference."""
  means = {}
  for order in contents.orders:
    clips = [clip for clip in contents.clips if clip.order == order]
    means[order] = mean_difference(clips)
  top = max((max(m, default=0.0) for m in means.values()), default=0.0)
  return ''.join(
    order_card(
      order,
      [clip for clip in contents.clips if clip.order == order],
      means[order],
      top,
    )
    for order in contents.orders
  )


def mean_difference(clips: Sequence[Clip]) -> list[float]:
  """Averages over the clips that have the most common length."""
  lengths = [len(clip.frame_difference) for clip in clips]
  length = statistics.mode(lengths)
  same = [
    c.frame_difference for c in clips if len(c.frame_difference) == length
  ]
  return [statistics.fmean(values) for values in zip(*same, strict=True)]


def order_card(
  order: str, clips: Sequence[Clip], mean: Sequence[float], top: float
) -> str:
  """Returns what is common to all clips of one order."""
  drawings = dict.fromkeys(c.plan_image for c in clips if c.plan_image)
  plan = ''.join(
    f'<div class="plan"><img alt="plan of {label(order)}" src="{image}"></div>'
    for image in drawings
  )
  edges = [j for j in clips[0].boundary_frames if 0 <= j < len(mean)]
  inside = [v for j, v in enumerate(mean) if j not in edges]
  note = ''
  if edges and inside:
    at = statistics.fmean(mean[j] for j in edges)
    note = (
      f'{charts.number(at)} at block boundaries, '
      f'{charts.number(statistics.fmean(inside))} elsewhere; '
    )
  if not plan:
    plan = charts.cascade(clips[0].block_frames(), clips[0].frames)
  return (
    f'<article class="order"><h3>{label(order)}</h3><div class="pair">'
    f'<div><h5>Plan</h5>{plan}</div><div><h5>Mean frame difference</h5>'
    f'{charts.difference_chart(mean, edges, top)}'
    f'<p class="meta">{note}{plural(len(clips), "clip")}</p></div></div>'
    '</article>'
  )


def measurements(results: Sequence[Result]) -> str:
  """Returns one table per metric, or nothing without an evaluation."""
  tables: dict[str, list[Result]] = {}
  for result in results:
    tables.setdefault(result.metric, []).append(result)
  return ''.join(metric(name, rows) for name, rows in tables.items())


def metric(name: str, rows: Sequence[Result]) -> str:
  """Returns the table of one metric with its intervals drawn to scale."""
  ends = [v for r in rows for v in (r.low, r.high, r.value) if math.isfinite(v)]
  limits = (min([0.0, *ends]), max([0.0, *ends]))
  unit = '' if rows[0].unit in ('', 'ratio') else f' ({escape(rows[0].unit)})'
  lines = ''.join(
    f'<tr><th scope="row">{escape(r.group)}</th>'
    f'<td class="wide">{charts.interval_bar(r.value, r.low, r.high, limits)}'
    f'</td><td class="value">{charts.number(r.value)}</td>'
    f'<td class="span">{interval(r)}</td><td class="n">{r.n}</td></tr>'
    for r in rows
  )
  how = ''.join(
    f'<p class="meta">{escape(text)}</p>'
    for text in dict.fromkeys(r.how for r in rows)
    if text
  )
  return (
    f'<article class="metric"><h3>{escape(name)}{unit}</h3><table><thead><tr>'
    '<th scope="col">group</th><th class="wide"></th><th scope="col">value</th>'
    '<th scope="col">95 %</th><th scope="col">n</th></tr></thead>'
    f'<tbody>{lines}</tbody></table>{how}</article>'
  )


def interval(result: Result) -> str:
  """Returns the interval as text, empty where there is none."""
  if result.low == result.high:
    return ''
  return f'{charts.number(result.low)} to {charts.number(result.high)}'


def provenance(contents: Contents) -> str:
  """Returns where the clips come from and how long they took."""
  clips = contents.clips
  pairs = [
    ('Checkpoint', counted([clip.checkpoint for clip in clips])),
    ('Version', counted([clip.version for clip in clips])),
    (
      'Clips',
      counted(
        [
          f'{c.frames} frames, {c.width} × {c.height}, {c.fps:g} per second'
          for c in clips
        ]
      ),
    ),
    ('Seconds per clip', timings(clips)),
    ('Folder', escape(str(contents.folder))),
  ]
  items = ''.join(f'<dt>{k}</dt><dd>{v}</dd>' for k, v in pairs if v)
  return f'<dl>{items}</dl>'


def counted(values: Sequence[str]) -> str:
  """Lists different values, with their counts if there are several."""
  found = dict.fromkeys(value for value in values if value)
  if len(found) == 1 and all(values):
    return f'<code>{escape(values[0])}</code>'
  return '<br>'.join(
    f'<code>{escape(value)}</code> ({plural(values.count(value), "clip")})'
    for value in found
  )


def timings(clips: Sequence[Clip]) -> str:
  """Returns the mean of each recorded time."""
  names = dict.fromkeys(name for clip in clips for name in clip.timings)
  parts = []
  for name in names:
    seconds = [c.timings[name] for c in clips if name in c.timings]
    parts.append(f'{escape(name)} {charts.number(statistics.fmean(seconds))}')
  return ', '.join(parts)
