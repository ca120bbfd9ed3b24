"""Generation on many hosts: each makes its part, what it reads is copied.

Hosts do not wait for each other: one that is lost costs its own part alone, and
the same command makes what is missing.
"""

import os
import re

from pod import cost, source
from pod.errors import PodError

# Verbs whose work is cut into parts by --shard=I/N.
_PARTS = ('evaluate generate', 'evaluate folder', 'ode_pairs', 'generate')
_PARTS += ('teacher',)
# The verb whose hosts join and make the parts themselves.
_TOGETHER = 'encode'
_SAMPLER = os.path.join(
  os.path.dirname(os.path.abspath(__file__)),
  *('..', '..', 'configs', 'aot', 'results', 'sampler-v5e-1x1.json'),
)
_VERBS = os.path.join(
  os.path.dirname(os.path.abspath(__file__)),
  *('..', '..', 'unitemp_jax', 'cli'),
)
# What stands for a path in the options of a verb, and those that verbs share.
_PATH = re.compile(
  r'^--(\w+)[!?+*]? (?:FILE|FILE\.npz|DIR|PATH|CLIP|PROMPTS)\b(?!,)',
  re.MULTILINE,
)
_SHARED_PATHS = {'config', 'embeddings', 'model', 'prompts'}
# What the worker script writes its number in the place of.
HOST = 'HOST'


def kind(arguments):
  """Returns the verb if it is no training, else None."""
  for verb in (*_PARTS, _TOGETHER):
    if arguments[: len(verb.split())] == verb.split():
      return verb
  return None


def value_of(arguments, flag):
  """Returns the value of --flag=value, '' if it is not there."""
  for word in arguments:
    if word.startswith(f'{flag}='):
      return word.partition('=')[2]
  return ''


def check(arguments, options, root, mount):
  """Refuses options that a verb lacks, and paths that are not there.

  A machine would find out too, once it is paid for.

  Raises:
    PodError: there is one.
  """
  verb = kind(arguments) or arguments[0]
  names = [verb.split()[0]] + ['clip_options'] * verb.startswith('evaluate')
  text = ''
  for name in names:
    path = os.path.join(_VERBS, f'{name}.py')
    if not re.fullmatch(r'\w+', name) or not os.path.exists(path):
      raise PodError(f'unitemp has no verb {name}; see unitemp --help.')
    with open(path, encoding='utf-8') as file:
      text += file.read()
  known = set(re.findall(r'(?:--|@)(\w+)', text))
  paths, flag = _SHARED_PATHS | set(_PATH.findall(text)), ''
  for word in arguments[len(verb.split()) :]:
    value = word
    if word.startswith('--'):
      flag, equals, value = word[2:].partition('=')
      if flag not in known and not flag.startswith('config.'):
        raise PodError(
          f'unitemp {verb} has no option --{flag}; see unitemp {verb} --help.'
        )
      if not equals:
        continue  # A switch, or the next word is the value.
    if flag in paths | {''} and not _is_there(value, options, root, mount):
      raise PodError(
        f'{word}: {value} is not on this machine; check the name, or give '
        'gs://BUCKET/PATH.'
      )
    flag = ''


def _is_there(value, options, root, mount):
  """Whether a path is here, in the sources or may be on the hosts."""
  if value.startswith(('gs://', 'hf:', f'{mount}/')):
    return True
  if options.workdir and os.path.isabs(value):
    return True  # Of the folder that all hosts share.
  bare = value.rpartition(':')[0] or value  # A config's FILE:ARG.
  places = (value, bare, os.path.join(root, value), os.path.join(root, bare))
  return any(map(os.path.exists, places))


def complete(arguments, options, slices, mount):
  """Returns the arguments with output, part, and paths as hosts see them.

  Raises:
    PodError: it is one prompt, or a path is in another bucket.
  """
  verb = kind(arguments)
  if value_of(arguments, '--prompt') and slices.hosts > 1:
    raise PodError(
      f'unitemp {verb} of one prompt runs on one host, and {slices.type} has '
      f'{slices.hosts}; take a type with one (v6e-8), or many prompts '
      '(--prompts).'
    )
  moved = {local: seen for local, _, seen in inputs(arguments, options, mount)}
  out = []
  for word in arguments:
    start, value = _split(word)
    value = moved.get(value, in_bucket(value, options, mount))
    out.append(f'{start}{value}')
  if not value_of(out, '--out'):
    out.append(f'--out={options.workdir or f"{mount}/{options.name}"}')
  if slices.hosts > 1:
    if value_of(out, '--shard') or value_of(out, '--hosts'):
      raise PodError(
        'the launcher makes the parts; leave out --shard, --hosts.'
      )
    shared = f'--shard={HOST}/{slices.hosts}'
    out.append(f'--hosts={slices.hosts}' if verb == _TOGETHER else shared)
  return out


def _split(word):
  """The value of --flag=value or a word, and what stands before it."""
  if not word.startswith('--'):
    return '', word
  flag, equals, value = word.partition('=')
  return f'{flag}{equals}', value


def in_bucket(value, options, mount):
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

  Files that git does not ignore are in the sources that are copied anyway.
  """
  tracked = None
  found = []
  for word in arguments[len(kind(arguments).split()) :]:
    start, value = _split(word)
    if start == '--out=' or not os.path.exists(value):
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
    place = f'{options.name}-inputs/{start.strip("-=") or "given"}-{name}'
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
  latest, what = {}, ''
  for host, done, total, unit in re.findall(
    r'^\[(.*?)\] .*?(\d+)/(\d+)(?: (clips|files)|, .* left$)',
    *(tails, re.MULTILINE),
  ):
    latest[host], what = (int(done), int(total)), unit or 'parts'
  if not latest:
    return ''
  done = sum(one for one, _ in latest.values())
  total = sum(all_ for _, all_ in latest.values())
  return f'all hosts: {done} of {total} {what} ({len(latest)} hosts)'


def last_arguments(arguments):
  """What one host does at the end: verifies a set, joins parts; else None."""
  verb = kind(arguments)
  if verb == 'evaluate generate':
    return ['evaluate', 'verify', value_of(arguments, '--out')]
  if verb == 'evaluate folder' and value_of(arguments, '--shard'):
    return [word for word in arguments if not word.startswith('--shard=')]
  return None


def seconds_per_clip(options, slices, verb):
  """Seconds of one host for a clip, and where they are from.

  Without --seconds_per_clip those of a student are those of the sampler in
  --aot_report, or of the 1.3B model as it was compiled for one chip, by the
  chips' speeds.

  Raises:
    PodError: the report cannot be read.
  """
  if options.seconds_per_clip:
    return options.seconds_per_clip, 'as given'
  path, chips = options.aot_report or _SAMPLER, slices.chips * slices.count
  known = options.aot_report or os.path.exists(path)
  if not known or not verb.endswith('generate'):
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


def time_lines(options, slices, arguments):
  """Expected hours of --clips, None without them, and them in words."""
  verb = kind(arguments)
  if verb is None:
    return None, []
  each, where = seconds_per_clip(options, slices, verb)
  if not each or not options.clips:
    missing = [] if options.clips else ['--clips']
    missing += [] if each else ['--seconds_per_clip']
    told = (
      f'time: unknown, give {" and ".join(missing)}; the cost is of --hours'
    )
    return None, [told]
  hours = options.clips * each / slices.hosts / 3600
  return hours, [
    f'time: {options.clips} clips x {each:.3g} s on {slices.hosts} hosts = '
    f'{hours:.2f} h ({where})'
  ]
