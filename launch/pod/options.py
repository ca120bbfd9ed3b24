"""The arguments of launch/tpu_pod.py."""

import argparse
import os
import re

from pod import parts
from pod.errors import PodError

VERBS = {
  'launch': 'everything: up, run, follow, resume after preemption, down',
  'up': 'request the machines, wait for them and install',
  'run': 'start the training and return',
  'logs': 'follow the log until the training ends, or ^C',
  'status': 'say what the machines and the training do',
  'stop': 'let the training save a checkpoint and end',
  'down': 'delete the machines',
}

_EXAMPLE = """example, the whole life of a training on 16 spot chips:
  python3 launch/tpu_pod.py launch --name=first --project=my-project \\
    --zone=us-west4-a --type=v5litepod-16 --spot --bucket=my-bucket -- \\
    train --config=configs/tiny_vae.py

See what it would do, and cost, with --dry_run. Arguments can stand in a file,
one per line: launch/tpu_pod.py status @my_pod.txt"""


def _parser():
  parser = argparse.ArgumentParser(
    prog='tpu_pod.py',
    description='Runs `unitemp` on all hosts of a Cloud TPU pod.\n\nverbs:\n'
    + '\n'.join(f'  {verb:8} {text}' for verb, text in VERBS.items()),
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    fromfile_prefix_chars='@',
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('verb', choices=VERBS, metavar='VERB')
  add('--name', required=True, help='of machines and run, yours to choose')
  add('--project', required=True, help='Google Cloud project')
  add('--zone', required=True, help='such as us-west4-a')
  add('--type', required=True, help='of one slice, such as v6e-16')
  add('--slices', type=int, default=1, help='how many slices (default 1)')
  capacity = parser.add_mutually_exclusive_group()
  for name in ('spot', 'reserved', 'on_demand'):
    capacity.add_argument(
      f'--{name}', dest='capacity', action='store_const', const=name
    )
  parser.set_defaults(capacity='on_demand')
  add('--bucket', default='', help='keeps the runs; created if missing')
  add('--workdir', default='', help='on the hosts (default BUCKET/NAME)')
  add('--runtime', default='', help='TPU VM image (default by type)')
  add(
    '--autocheckpoint',
    action='store_true',
    help='wait for our checkpoint before maintenance (gcloud alpha)',
  )
  add('--gke', action='store_true', help='on a GKE cluster, through xpk')
  add('--cluster', default='', help='GKE: its name (default NAME)')
  add('--reservation', default='', help='GKE: its name')
  add('--image', default='python:3.12', help='GKE: base image')
  add('--max_restarts', type=int, default=50, help='(default 50)')
  add('--poll', type=float, default=30.0, help='seconds (default 30)')
  add('--keep', action='store_true', help='leave the machines at the end')
  add('--hours', type=float, default=1.0, help='for the cost (default 1)')
  add('--clips', type=int, default=0, help='to generate, for the hours')
  each = 'of one host; by default as compiled (--aot_report, or the 1.3B)'
  add('--seconds_per_clip', type=float, default=0.0, help=each)
  here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  add(
    '--prices',
    default=os.path.join(here, 'prices.json'),
    help='prices per chip and hour (default launch/prices.json, examples)',
  )
  add('--aot_report', default='', help='JSON of `unitemp aot`: does it fit?')
  add('--dry_run', action='store_true', help='print every command, run none')
  return parser


def parse(argv):
  """Returns (options, arguments of `unitemp`), which follow `--`.

  Raises:
    PodError: what argparse cannot see is wrong.
    SystemExit: from argparse.
  """
  own, training = list(argv), []
  if '--' in own:
    place = own.index('--')
    own, training = own[:place], own[place + 1 :]
  options = _parser().parse_args(own)
  if not re.fullmatch(r'[a-z]([a-z0-9-]{0,37}[a-z0-9])?', options.name):
    raise PodError(
      f'--name={options.name} is no name for machines: small letters, digits '
      'and hyphens, starting with a letter, at most 39.'
    )
  if options.verb in ('launch', 'run') and not training:
    raise PodError(
      'what shall run? Put the arguments of `unitemp` after two hyphens: '
      '-- train --config=...'
    )
  for name in ('hours', 'clips', 'seconds_per_clip', 'poll', 'max_restarts'):
    value = getattr(options, name)
    if not 0 <= value < float('inf'):
      raise PodError(f'--{name}={value:g} is no number from 0 on.')
  needs_folder = options.verb in ('launch', 'up', 'run')
  if needs_folder and not options.bucket and not options.workdir:
    raise PodError(
      'checkpoints need a place that outlives the machines: give '
      '--bucket=NAME, or --workdir=FOLDER that all hosts share.'
    )
  return options, training


def complete(training, options, slices, mount):
  """Returns the arguments of `unitemp` with what follows from the machines."""
  arguments = list(training)
  if parts.kind(arguments):
    return parts.complete(arguments, options, slices, mount)
  if not arguments or arguments[0] != 'train':
    return arguments
  # Hosts that train together see the bucket as a folder.
  for place, word in enumerate(arguments):
    flag, equals, value = word.partition('=')
    value = ','.join(
      parts.in_bucket(path, options, mount) for path in value.split(',')
    )
    arguments[place] = f'{flag}{equals}{value}'

  def add(flag, value):
    if not any(word.split('=')[0] == flag for word in arguments):
      arguments.append(f'{flag}={value}')

  add('--workdir', options.workdir or f'{mount}/{options.name}')
  if slices.hosts > 1:
    add('--hosts', slices.hosts)
  add('--config.num_devices', slices.devices)
  return arguments
