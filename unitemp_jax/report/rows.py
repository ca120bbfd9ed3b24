"""Rows of videos side by side; thousands of them stay light.

A row is laid out when it comes near the view, a video loads when it does, and
how a clip was made stays text until somebody asks for it.
"""

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from unitemp_jax.report import charts
from unitemp_jax.report.read import Clip
from unitemp_jax.report.shell import label, plural

_FEW = 8  # rows that need no search


def gallery(rows: Sequence[str], groups: Sequence[str]) -> str:
  """Returns all rows below a field that searches them.

  Args:
    rows: as `row` returns them.
    groups: names of what stands side by side; each can be hidden.
  """
  hint = (
    '<p class="hint">Point at a video or tap it to play it; '
    'a row plays in step.</p>'
  )
  return f'{hint}{finder(len(rows), groups)}{"".join(rows)}'


def finder(count: int, groups: Sequence[str]) -> str:
  """Returns the search field and one switch per group; '' for a few rows."""
  if count <= _FEW:
    return ''
  switches = ''.join(
    f'<button type="button" class="switch" aria-pressed="true" '
    f'data-group="{escape(group)}">{label(group)}</button>'
    for group in groups
    if len(groups) > 1
  )
  return (
    '<div class="finder" role="search"><input type="search" '
    'placeholder="Search prompts" aria-label="Search prompts">'
    f'<output>{plural(count, "row")}</output>{switches}</div>'
  )


def row(heading: str, meta: str, clips: Sequence[Clip]) -> str:
  """Returns clips side by side, and how they came about on demand.

  Args:
    heading: plain text, usually the prompt.
    meta: plain text beside it, such as the seed.
    clips: from left to right.
  """
  top = max((max(c.frame_difference, default=0.0) for c in clips), default=0.0)
  figures = ''.join(map(figure, clips))
  made = ''.join(making(clip, top) for clip in clips)
  return (
    f'<article class="row"><header><h3>{escape(heading)}</h3>'
    f'<p class="meta">{escape(meta)}</p>'
    '<button type="button" class="play">Play row</button></header>'
    f'<div class="clips">{figures}</div>'
    '<details><summary>How they were generated</summary>'
    # Not parsed until it is opened; all text in it is escaped already.
    f'<script type="text/html">{made}</script>'
    '<div class="made"></div></details></article>'
  )


def figure(clip: Clip) -> str:
  """Returns one video with its order below."""
  note = f' <span>{escape(clip.note)}</span>' if clip.note else ''
  return (
    f'<figure data-group="{escape(clip.order)}">'
    f'{player(clip, clip.video, clip.poster)}'
    f'<figcaption>{label(clip.order)}{note}</figcaption></figure>'
  )


def player(clip: Clip, path: str, poster: str) -> str:
  """Returns a link to a video; the script plays it in place.

  A video element costs a browser as much as 150 others, so there is none until
  it is near the view.
  """
  small = ' small' if clip.width <= 128 else ''
  data = f' data-poster="{escape(quote(poster))}"' if poster else ''
  spoken = f'{label(clip.order)}: {escape(clip.prompt)}'
  return (
    f'<a class="player{small}" href="{escape(quote(path))}"{data} '
    f'aria-label="{spoken}" style="aspect-ratio:{clip.width}/{clip.height}">'
    '</a>'
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
