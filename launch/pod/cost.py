"""What a run costs and whether it fits, from files that the user provides."""

import json

from pod.errors import PodError

_HEADROOM = 0.2  # Of a chip's memory that should stay free.


def read(path, what):
  """Reads JSON; PodError if it cannot."""
  try:
    with open(path, encoding='utf-8') as file:
      return json.load(file)
  except (OSError, ValueError) as error:
    raise PodError(
      f'the {what} {path} cannot be read ({error}); check the path and that '
      'it is JSON.'
    ) from error


def cost_lines(path, slices, capacity, hours):
  """Returns chips x hours x price in words.

  Args:
    path: of the price file.
    slices: see `hardware.Slices`.
    capacity: 'spot', 'reserved' or 'on_demand'.
    hours: how long the run is expected to take.

  Raises:
    PodError: the file has no such price.
  """
  prices = read(path, 'price file')
  name = slices.generation.name
  try:
    price = float(prices['per_chip_hour'][name][capacity])
    currency, date = prices['currency'], prices['date']
  except (KeyError, TypeError, ValueError) as error:
    raise PodError(
      f'{path} has no price per chip-hour for {name} {capacity}; edit it.'
    ) from error
  chips = slices.count * slices.chips
  edited = f'edited {date}'
  if date == 'never':
    edited = 'example prices, not edited yet'
  return [
    f'cost: {chips} chips x {hours:g} h x {price:g} {currency} per chip-hour = '
    f'{chips * hours * price:,.2f} {currency} ({capacity})',
    f'  the price is what {path} says ({edited}): check it, and add '
    'storage and traffic.',
  ]


def memory_lines(path, slices):
  """Returns (verdict in words, does it fit) of a report of `unitemp aot`.

  The report is JSON: `topology` ('v5e:4x4', slices `count` in `slices`),
  `chip_gib` and `steps`, a list of `{name, peak_gib}`.

  Raises:
    PodError: it cannot be read, or is of another topology.
  """
  if not path:
    return ['memory: unknown; give --aot_report=FILE of `unitemp aot`.'], True
  report = read(path, 'memory report')
  try:
    topology, number = report['topology'], int(report.get('slices', 1))
    chip = float(report['chip_gib'])
    peaks = [(s['name'], float(s['peak_gib'])) for s in report['steps']]
  except (KeyError, TypeError, ValueError) as error:
    raise PodError(
      f'{path} is no memory report ({error!r}); it needs topology, chip_gib '
      'and steps with name and peak_gib.'
    ) from error
  name, _, sizes = topology.partition(':')
  chips = 1
  for size in sizes.split('x'):
    chips *= int(size) if size.isdigit() else 0
  if (name, chips, number) != (
    slices.generation.name,
    slices.chips,
    slices.count,
  ):
    raise PodError(
      f'{path} is of {number} x {topology}, but {slices.describe()} is asked '
      'for; compile the config for that.'
    )
  if report.get('mode') == 'fast':
    return [
      f'memory: unknown; {path} is of the least effort of the compiler, which '
      'decides nothing: compile without --fast.'
    ], True
  lines, fits = [f'memory: compiled for {number} x {topology}, {path}'], True
  for step, peak in peaks:
    word = 'fits'
    if peak > chip:
      word, fits = 'DOES NOT FIT', False
    elif peak > (1 - _HEADROOM) * chip:
      word = f'fits with less than {100 * _HEADROOM:.0f} % to spare'
    lines.append(f'  {step}: {peak:.2f} of {chip:g} GiB per chip, {word}')
  return lines, fits
