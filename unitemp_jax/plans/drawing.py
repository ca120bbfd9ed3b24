"""A plan as a picture: an SVG timeline, for a light or a dark page.

Time runs to the right, one column per temporal position; generation runs down,
one line per row of the plan. Pure string building: no dependency, and no ids,
so that several drawings can stand in one page.
"""

import colorsys
from xml.sax.saxutils import escape

from unitemp_jax import timeline
from unitemp_jax.plans import Plan

LEFT, TOP, RIGHT = 118, 46, 310
LINE, BOX = 34, 26
# Colours for a light page; the style sheet changes them on a dark one.
INK, FAINT, SEEN, TEAL = '#24292f', '#8c959f', '#d8dee4', '#0f7b7b'
SINK = '#e3b341'
GIVEN = f'fill="none" stroke="{TEAL}" stroke-width="2"'
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
    generated = []
    for row in range(plan.num_rows):
      spans += [position for position, _ in plan.entries(row)]
      if plan.anchor[row]:
        spans.append(int(plan.target[row, 0]) - plan.num_anchors)
      if plan.count[row] and not plan.conditioning[row]:
        generated.append(row)
    self.begin, self.end = min(spans), max(spans)
    self.cell = max(9, min(40, 960 // (self.end - self.begin + 1)))
    # A column label of n digits needs about 8 n + 6 points.
    widest = max(
      len(str(timeline.last_frame(end))) for end in (self.begin, self.end)
    )
    self.every = -(-(8 * widest + 6) // self.cell)
    last = max(len(generated) - 1, 1)
    self.colours = {row: _colour(k / last) for k, row in enumerate(generated)}

  def x(self, position: int) -> float:
    return LEFT + (position - self.begin) * self.cell

  @property
  def right(self) -> float:
    return self.x(self.end + 1)

  def latent(self, position, top, label, colour: str | None) -> str:
    """The box of a latent, made (with its colour) or given, and its label."""
    style, name, ink = f'fill="{colour}"', '', 'plan-box'
    if colour is None:
      style, name = GIVEN, 'plan-given'
      ink = 'plan-teal'
    box = self.box(position, top, BOX, style, name)
    if self.cell < 8 * len(label) + 6 or not label:
      return box
    return box + self.label(position, top + BOX / 2 + 4, label, ink)

  def box(self, position, top, height, style, name='') -> str:
    x = self.x(position) + 1
    return _rectangle(x, top, self.cell - 2, height, style, name)

  def label(self, position, base, label, ink='plan-ink') -> str:
    middle = self.x(position) + self.cell / 2
    return _text(middle, base, label, anchor='middle', ink=ink)

  def labelled(self) -> list[int]:
    """Positions that have a label below or above them."""
    return list(range(self.begin, self.end + 1, self.every))


def draw(plan: Plan) -> str:
  """Returns the SVG text of a timeline picture of a lawful plan.

  Boxes are the latents that a row generates, coloured from the first row (blue)
  to the last (orange); hatched are its anchors; outlined is what is given; grey
  is the context that the row sees, so that a window is seen to slide; yellow
  are sinks, where the row sees them. The last line is the finished video.
  """
  context = plan.context()
  grid, notes = _Grid(plan, context), _Notes(plan)
  rows = [
    _row(plan, grid, row, context[row], notes.of(row))
    for row in range(plan.num_rows)
  ]
  width = max(grid.right + RIGHT, LEFT + 470)
  height = TOP + LINE * (plan.num_rows + 1) + 84
  return '\n'.join(
    [
      f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" '
      f'height="{height:g}" viewBox="0 0 {width:g} {height:g}" role="img" '
      'font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">',
      '<title>Plan: which latents are generated when, and from what</title>',
      f'<style>{STYLE}</style>',
      _axis(grid),
      *rows,
      _video(plan, grid),
      _legend(height - 22, plan.num_sinks > 0),
      '</svg>',
      '',
    ]
  )


def _axis(grid):
  return '\n'.join(
    [
      _text(LEFT - 12, 24, 'position', anchor='end'),
      *(
        grid.label(position, 24, str(position)) for position in grid.labelled()
      ),
      f'<line x1="{LEFT}" y1="34" x2="{grid.right}" y2="34" stroke="{FAINT}"/>',
    ]
  )


def _row(plan, grid, row, seen, note):
  top = TOP + LINE * row
  base = top + BOX / 2 + 4
  kind = 'given' if plan.conditioning[row] else 'generate'
  kind = kind if plan.count[row] else 'inert'
  parts = [_text(LEFT - 12, base, f'{row}  {kind}', anchor='end')]
  sinks, window = seen[: plan.num_sinks], seen[plan.num_sinks :]
  # A low band: context lies behind the boxes and must not look like one.
  for positions, fill, name in (
    (window, SEEN, 'plan-seen'),
    (sinks, SINK, 'plan-sink'),
  ):
    for position in sorted(set(positions)):
      style = f'fill="{fill}"'
      parts.append(grid.box(position, top + 8, BOX - 16, style, name))
  colour = grid.colours.get(row)
  if plan.anchor[row]:
    first = int(plan.target[row, 0])
    for position in range(first - plan.num_anchors, first):
      x = grid.x(position) + 1
      parts.append(_hatch(x, top, grid.cell - 2, BOX, colour))
  for position, entry in plan.entries(row):
    label = str(entry if plan.conditioning[row] else position)
    parts.append(grid.latent(position, top, label, colour))
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
    note = self._given(row) if plan.conditioning[row] else self._made(row)
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
    position: row for row in grid.colours for position, _ in plan.entries(row)
  }
  parts = [
    f'<line x1="{LEFT}" y1="{top - 7}" x2="{grid.right}" y2="{top - 7}" '
    f'stroke="{FAINT}"/>',
    _text(LEFT - 12, base, 'video', anchor='end'),
    _text(LEFT - 12, base + LINE - 6, 'frames to', anchor='end'),
  ]
  labelled = set(grid.labelled())
  for position in plan.timeline()[0].tolist():
    row = owner.get(position)
    label = '' if row is None else str(row)
    colour = None if row is None else grid.colours[row]
    parts.append(grid.latent(position, top, label, colour))
    if position in labelled:
      frame = str(timeline.last_frame(position))
      parts.append(grid.label(position, base + LINE - 6, frame))
  return f'<g class="plan-video">{"".join(parts)}</g>'


def _legend(base, sinks):
  first = _colour(0.0)
  items = (
    (f'fill="{first}"', '', 'generated (video: by which row)', 210),
    ('', 'hatch', 'anchors', 72),
    (GIVEN, 'plan-given', 'given', 56),
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


def _rectangle(x, y, width, height, style, name=''):
  return (
    f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2" '
    f'class="{name}" {style}/>'
  )


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
