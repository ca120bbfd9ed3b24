"""A verdict in words, and what to change where it does not fit."""

from unitemp_jax.aot.memory_report import HEADROOM, StepVerdict, Verdict


def lines(verdict: Verdict) -> list[str]:
  """Returns the whole report, line by line."""
  slices = f'{verdict.slices} x ' if verdict.slices > 1 else ''
  depth = '' if verdict.layers is None else f', {verdict.layers} layers only'
  versions = ', '.join(f'{k} {v}' for k, v in verdict.versions.items())
  found = [
    f'{verdict.config} for {slices}{verdict.topology}: {verdict.chips} chips, '
    f'{verdict.chip_gib:g} GiB per device{depth}',
    f'compiled, not run; {verdict.mode} effort, {versions}',
  ]
  for step in verdict.steps:
    found += _step(verdict, step)
  if verdict.layers is not None:
    found.append('A reduced depth says nothing about the memory of the whole.')
  rounds = [step for step in verdict.steps if step.share]
  if len(rounds) > 1 and all(step.compiled for step in rounds):
    number = sum(step.share for step in rounds)
    total = sum(step.share * step.estimate_seconds for step in rounds)
    found.append(
      f'estimate: {total / number:.2f} s per step on average over {number} '
      f'steps, at {100 * verdict.utilisation:.0f} % utilisation'
    )
  return found


def _step(verdict: Verdict, step: StepVerdict) -> list[str]:
  mesh = ' '.join(f'{axis} {n}' for axis, n in step.mesh.items() if n > 1)
  arguments = sum(step.arguments.values())
  amount = f'{step.peak_gib:.2f}' if step.peak_gib else 'more than there is'
  found = [
    f'{step.name}: {amount} of {verdict.chip_gib:g} GiB per device, '
    f'{verdict.word(step)}',
    f'  mesh {mesh or "of one device"}, batch {step.rows}; arguments '
    f'{arguments:.2f} GiB, scratch {step.scratch_gib:.2f} GiB; compiled in '
    f'{step.compile_seconds:.0f} s',
    '  memory: '
    + ', '.join(
      f'{role} {size:.2f}' for role, size in step.contributors() if size >= 5e-3
    ),
    f'  {step.tflops:,.1f} TFLOP (analytic), {step.attention_tflops:,.1f} of '
    'them attention',
  ]
  for one in step.traffic:
    between = f', {one.between / 1e9:.3f} GB between slices'
    found.append(
      f'  {one.kind}: {one.count:,.0f} x ({one.sites} in the program), '
      f'{one.bytes / 1e9:.3f} GB sent per device'
      + (between if one.between else '')
    )
  if step.compiled:
    found.append(
      f'  estimate: {step.estimate_seconds:.2f} s, bound by {step.bound}, at '
      f'{100 * verdict.utilisation:.0f} % utilisation and full bandwidth'
    )
  if verdict.word(step) != 'fits':
    found += [f'  largest: {one}' for one in step.largest]
    found += [f'  to change: {one}' for one in advice(step)]
  return found


# Role, by its first word -> what makes it smaller.
_STATE = 'more devices along fsdp (config.mesh.fsdp)'
_CHANGES = {
  'parameters': _STATE,
  'optimizer': _STATE,
  'EMA': _STATE,
  'frozen': _STATE + ', or a smaller teacher',
  'batch': 'a smaller config.batch_size',
  'student': 'a chip with more memory, or weights split over several',
  'vae': 'a chip with more memory',
  'cache': 'a shorter window of latents',
  'memory': 'a smaller picture',
}


def advice(step: StepVerdict) -> list[str]:
  """Returns what to change, for the largest contributors first."""
  found = []
  for role, size in step.contributors()[:3]:
    if size < 5e-3:
      continue
    change = _CHANGES.get(role.split(' ')[0])
    if role == 'activations':
      change = 'a smaller picture, fewer latents at a time'
      if step.share:  # A step of training.
        change = (
          'more devices along context (config.mesh.context), '
          'config.model.dit.remat=full, a larger config.accumulate or a '
          'smaller config.batch_size'
        )
    if change:
      found.append(f'{role} ({size:.2f} GiB): {change}')
  return found


def failure(verdict: Verdict) -> str:
  """One sentence on what does not fit."""
  steps = [s for s in verdict.steps if not verdict.step_fits(s)]
  worst = max(steps, key=lambda step: step.peak_gib)
  parts = ', '.join(
    f'{role} {size:.1f} GiB' for role, size in worst.contributors()[:3]
  )
  return (
    f'{worst.name} does not fit {verdict.topology}: it needs '
    f'{worst.peak_gib:.1f} of {verdict.chip_gib:g} GiB per device (largest: '
    f'{parts}); to change: {"; ".join(advice(worst)[:1])}.'
  )


def headroom(verdict: Verdict) -> str:
  """One sentence on how much is left."""
  least = min(1 - step.peak_gib / verdict.chip_gib for step in verdict.steps)
  wanted = f'{100 * HEADROOM:.0f} %'
  kept = 'kept' if least >= HEADROOM else 'NOT kept'
  return f'{100 * least:.0f} % of the memory is left; {wanted} {kept}'
