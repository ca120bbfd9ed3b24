"""Generation on many hosts: each makes its part, what it reads is copied.

Hosts do not wait for each other: one that is lost costs its own part alone, and
the same command makes what is missing.
"""

import os
import re

from pod import cost, source
from pod.errors import PodError

# Verbs whose work is cut into parts by --shard=I/N.
_PARTS = ('evaluate generate', 'ode_pairs', 'generate', 'teacher')
# Verbs that one host does by itself.
_ALONE = ('evaluate folder',)
_SAMPLER = os.path.join(
  os.path.dirname(os.path.abspath(__file__)),
  *('..', '..', 'configs', 'aot', 'results', 'sampler-v5e-1x1.json'),
)
# What the worker script writes its number in the place of.
HOST = 'HOST'


def kind(arguments):
  """Returns the verb if it generates, else None."""
  for verb in (*_PARTS, *_ALONE):
    if arguments[: len(verb.split())] == verb.split():
      return verb
  return None


def value_of(arguments, flag):
  """Returns the value of --flag=value, '' if it is not there."""
  for word in arguments:
    if word.startswith(f'{flag}='):
      return word.partition('=')[2]
  return ''


def complete(arguments, options, slices, mount):
  """Returns the arguments with output, part, and paths as hosts see them.

  Raises:
    PodError: the verb is one host's, or a path is in another bucket.
  """
  verb = kind(arguments)
  one = verb in _ALONE or value_of(arguments, '--prompt')
  if one and slices.hosts > 1:
    what = 'prompt' if verb in _PARTS else 'folder'
    raise PodError(
      f'unitemp {verb} of one {what} runs on one host, and {slices.type} has '
      f'{slices.hosts}; take a type with one (v6e-8), or many prompts '
      '(--prompts).'
    )
  moved = {local: seen for local, _, seen in inputs(arguments, options, mount)}
  out = []
  for word in arguments:
    flag, equals, value = word.partition('=')
    value = moved.get(value, _in_bucket(value, options, mount))
    out.append(f'{flag}{equals}{value}')
  if not value_of(out, '--out'):
    out.append(f'--out={options.workdir or f"{mount}/{options.name}"}')
  if verb in _PARTS and slices.hosts > 1:
    if value_of(out, '--shard') or value_of(out, '--hosts'):
      raise PodError(
        'the launcher makes the parts; leave out --shard, --hosts.'
      )
    out.append(f'--shard={HOST}/{slices.hosts}')
  return out


def _in_bucket(value, options, mount):
  """A path of the bucket as hosts see it."""
  if not value.startswith('gs://'):
    return value
  bucket, _, rest = value[len('gs://') :].partition('/')
  if bucket != options.bucket:
    raise PodError(
      f'{value} is not in the bucket of the run, {options.bucket}; copy it '
      'there (gcloud storage cp --recursive), or run in that bucket.'
    )
  return f'{mount}/{rest}'


def inputs(arguments, options, mount):
  """Lists (local path, place in the bucket, path on a host) of what is read.

  Files that git tracks are in the sources that are copied anyway.
  """
  tracked = None
  found = []
  for word in arguments:
    flag, equals, value = word.partition('=')
    if not equals or flag == '--out' or not os.path.exists(value):
      continue
    if tracked is None:
      tracked = set(source.tracked_files('.', missing_ok=True))
    if any(
      t == value or t.startswith(f'{value.rstrip("/")}/') for t in tracked
    ):
      continue
    if not options.bucket:
      raise PodError(f'{word}: give --bucket=NAME, through which it is copied.')
    name = os.path.basename(os.path.abspath(value))
    # Beside the output, whose folder is to be empty at first.
    place = f'{options.name}-inputs/{flag.lstrip("-")}-{name}'
    found.append((value, f'gs://{options.bucket}/{place}', f'{mount}/{place}'))
  return found


def copy_inputs(shell, arguments, options, mount):
  """Copies what hosts read from the laptop to the bucket."""
  for local, place, _ in inputs(arguments, options, mount):
    command = ['gcloud', 'storage', 'cp', '--recursive']
    # Of a folder the content, so that a second time it is not put inside.
    if os.path.isdir(local):
      command = ['gcloud', 'storage', 'rsync', '--recursive']
    shell.do([*command, local, place], f'copying {local} to the bucket')


def progress(tails):
  """One line for all hosts from the last lines of each, '' if none says."""
  latest = {}
  for host, done, total in re.findall(
    r'^\[(.*?)\] .*?(\d+)/(\d+) clips', tails, re.MULTILINE
  ):
    latest[host] = int(done), int(total)
  if not latest:
    return ''
  done = sum(one for one, _ in latest.values())
  total = sum(all_ for _, all_ in latest.values())
  return f'all hosts: {done} of {total} clips ({len(latest)} hosts)'


def verify_arguments(arguments):
  """The command that checks the finished set, None if there is none."""
  if kind(arguments) != 'evaluate generate':
    return None
  return ['evaluate', 'verify', value_of(arguments, '--out')]


def seconds_per_clip(options, slices):
  """Seconds of one host for a clip, and where they are from.

  Without --seconds_per_clip they are those of the sampler in --aot_report, or
  of the 1.3B model as it was compiled for one chip, by the chips' speeds.

  Raises:
    PodError: the report cannot be read.
  """
  if options.seconds_per_clip:
    return options.seconds_per_clip, 'as given'
  path, chips = options.aot_report or _SAMPLER, slices.chips * slices.count
  if not options.aot_report and not os.path.exists(path):
    return 0.0, ''
  report = cost.read(path, 'memory report')
  steps = [s for s in report.get('steps', ()) if s.get('name') == 'sampler']
  if not steps:
    return 0.0, ''
  time = steps[0].get('time')
  if not time:
    return 0.0, ''
  # Other chips are taken to reach the same share of their peak arithmetic.
  seconds = time['ops'] + time['kernels'] + time['waits']
  peak = slices.generation.tflops * time['ideal'] / seconds
  each = steps[0]['tflops'] / steps[0]['rows'] / peak
  where = f'by the schedule in {os.path.basename(path)}, compiled, not run'
  return each * slices.hosts / chips, where


def time_lines(options, slices):
  """Expected hours of --clips, None without them, and them in words."""
  each, where = seconds_per_clip(options, slices) if options.clips else (0, '')
  if not each:
    return None, []
  hours = options.clips * each / slices.hosts / 3600
  return hours, [
    f'time: {options.clips} clips x {each:.3g} s on {slices.hosts} hosts = '
    f'{hours:.2f} h ({where})'
  ]
