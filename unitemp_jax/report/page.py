"""The report as one page of HTML; every text from outside is escaped."""

import statistics
from collections.abc import Sequence
from html import escape

from unitemp_jax.report import charts
from unitemp_jax.report.read import Clip, Contents
from unitemp_jax.report.rows import gallery, row
from unitemp_jax.report.shell import label, page, plural
from unitemp_jax.report.tables import measurements


def render(contents: Contents) -> str:
  """Returns the whole page, styles and script included."""
  sections = [
    ('videos', 'Videos', videos(contents)),
    ('orders', 'Temporal orders', orders(contents)),
    ('measurements', 'Measurements', measurements(contents.results)),
    ('provenance', 'Provenance', provenance(contents)),
  ]
  return page(
    contents.folder.resolve().name,
    'unitemp report',
    lead(contents),
    sections,
    contents.problems,
  )


def lead(contents: Contents) -> str:
  """Returns the sentence below the title: how much there is to see."""
  prompts = len({clip.prompt for clip in contents.clips})
  return (
    f'{plural(len(contents.clips), "clip")} of {plural(prompts, "prompt")} '
    f'in {plural(len(contents.orders), "temporal order")}.'
  )


def videos(contents: Contents) -> str:
  """Returns one row per prompt and sample, the orders side by side."""
  rows: dict[tuple[str, str], list[Clip]] = {}
  for clip in sorted(contents.clips, key=lambda c: c.name):
    # Clips of a set have seeds of their own in every order.
    which = f'seed {clip.seed}'
    if clip.sample is not None:
      which = f'sample {clip.sample}'
    rows.setdefault((clip.prompt, which), []).append(clip)
  place = {order: i for i, order in enumerate(contents.orders)}
  made = [
    row(prompt, which, sorted(clips, key=lambda c: (place[c.order], c.name)))
    for (prompt, which), clips in rows.items()
  ]
  return gallery(made, contents.orders)


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
    ('Made', escape(contents.effort)),
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
