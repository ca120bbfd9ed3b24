"""TPU VMs of a queued resource, through gcloud."""

import os
import re
import shlex

from pod.errors import PodError

# States of a queued resource, as `gcloud ... describe` prints them.
ACTIVE = 'ACTIVE'
ABSENT = 'ABSENT'  # Ours: there is no such queued resource.
DEAD = ('SUSPENDED', 'FAILED')  # Never come back: delete and create anew.
LEAVING = ('SUSPENDING', 'DELETING')

_SCOPES = 'https://www.googleapis.com/auth/cloud-platform'
_WORKER = 'bash unitemp/source/launch/tpu_worker.sh'
MOUNT = '../bucket'  # The bucket, seen from the sources on a host.


class QueuedResource:
  """One queued resource and the hosts of its slices.

  Every method is one or two commands; `shell` decides whether they are run.
  """

  def __init__(self, shell, options, slices):
    self._shell, self._options, self._slices = shell, options, slices
    self._place = [f'--project={options.project}', f'--zone={options.zone}']
    name = options.name
    self.nodes = [name]
    if slices.count > 1:
      self.nodes = [f'{name}-{i}' for i in range(slices.count)]
    if not slices.generation.runtime and not options.runtime:
      raise PodError(
        f'there are no TPU VMs of {slices.type}; use --gke, or name an image '
        'with --runtime.'
      )

  def _tpus(self, *words):
    track = ['alpha'] if self._options.autocheckpoint else []
    return ['gcloud', *track, 'compute', 'tpus', *words, *self._place]

  def make_bucket(self):
    """Creates the bucket unless it is there."""
    bucket = self._options.bucket
    if not bucket:
      return
    look = ['gcloud', 'storage', 'buckets', 'describe', f'gs://{bucket}']
    look.append(f'--project={self._options.project}')
    if self._shell.ask(look).code == 0 and not self._shell.dry_run:
      return
    region = self._options.zone.rpartition('-')[0]
    create = ['gcloud', 'storage', 'buckets', 'create', f'gs://{bucket}']
    # Folders of such a bucket are renamed at once, as checkpoints need it.
    create += [f'--project={self._options.project}', f'--location={region}']
    create += [
      '--uniform-bucket-level-access',
      '--enable-hierarchical-namespace',
    ]
    self._shell.do(create, f'creating the bucket {bucket}')

  def state(self):
    """Returns the state, ABSENT where there is no such queued resource.

    Raises:
      PodError: the question itself failed: no network, no permission.
    """
    words = ['queued-resources', 'describe', self._options.name]
    done = self._shell.ask([*self._tpus(*words), '--format=value(state.state)'])
    if done.code == 0:
      return done.out.strip() or ABSENT
    if re.search('NOT_FOUND|not found', done.err, re.IGNORECASE):
      return ABSENT
    raise PodError(
      f'the state of {self._options.name} cannot be read: '
      f'{done.err.strip()[-300:]}; log in with gcloud auth login and check '
      '--project and --zone.',
      code=1,
    )

  def create(self):
    """Puts the request into the queue and returns."""
    options, name = self._options, self._options.name
    command = self._tpus('queued-resources', 'create', name)
    if self._slices.count == 1:
      command.append(f'--node-id={name}')
    else:
      command += [f'--node-count={self._slices.count}', f'--node-prefix={name}']
    runtime = options.runtime or self._slices.generation.runtime
    command += [
      f'--accelerator-type={self._slices.type}',
      f'--runtime-version={runtime}',
      f'--scopes={_SCOPES}',
    ]
    if options.capacity != 'on_demand':
      command.append(f'--{options.capacity}')
    if options.autocheckpoint:
      command.append('--autocheckpoint-enabled')
    self._shell.do([*command, '--quiet', '--async'], f'requesting {name}')

  def delete(self):
    """Deletes the queued resource with its machines."""
    name = self._options.name
    command = self._tpus('queued-resources', 'delete', name)
    self._shell.do([*command, '--force', '--quiet'], f'deleting {name}')

  def _ssh(self, node, command, worker='all'):
    words = ['tpu-vm', 'ssh', node, f'--worker={worker}']
    return [*self._tpus(*words), f'--command={command}', '--quiet']

  def set_up(self, archive):
    """Copies the sources to all hosts and installs them; safe to repeat."""
    name = os.path.basename(archive)
    worker = os.path.join(os.path.dirname(__file__), '..', 'tpu_worker.sh')
    setup = f'bash tpu_worker.sh setup {name} {self._options.bucket}'.rstrip()
    for node in self.nodes:
      files = [archive, os.path.normpath(worker), f'{node}:']
      copy = [*self._tpus('tpu-vm', 'scp', *files), '--worker=all', '--quiet']
      self._shell.do(copy, f'copying the sources to {node}')
      self._shell.do(self._ssh(node, setup), f'installing on {node}')

  def start(self, arguments):
    """Starts `unitemp ARGUMENTS` on all hosts; where it runs it is left."""
    each = self._slices.hosts // self._slices.count
    for number, node in enumerate(self.nodes):
      first = f'UNITEMP_FIRST_HOST={number * each}'
      command = f'{first} {_WORKER} start {shlex.join(arguments)}'
      self._shell.do(self._ssh(node, command), f'starting on {node}')

  def now(self, arguments):
    """Runs `unitemp ARGUMENTS` on the first host; returns its exit code."""
    command = f'{_WORKER} now {shlex.join(arguments)}'
    return self._shell.watch(self._ssh(self.nodes[0], command, worker='0'))

  def statuses(self):
    """Returns what each host says, None if some host does not answer."""
    found = []
    for node in self.nodes:
      done = self._shell.ask(self._ssh(node, f'{_WORKER} status'))
      if done.code:
        return None
      found += re.findall(r'^UNITEMP_STATUS \S+ (.*)$', done.out, re.MULTILINE)
    if len(found) != self._slices.hosts and not self._shell.dry_run:
      return None
    return found

  def log(self, offset):
    """Returns what the first host printed after `offset` bytes."""
    command = f'{_WORKER} log {offset}'
    done = self._shell.ask(self._ssh(self.nodes[0], command, worker='0'))
    return done.out if done.code == 0 else ''

  def tails(self, lines):
    """Returns the last lines of every host, each with its name."""
    found = ''
    for node in self.nodes:
      done = self._shell.ask(self._ssh(node, f'{_WORKER} tail {lines}'))
      found += done.out
    return found

  def stop(self):
    """Asks all hosts to save and end."""
    for node in self.nodes:
      command = self._ssh(node, f'{_WORKER} stop')
      self._shell.do(command, f'stopping the training on {node}')
