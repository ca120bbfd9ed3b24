"""Generation on many hosts: each makes its part, what it reads is copied.

Hosts do not wait for each other: one that is lost costs its own part alone, and
the same command makes what is missing.
"""

import os
import re

from pod import source
from pod.errors import PodError

# Verbs whose work is cut into parts by --shard=I/N.
_PARTS = ('evaluate generate', 'ode_pairs')
# Verbs that one host does by itself.
_ALONE = ('generate', 'teacher', 'evaluate folder')
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
  if verb in _ALONE and slices.hosts > 1:
    raise PodError(
      f'unitemp {verb} runs on one host, and {slices.type} has {slices.hosts}; '
      'take a type with one (v6e-8), or make many clips by evaluate generate.'
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
    place = f'{options.name}/inputs/{flag.lstrip("-")}-{name}'
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


def hours(options, slices):
  """Expected hours by --clips and --seconds_per_clip, None without them."""
  if not options.clips or not options.seconds_per_clip:
    return None
  return options.clips * options.seconds_per_clip / slices.hosts / 3600
