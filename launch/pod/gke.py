"""A workload on a GKE cluster, through xpk and kubectl.

GKE itself starts the pods again after a preemption or a crash: the job set that
xpk makes has that built in.
"""

import re
import shlex

from pod.errors import PodError

MOUNT = '/mnt/unitemp'  # Where pods see the bucket.
_JOB_LABEL = 'jobset.sigs.k8s.io/jobset-name'
# Crashes that a restart may mend; xpk adds 42 and 127 to 255 (143: stopped).
_RESTART_CODES = '1'


class Workload:
  """One workload and the cluster it runs on."""

  def __init__(self, shell, options, slices, root):
    self._shell, self._options, self._slices = shell, options, slices
    self._root, self._name = root, options.name
    self._place = [
      f'--cluster={options.cluster or options.name}',
      f'--project={options.project}',
      f'--zone={options.zone}',
    ]
    self._size = [f'--tpu-type={slices.type}', f'--num-slices={slices.count}']

  def _xpk(self, *words):
    return ['xpk', *words, *self._place]

  def create_cluster(self):
    """Creates the cluster, or brings it to this size; xpk skips what exists."""
    options = self._options
    capacity = {
      'spot': '--spot',
      'on_demand': '--on-demand',
      'reserved': f'--reservation={options.reservation}',
    }[options.capacity]
    if options.capacity == 'reserved' and not options.reservation:
      raise PodError('--reserved with --gke needs --reservation=NAME.')
    command = [*self._xpk('cluster', 'create'), *self._size, capacity]
    if options.bucket:
      command.append('--enable-gcsfuse-csi-driver')
    self._shell.do(command, 'creating the cluster')
    if options.bucket:
      self._attach_bucket()

  def _attach_bucket(self):
    listed = self._shell.do(self._xpk('storage', 'list'), 'listing storage')
    if re.search(rf'^\W*{self._storage}\b', listed, re.MULTILINE):
      return
    command = self._xpk('storage', 'attach', self._storage)
    command += ['--type=gcsfuse', f'--bucket={self._options.bucket}']
    command += [f'--mount-point={MOUNT}', '--readonly=false', '--size=1']
    self._shell.do([*command, '--auto-mount=false'], 'attaching the bucket')

  @property
  def _storage(self):
    return f'{self._options.name}-bucket'

  def exists(self):
    """Returns whether the workload has been submitted and not deleted."""
    name = self._name
    command = [*self._xpk('workload', 'list'), f'--filter-by-job={name}']
    listed = self._shell.do(command, 'listing workloads')
    return bool(re.search(rf'^\s*{re.escape(name)}\s', listed, re.MULTILINE))

  def start(self, arguments, word='container', restarts=None):
    """Submits the training unless it was submitted before."""
    if self.exists():
      print(f'the workload {self._name} is there already')
      return
    each = self._slices.hosts // self._slices.count
    inside = f'UNITEMP_HOSTS_PER_SLICE={each} bash launch/tpu_worker.sh '
    inside += f'{word} {shlex.join(arguments)}'
    if restarts is None:
      restarts = self._options.max_restarts
    command = [
      *self._xpk('workload', 'create'),
      *self._size,
      f'--workload={self._name}',
      f'--base-docker-image={self._options.image}',
      f'--script-dir={self._root}',
      f'--max-restarts={restarts}',
      f'--restart-on-exit-codes={_RESTART_CODES}',
      f'--command={inside}',
    ]
    if self._options.bucket:
      command.append(f'--storage={self._storage}')
    self._shell.do(command, 'submitting the training')

  def logs(self):
    """Follows what all hosts print until they end or ^C."""
    label = f'{_JOB_LABEL}={self._name}'
    most = max(5, 2 * self._slices.hosts)
    return self._shell.watch(
      [
        *('kubectl', 'logs', '--follow', f'--selector={label}', '--prefix'),
        *('--all-containers', '--ignore-errors', '--tail=100'),
        f'--max-log-requests={most}',
      ]
    )

  def wait(self):
    """Waits for the end of the workload, restarts included.

    Raises:
      PodError: it failed.
    """
    name = self._name
    command = self._xpk('workload', 'list')
    code = self._shell.watch([*command, f'--wait-for-job-completion={name}'])
    if code:
      self.logs()
      raise PodError(
        f'the workload {name} did not succeed (xpk says {code}); what its '
        'hosts printed last stands above.',
        code=1,
      )

  def finish(self, arguments):
    """Runs `unitemp ARGUMENTS` on the first host, as a workload of its own.

    PodError if it failed, as where clips are missing or damaged.
    """
    self._name = f'{self._name[:35]}-end'  # xpk takes up to 40 letters.
    self.delete(cluster=False)
    self.start(arguments, 'first', restarts=0)
    self.logs()
    self.wait()
    self._name = self._options.name

  def status(self):
    """Shows the workload as xpk lists it."""
    name = self._options.name
    command = [*self._xpk('workload', 'list'), f'--filter-by-job={name}']
    return self._shell.watch(command)

  def delete(self, cluster):
    """Deletes the workload if there is one, and the cluster if `cluster`."""
    if self._shell.dry_run or self.exists():
      name = f'--workload={self._name}'
      command = [*self._xpk('workload', 'delete'), name]
      self._shell.do(command, 'deleting the workload')
    if cluster:
      command = [*self._xpk('cluster', 'delete'), '--force']
      self._shell.do(command, 'deleting the cluster')
