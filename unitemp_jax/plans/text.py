"""A plan as text: JSON in and out, and the table that is printed."""

import json
import os
from typing import Any

import numpy as np

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.plans import (
  DATA_FIELDS,
  FLAGS,
  META_FIELDS,
  PER_LATENT,
  Plan,
  check,
)

FORMAT = 'unitemp plan 1'
HEADINGS = (
  'row',
  'kind',
  'positions',
  'latents',
  'anchors',
  'start',
  'prompt',
  'sees',
)
# Field of a plan -> its key in JSON; old files and hashes have these.
_KEYS = {name: name for name in DATA_FIELDS} | {'conditioning': 'given'}
_INT32 = np.iinfo(np.int32)


def to_json(plan: Plan) -> str:
  """Returns the plan as JSON text, one row of the plan per line.

  A plan without sinks is written without the fields of sinks.
  """
  left_out = () if plan.num_sinks else ('num_sinks', 'sinks')
  head: dict[str, Any] = {'format': FORMAT}
  head |= {name: int(getattr(plan, name)) for name in META_FIELDS}
  lines = [
    f'  {json.dumps(key)}: {json.dumps(value)},'
    for key, value in head.items()
    if key not in left_out
  ]
  fields = {
    key: getattr(plan, name).tolist()
    for name, key in _KEYS.items()
    if name not in left_out
  }
  rows = [
    '    ' + json.dumps({name: own[row] for name, own in fields.items()})
    for row in range(plan.num_rows)
  ]
  body = ',\n'.join(rows)
  return '\n'.join(['{', *lines, '  "rows": [', body, '  ]', '}', ''])


def from_json(text: str) -> Plan:
  """Returns the plan that JSON text describes, with every law checked."""
  try:
    tree = files.parse_json(text)
  except (ValueError, RecursionError) as error:
    raise UserError(f'plan: not valid JSON ({error})') from error
  if not isinstance(tree, dict) or tree.get('format') != FORMAT:
    raise UserError(f'plan: expected a JSON object with "format": "{FORMAT}"')
  tree.setdefault('num_sinks', 0)
  _check_keys(tree, ('format', *META_FIELDS, 'rows'), 'plan')
  for name in META_FIELDS:
    if not _is_int32(tree[name]):
      raise UserError(f'plan: {name} must be a whole number of 32 bits')
  rows = tree['rows']
  if not isinstance(rows, list) or not rows:
    raise UserError('plan: rows must be a list with at least one row')
  sizes = dict.fromkeys(PER_LATENT, tree['block']) | {
    'sinks': tree['num_sinks']
  }
  for index, row in enumerate(rows):
    if isinstance(row, dict) and tree['num_sinks'] == 0:
      row.setdefault('sinks', [])
    _check_fields(row, sizes, f'plan row {index}')
  arrays = {
    name: np.array(
      [row[key] for row in rows], bool if name in FLAGS else np.int32
    )
    for name, key in _KEYS.items()
  }
  arrays['sinks'] = arrays['sinks'].reshape(len(rows), sizes['sinks'])
  plan = Plan(**arrays, **{name: tree[name] for name in META_FIELDS})
  check(plan)
  return plan


def load(path: str | os.PathLike) -> Plan:
  """Reads a plan from a JSON file and checks every law."""
  text = files.read_text(path)
  try:
    return from_json(text)
  except UserError as error:
    raise UserError(f'{path}: {error}') from error


def table(plan: Plan) -> str:
  """Returns the plan as an aligned table with one line per row."""
  context = plan.context()
  lines = [HEADINGS]
  lines += [_cells(plan, row, context[row]) for row in range(plan.num_rows)]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  text = ['  '.join(map(str.ljust, line, widths)).rstrip() for line in lines]
  positions, _ = plan.timeline()
  text.append(
    f'timeline: positions {_runs(positions)}, {len(positions)} latents, '
    f'{plan.num_frames} frames{" in a loop" if plan.loops else ""}; buffer: '
    f'{plan.num_latents} latents; cache: {plan.num_slots} slots, at most '
    f'{int(plan.visible.max())} seen'
    + (f', {plan.num_sinks} of them sinks' if plan.num_sinks else '')
  )
  return '\n'.join(text)


def _cells(plan, row, context):
  entries = plan.entries(row)
  if not entries:
    return (str(row), 'inert', *[''] * (len(HEADINGS) - 2))
  first, start = int(plan.target[row, 0]), int(plan.start[row])
  source = 'noise' if start == 0 else f'anchors at level {start}'
  kind = 'given' if plan.conditioning[row] else 'generate'
  return (
    str(row),
    'kept' if plan.idle(row) else kind,
    _runs([position for position, _ in entries]),
    _runs([entry for _, entry in entries], ','),
    _runs(range(first - plan.num_anchors, first)) if plan.anchor[row] else '-',
    '-' if plan.conditioning[row] else source,
    str(int(plan.prompt[row])),
    _seen(context, plan.num_sinks),
  )


def _seen(positions, num_sinks):
  """Returns the number of slots and the positions in them, runs shortened."""
  if not positions:
    return '-'
  slots = 'slot' if len(positions) == 1 else 'slots'
  seen, sinks = positions[num_sinks:], positions[:num_sinks]
  parts = [_runs(sorted(set(seen)))] if seen else []
  parts += [f'sinks at {_runs(sorted(set(sinks)))}'] if sinks else []
  return f'{len(positions)} {slots}: ' + ', '.join(parts)


def _runs(numbers, between: str = ' ') -> str:
  """Numbers as text, those that follow each other as `first..last`."""
  runs: list[list[int]] = []
  for number in map(int, numbers):
    if runs and number == runs[-1][-1] + 1:
      runs[-1].append(number)
    else:
      runs.append([number])
  return between.join(
    str(run[0]) + (f'..{run[-1]}' if len(run) > 1 else '') for run in runs
  )


def _is_int32(value):
  return (
    isinstance(value, int)
    and not isinstance(value, bool)
    and _INT32.min <= value <= _INT32.max
  )


def _check_keys(tree, names, where):
  missing = [name for name in names if name not in tree]
  unknown = [name for name in tree if name not in names]
  if missing or unknown:
    raise UserError(
      f'{where}: '
      + '; '.join(
        [f'{name} is missing' for name in missing]
        + [f'{name} is not a field of a plan' for name in unknown]
      )
    )


def _check_fields(row, sizes, where):
  if not isinstance(row, dict):
    raise UserError(f'{where}: must be a JSON object')
  _check_keys(row, _KEYS.values(), where)
  for name, key in _KEYS.items():
    value = row[key]
    if name in FLAGS:
      good, wanted = isinstance(value, bool), 'true or false'
    elif name in sizes:
      good = isinstance(value, list) and len(value) == sizes[name]
      good = good and all(_is_int32(item) for item in value)
      wanted = f'a list of {sizes[name]} whole numbers of 32 bits'
    else:
      good, wanted = _is_int32(value), 'a whole number of 32 bits'
    if not good:
      raise UserError(f'{where}: {key} must be {wanted}')
