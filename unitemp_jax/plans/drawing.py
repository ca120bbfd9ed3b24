"""A plan as a picture: an SVG timeline, for a light or a dark page.

Time runs to the right, one column per temporal position; generation runs down,
one line per row of the plan. Pure string building: no dependency, and no ids,
so that several drawings can stand in one page.
"""

import colorsys
from xml.sax.saxutils import escape

from unitemp_jax.plans import Plan

LEFT, TOP, RIGHT = 118, 46, 310
LINE, BOX = 34, 26
# Colours for a light page; the style sheet changes them on a dark one.
INK, FAINT, SEEN, TEAL = '#24292f', '#8c959f', '#d8dee4', '#0f7b7b'
SINK = '#e3b341'
STYLE = (
  '@media (prefers-color-scheme: dark) {'
  '.plan-ink{fill:#e6edf3}.plan-seen{fill:#3d444d}'
  '.plan-sink{fill:#bb8009}'
  '.plan-given{stroke:#4fd1c5}.plan-teal{fill:#4fd1c5}}'
)


class _Grid:
  """Places positions and rows on the page, and finds the colours of rows."""

  def __init__(self, plan: Plan, context: list[list[int]]):
    spans = [position for seen in context for position in seen]
    for row in range(plan.num_rows):
      first = int(plan.target[row, 0])
      if plan.count[row]:
        spans += [first, first + int(plan.count[row]) - 1]
      if plan.anchor[row]:
        spans.append(first - plan.num_anchors)
    self.begin, self.end = min(spans), max(spans)
    self.cell = max(9, min(40, 960 // (self.end - self.begin + 1)))
    # A column label of n digits needs about 8 n + 6 points.
    widest = max(len(str(4 * self.begin)), len(str(4 * self.end)))
    self.every = -(-(8 * widest + 6) // self.cell)
    generated = [
      row
      for row in range(plan.num_rows)
      if plan.count[row] > 0 and not plan.given[row]
    ]
    self.colours = {
      row: _colour(k / max(len(generated) - 1, 1))
      for k, row in enumerate(generated)
    }

  def x(self, position: int) -> float:
    return LEFT + (position - self.begin) * self.cell

  @property
  def right(self) -> float:
    return self.x(self.end + 1)


def draw(plan: Plan) -> str:
  """Returns the SVG text of a timeline picture of a lawful plan.

  Boxes are the latents that a row generates, coloured from the first row (blue)
  to the last (orange); hatched are its anchors; outlined is what is given; grey
  is the context that the row sees, so that a window is seen to slide; yellow
  are sinks, where the row sees them. The last line is the finished video.
  """
  context = plan.context()
  grid = _Grid(plan, context)
  notes = _Notes(plan)
  parts = [_axis(grid)]
  for row in range(plan.num_rows):
    parts.append(_row(plan, grid, row, context[row], notes.of(row)))
  parts.append(_video(plan, grid))
  width = max(grid.right + RIGHT, LEFT + 470)
  height = TOP + LINE * (plan.num_rows + 1) + 84
  parts.append(_legend(height - 22, plan.num_sinks > 0))
  return '\n'.join(
    [
      f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" '
      f'height="{height:g}" viewBox="0 0 {width:g} {height:g}" role="img" '
      'font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">',
      '<title>Plan: which latents are generated when, and from what</title>',
      f'<style>{STYLE}</style>',
      *parts,
      '</svg>',
      '',
    ]
  )


def _axis(grid):
  parts = [_text(LEFT - 12, 24, 'position', anchor='end')]
  for position in range(grid.begin, grid.end + 1):
    if (position - grid.begin) % grid.every == 0:
      middle = grid.x(position) + grid.cell / 2
      parts.append(_text(middle, 24, str(position), anchor='middle'))
  parts.append(
    f'<line x1="{LEFT}" y1="34" x2="{grid.right}" y2="34" stroke="{FAINT}"/>'
  )
  return '\n'.join(parts)


def _row(plan, grid, row, seen, note):
  top = TOP + LINE * row
  base = top + BOX / 2 + 4
  first, count = int(plan.target[row, 0]), int(plan.count[row])
  kind = 'given' if plan.given[row] else 'generate'
  parts = [
    _text(LEFT - 12, base, f'{row}  {kind if count else "inert"}', anchor='end')
  ]
  sinks, window = seen[: plan.num_sinks], seen[plan.num_sinks :]
  # A low band: context lies behind the boxes and must not look like one.
  for positions, fill, name in (
    (window, SEEN, 'plan-seen'),
    (sinks, SINK, 'plan-sink'),
  ):
    for position in sorted(set(positions)):
      style = f'fill="{fill}"'
      parts.append(_box(grid, position, top + 8, BOX - 16, style, name))
  if plan.anchor[row]:
    for position in range(first - plan.num_anchors, first):
      parts.append(_hatched(grid, position, top, grid.colours[row]))
  for position, entry in plan.entries(row):
    if plan.given[row]:
      style = f'fill="none" stroke="{TEAL}" stroke-width="2"'
      parts.append(_box(grid, position, top, BOX, style, 'plan-given'))
      label, ink = str(entry), 'plan-teal'
    else:
      style = f'fill="{grid.colours[row]}"'
      parts.append(_box(grid, position, top, BOX, style))
      label, ink = str(position), 'plan-box'
    if grid.cell >= 8 * len(label) + 6:
      middle = grid.x(position) + grid.cell / 2
      parts.append(_text(middle, base, label, anchor='middle', ink=ink))
  parts.append(_text(grid.right + 14, base, note))
  return f'<g class="plan-row">{"".join(parts)}</g>'


class _Notes:
  """What is said beside each row; rows must be asked for in order."""

  def __init__(self, plan: Plan):
    self.plan = plan
    self.homes = plan.homes()
    self.read: set[int] = set()  # entries that exist or were read
    self.prompts = len(set(plan.prompt[plan.count > 0].tolist())) > 1

  def of(self, row: int) -> str:
    plan = self.plan
    if plan.count[row] == 0:
      return 'padding: nothing happens'
    note = self._given(row) if plan.given[row] else self._made(row)
    self.read.update(entry for _, entry in plan.entries(row))
    if self.prompts and not plan.idle(row):
      note += f', prompt {int(plan.prompt[row])}'
    return note

  def _given(self, row):
    entries = [entry for _, entry in self.plan.entries(row)]
    names = ', '.join(map(str, entries))
    if self.plan.idle(row):
      return f'keeps latent {names}'
    if self.homes[entries[0]] != int(self.plan.target[row, 0]):
      return f'copy of latent {names}'
    again = set(entries) <= self.read
    return f'{"loads again" if again else "given"} latent {names}'

  def _made(self, row):
    plan = self.plan
    visible, known = int(plan.visible[row]), len(self.read)
    notes = [f'sees {visible} slot{"" if visible == 1 else "s"}']
    if visible < known:
      notes = [f'sees {visible} of {known} latents']
    if plan.start[row] > 0:
      notes.append(f'starts from anchors, level {int(plan.start[row])}')
    elif plan.anchor[row]:
      notes.append(f'{plan.num_anchors} anchors')
    return ', '.join(notes)


def _video(plan, grid):
  top = TOP + LINE * plan.num_rows + 10
  base = top + BOX / 2 + 4
  owner = {
    position: row
    for row in range(plan.num_rows)
    if not plan.given[row]
    for position, _ in plan.entries(row)
  }
  parts = [
    f'<line x1="{LEFT}" y1="{top - 7}" x2="{grid.right}" y2="{top - 7}" '
    f'stroke="{FAINT}"/>',
    _text(LEFT - 12, base, 'video', anchor='end'),
    _text(LEFT - 12, base + LINE - 6, 'frames to', anchor='end'),
  ]
  for position in plan.timeline()[0].tolist():
    middle = grid.x(position) + grid.cell / 2
    if position in owner:
      row = owner[position]
      parts.append(
        _box(grid, position, top, BOX, f'fill="{grid.colours[row]}"')
      )
      if grid.cell >= 8 * len(str(row)) + 6:
        parts.append(
          _text(middle, base, str(row), anchor='middle', ink='plan-box')
        )
    else:
      style = f'fill="none" stroke="{TEAL}" stroke-width="2"'
      parts.append(_box(grid, position, top, BOX, style, 'plan-given'))
    if (position - grid.begin) % grid.every == 0:
      label = str(4 * position)
      parts.append(_text(middle, base + LINE - 6, label, anchor='middle'))
  return f'<g class="plan-video">{"".join(parts)}</g>'


def _legend(base, sinks):
  first = _colour(0.0)
  items = (
    (f'fill="{first}"', '', 'generated (video: by which row)', 210),
    ('', 'hatch', 'anchors', 72),
    (
      f'fill="none" stroke="{TEAL}" stroke-width="2"',
      'plan-given',
      'given',
      56,
    ),
    (f'fill="{SEEN}"', 'plan-seen', 'seen', 44),
    (f'fill="{SINK}"', 'plan-sink', 'sink, where it is seen', 0),
  )
  parts, x = [], 12.0
  for style, name, label, width in items if sinks else items[:-1]:
    if name == 'hatch':
      parts.append(_hatch(x, base - 11, 16, 14, first))
    else:
      parts.append(_rectangle(x, base - 11, 16, 14, style, name))
    parts.append(_text(x + 22, base, label))
    x += 36 + width
  return f'<g class="plan-legend">{"".join(parts)}</g>'


def _text(x, y, label, anchor='start', ink='plan-ink'):
  fill = {'plan-ink': INK, 'plan-teal': TEAL, 'plan-box': '#ffffff'}[ink]
  return (
    f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{fill}" '
    f'class="{ink}">{escape(label)}</text>'
  )


def _box(grid, position, top, height, style, name=''):
  x, width = grid.x(position) + 1, grid.cell - 2
  return _rectangle(x, top, width, height, style, name)


def _rectangle(x, y, width, height, style, name=''):
  return (
    f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2" '
    f'class="{name}" {style}/>'
  )


def _hatched(grid, position, top, colour):
  return _hatch(grid.x(position) + 1, top, grid.cell - 2, BOX, colour)


def _hatch(x, y, width, height, colour):
  # Lines dx + dy = c within the box: a pattern would need an id.
  lines = []
  for c in range(6, int(width + height), 6):
    a, b = min(c, width), max(c - height, 0)
    lines.append(f'M{x + a:g} {y + c - a:g}L{x + b:g} {y + c - b:g}')
  return (
    f'<path class="plan-anchor" d="M{x:g} {y:g}h{width:g}v{height:g}h{-width:g}'
    f'z{"".join(lines)}" fill="none" stroke="{colour}"/>'
  )


def _colour(share):
  # From blue to orange by way of violet, dark enough for white letters.
  hue = (0.60 + 0.45 * share) % 1
  red, green, blue = colorsys.hls_to_rgb(hue, 0.50, 0.55)
  return f'#{int(255 * red):02x}{int(255 * green):02x}{int(255 * blue):02x}'
