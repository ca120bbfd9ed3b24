#!/usr/bin/env python3
"""Trains and generates on a Cloud TPU pod, from a laptop, with one command.

It needs nothing but Python and the cloud's own tools: gcloud, and xpk and
kubectl for --gke. It keeps no state of its own and stores no secrets: whatever
it finds is used, so run the same command again at any time.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from pod import cost, gke, hardware, parts, queued, source, watch
from pod import options as options_lib
from pod.errors import PodError
from pod.shell import Shell

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXIT_DOES_NOT_FIT = 3


def describe(options, slices, training):
  """Prints size, memory and cost; returns whether it fits."""
  print(f'machines: {slices.describe()}, {options.capacity}')
  lines, fits = cost.memory_lines(options.aot_report, slices)
  hours, told = parts.time_lines(options, slices, training)
  prices = cost.cost_lines(
    options.prices, slices, options.capacity, hours or options.hours
  )
  print('\n'.join([*told, *lines, *prices]), flush=True)
  return fits


def print_plan(pod, options, arguments, training):
  """Prints the commands of a whole life on TPU VMs, in order."""
  print('commands, in this order; those that ask are repeated:')
  pod.make_bucket()
  if parts.kind(arguments):
    parts.copy_inputs(Shell(True), training, options, queued.MOUNT)
  pod.state()
  pod.create()
  pod.set_up('unitemp-HASH.tar.gz')
  pod.start(arguments)
  pod.statuses()
  pod.log(0)
  pod.tails(30)
  last = parts.last_arguments(arguments)
  if last:
    pod.now(last)
  print('after a preemption, and at the end unless --keep is given:')
  pod.delete()


def on_machines(options, slices, training):
  """Runs a verb on TPU VMs."""
  pod = queued.QueuedResource(Shell(options.dry_run), options, slices)
  arguments = options_lib.complete(training, options, slices, queued.MOUNT)
  if options.dry_run:
    print_plan(pod, options, arguments, training)
    return
  verb, archive = options.verb, lambda: source.pack(ROOT)
  if verb in ('launch', 'up', 'run'):
    pod.make_bucket()
    if parts.kind(arguments):
      parts.copy_inputs(Shell(), training, options, queued.MOUNT)
  if verb == 'launch':
    over = False  # After ^C machines and training go on.
    try:
      watch.train(pod, arguments, archive, options)
      over = True
    except PodError as error:
      over = error.ended
      raise
    finally:
      if over and not options.keep:
        pod.delete()
  elif verb == 'up':
    watch.wait_until_active(pod, options.poll)
    pod.set_up(archive())
  elif verb == 'run':
    pod.set_up(archive())
    pod.start(arguments)
  elif verb == 'logs':
    print(watch.Follower(pod, options.poll).follow())
  elif verb == 'status':
    state = pod.state()
    hosts = pod.statuses() if state == queued.ACTIVE else []
    shown = 'no answer' if hosts is None else ', '.join(hosts) or 'none'
    print(f'{options.name}: {state}; hosts: {shown}')
  elif verb == 'stop':
    pod.stop()
  elif pod.state() == queued.ABSENT:
    print(f'there is no {options.name} to delete')
  else:
    pod.delete()


def on_cluster(options, slices, training):
  """Runs a verb on a GKE cluster."""
  work = gke.Workload(Shell(options.dry_run), options, slices, ROOT)
  arguments = options_lib.complete(training, options, slices, gke.MOUNT)
  verb = options.verb
  if verb in ('launch', 'up'):
    work.create_cluster()
  if verb in ('launch', 'run') and parts.kind(arguments):
    shell = Shell(options.dry_run)
    parts.copy_inputs(shell, training, options, gke.MOUNT)
  if verb in ('launch', 'run'):
    work.start(arguments)
  if verb in ('launch', 'logs'):
    work.logs()
  if verb == 'launch':
    work.wait()
    last = parts.last_arguments(arguments)
    if last:
      work.finish(last)
  if verb == 'status':
    work.status()
  if verb == 'stop' or (verb == 'launch' and not options.keep):
    work.delete(cluster=verb == 'launch')
  if verb == 'down':
    work.delete(cluster=True)


def main(argv):
  """Returns the exit code: 0, 1 for a failure, 2 for bad input, 3 and 4.

  3 says that the memory report does not fit, 4 that the training diverged.
  """
  try:
    options, training = options_lib.parse(argv)
    slices = hardware.parse(options.type, options.slices)
    if options.verb in ('launch', 'up', 'run'):
      source.check_size(ROOT)
      if training:
        mount = gke.MOUNT if options.gke else queued.MOUNT
        parts.check(training, options, ROOT, mount)
    asks = options.verb in ('launch', 'up')
    if asks and not describe(options, slices, training):
      print('tpu_pod.py: nothing was requested.', file=sys.stderr)
      return EXIT_DOES_NOT_FIT
    run = on_cluster if options.gke else on_machines
    run(options, slices, training)
  except PodError as error:
    print(f'tpu_pod.py: error: {error}', file=sys.stderr)
    return error.code
  except KeyboardInterrupt:
    print(
      'tpu_pod.py: interrupted; machines and training go on, the same command '
      'follows them again and `down` deletes them.',
      file=sys.stderr,
    )
    return 130
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
