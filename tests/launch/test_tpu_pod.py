"""launch/tpu_pod.py against a cloud that only takes notes."""

import os
import shutil
import subprocess
import threading
import time

import pytest
from fake_cloud import ROOT, FakeCloud

pytestmark = pytest.mark.skipif(
  shutil.which('bash') is None or shutil.which('git') is None,
  reason='needs bash and git',
)


@pytest.fixture
def cloud(tmp_path):
  return FakeCloud(tmp_path)


def test_one_command_runs_a_training_on_all_hosts(tmp_path):
  cloud = FakeCloud(tmp_path, hosts=4)
  done = cloud.run('launch', '--spot')
  assert done.returncode == 0, done.stdout + done.stderr
  (create,) = cloud.calls('queued-resources create')
  for word in ('--spot', '--accelerator-type=v6e-16', '--node-id=mine'):
    assert word in create
  starts = cloud.calls(': unitemp train')
  assert sorted(line.split(':')[0] for line in starts) == [
    f'host {i}' for i in range(4)
  ]
  (arguments,) = {line.split(': ')[1] for line in starts}
  assert arguments == (
    'unitemp train --config=c.py --workdir=../bucket/mine --hosts=4 '
    '--config.num_devices=16'
  )
  # In order: the bucket, the machines, the packages, the training, the end.
  marks = ['buckets create', 'resources create', 'pip', ': unitemp', 'delete']
  places = [cloud.calls().index(cloud.calls(mark)[0]) for mark in marks]
  assert places == sorted(places)
  assert 'step 5/10 on host 0' in done.stdout
  assert list((tmp_path / 'bucket' / 'logs').iterdir())
  assert 'PROVISIONING' in done.stdout


def test_a_preempted_training_is_resumed_on_new_machines(cloud):
  cloud.script('behaviour', 'preempt', 'finish')
  done = cloud.run('launch', '--spot')
  assert done.returncode == 0, done.stdout + done.stderr
  assert 'the training was lost; resuming' in done.stdout
  assert len(cloud.calls('resources create')) == 2
  assert len(cloud.calls('resources delete')) == 2
  first, second = cloud.calls(': unitemp train')
  assert first == second  # The same command resumes.


def test_a_training_that_was_stopped_goes_on_where_it_is(cloud):
  """Control of the test above: no new machines where none were lost."""
  cloud.script('behaviour', 'stopped', 'exit 134', 'finish')
  done = cloud.run('launch')
  assert done.returncode == 0, done.stdout + done.stderr
  assert 'the training was stopped' in done.stdout
  assert 'the training was exited 134' in done.stdout
  assert len(cloud.calls('resources create')) == 1
  assert len(cloud.calls(': unitemp train')) == 3
  assert len(cloud.calls('pip')) == 1  # Installed once.


def test_a_request_that_failed_is_replaced_but_not_for_ever(cloud):
  cloud.script('on_create', 'FAILED')
  done = cloud.run('launch')
  assert done.returncode == 1
  assert 'failed 3 times' in done.stderr
  assert not cloud.calls(': unitemp')


@pytest.mark.parametrize(
  ('code', 'reason', 'starts'),
  [
    (2, 'the input is bad', 1),
    (4, 'the training diverged', 1),
    (1, 'crashed 3 times', 3),
  ],
)
def test_what_a_restart_cannot_mend_ends_it(cloud, code, reason, starts):
  cloud.script('behaviour', *[f'exit {code}'] * 9)
  done = cloud.run('launch')
  assert done.returncode == code
  assert reason in done.stderr
  assert 'unitemp: error: something is wrong' in done.stdout
  assert len(cloud.calls(': unitemp train')) == starts
  assert cloud.calls('resources delete')  # They would cost money for nothing.


def test_every_verb_can_be_repeated(cloud):
  cloud.script('behaviour', 'hang')
  (cloud.repository / '.gitignore').write_text('secret.txt\n')
  (cloud.repository / 'secret.txt').write_text('of mine')
  for _ in range(2):
    assert cloud.run('up', training=()).returncode == 0
  source = cloud.folder / 'hosts/0/unitemp/source'
  assert (source / 'launch' / 'tpu_worker.sh').exists()
  assert not (source / 'secret.txt').exists()
  for _ in range(2):
    done = cloud.run('run')
    assert done.returncode == 0, done.stderr
  assert len(cloud.calls('resources create')) == 1
  assert len(cloud.calls('buckets create')) == 1
  assert len(cloud.calls('pip')) == 1
  deadline = time.monotonic() + 30
  while not cloud.calls(': unitemp train'):
    assert time.monotonic() < deadline
    time.sleep(0.05)
  assert len(cloud.calls(': unitemp train')) == 1
  assert 'ACTIVE; hosts: running' in cloud.run('status', training=()).stdout
  # SIGTERM reaches the training, which saves and ends by itself.
  stopping = threading.Timer(0.5, cloud.run, ['stop'], {'training': ()})
  stopping.start()
  assert 'stopped at step 7' in cloud.run('logs', training=()).stdout
  stopping.join()
  assert 'hosts: stopped' in cloud.run('status', training=()).stdout
  for _ in range(2):
    assert cloud.run('down', training=()).returncode == 0
  assert len(cloud.calls('resources delete')) == 1


@pytest.mark.parametrize(
  ('what', 'code'), [('stopped', 143), ('finish', 0), ('exit 4', 4)]
)
def test_a_pod_of_gke_ends_as_its_training_does(cloud, what, code):
  cloud.script('behaviour', what)
  path = f'{cloud.folder / "bin"}:{os.environ["PATH"]}'
  own = {'PATH': path, 'FAKE': str(cloud.folder), 'HOST': '0'}
  done = subprocess.run(
    ['bash', 'launch/tpu_worker.sh', 'container', 'train'],
    cwd=cloud.repository,
    env={**os.environ, **own, 'HOME': str(cloud.folder)},
    capture_output=True,
  )
  assert done.returncode == code, done.stderr
  assert b'step 5/10' in done.stdout


def test_dry_run_prints_everything_and_does_nothing(cloud):
  done = cloud.run('launch', '--dry_run', '--spot', '--hours=10')
  assert done.returncode == 0
  assert cloud.calls() == []
  for words in (
    'queued-resources create mine',
    'queued-resources delete mine',
    'tpu-vm scp',
    'start train --config=c.py',
    'memory: unknown',
    '8 chips x 10 h x 1.5 USD',
    '= 120.00 USD',
    'says (example prices, not edited yet)',
  ):
    assert words in done.stdout


def report(folder, peak, topology='v6e:2x4'):
  path = folder / 'aot.json'
  path.write_text(
    f'{{"topology": "{topology}", "chip_gib": 32,'
    f' "steps": [{{"name": "train", "peak_gib": {peak}}}]}}'
  )
  return f'--aot_report={path}'


@pytest.mark.parametrize(
  ('peak', 'topology', 'code', 'words'),
  [
    (9.7, 'v6e:2x4', 0, '9.70 of 32 GiB per chip, fits\n'),
    (30.0, 'v6e:2x4', 0, 'fits with less than 20 % to spare'),
    (41.4, 'v6e:2x4', 3, 'DOES NOT FIT'),
    (9.7, 'v6e:4x4', 2, 'compile the config for that'),
    ('"?"', 'v6e:2x4', 2, 'is no memory report'),
  ],
)
def test_memory_report_decides(cloud, tmp_path, peak, topology, code, words):
  flags = ['--dry_run', report(tmp_path, peak, topology)]
  done = cloud.run('launch', *flags)
  assert done.returncode == code
  assert words in done.stdout + done.stderr
  if code == 3:  # Without --dry_run nothing is requested either.
    assert cloud.run('launch', flags[1]).returncode == 3
    assert cloud.calls() == []


@pytest.mark.parametrize(
  ('flags', 'training', 'words'),
  [
    (['--type=v9-8'], ('train',), 'no accelerator type'),
    (['--type=v6e-6'], ('train',), 'whole number of hosts'),
    (['--type=tpu7x-8'], ('train',), 'use --gke'),
    (['--name=Mine'], ('train',), 'no name for machines'),
    (['--hours=-1'], ('train',), '--hours=-1 is no number from 0 on'),
    (['--clips=-5'], ('train',), '--clips=-5 is no number'),
    (['--seconds_per_clip=nan'], ('train',), 'clip=nan is no number'),
    (['--bucket='], ('train',), 'outlives the machines'),
    ([], (), 'what shall run?'),
    (['--prices=nowhere.json'], ('train',), 'price file'),
    ([], ('train', '--config=none.py'), 'none.py is not on this machine'),
    ([], ('train', '--confg=c.py'), 'unitemp train has no option --confg'),
    ([], ('trian', '--config=c.py'), 'unitemp has no verb trian'),
    ([], ('train', '--config=c.py', '--workdir=gs://x/y'), 'not in the bucket'),
  ],
)
def test_bad_input_is_one_sentence_and_no_request(
  cloud, flags, training, words
):
  done = cloud.run('launch', *flags, training=training)
  assert done.returncode == 2
  assert words in done.stderr and len(done.stderr.splitlines()) == 1
  assert not cloud.calls('create')


def test_a_training_sees_the_bucket_as_a_folder(cloud):
  own = (
    '--workdir=gs://runs/w',
    '--config.latents.dir=gs://runs/a,gs://runs/b',
  )
  done = cloud.run(
    'run', '--dry_run', training=('train', '--config=c.py', *own)
  )
  assert done.returncode == 0, done.stderr
  told = 'train --config=c.py --workdir=../bucket/w '
  assert f'{told}--config.latents.dir=../bucket/a,../bucket/b' in done.stdout


def test_sources_that_are_large_are_refused(cloud):
  """Before machines are requested; files that git ignores do not count."""
  weights = cloud.repository / 'weights'
  weights.mkdir()
  with (weights / 'vae.safetensors').open('wb') as file:
    file.truncate(101_000_000)
  done = cloud.run('launch', '--dry_run')
  assert done.returncode == 2
  assert 'weights/vae.safetensors (101 MB)' in done.stderr
  (cloud.repository / '.gitignore').write_text('/weights/')
  assert cloud.run('launch', '--dry_run').returncode == 0
  ignored = ROOT.joinpath('.gitignore').read_text().split()
  assert {'/weights/', '/models/', '/my_videos/'} <= {*ignored}


def test_gke_submits_once_and_waits(cloud):
  done = cloud.run('launch', '--gke', '--spot', '--keep')
  assert done.returncode == 0, done.stderr
  (cluster,) = cloud.calls('xpk cluster create')
  assert '--spot' in cluster and '--tpu-type=v6e-8' in cluster
  (work,) = cloud.calls('xpk workload create')
  assert 'tpu_worker.sh container train --config=c.py' in work
  assert '--workdir=/mnt/unitemp/mine' in work and '--max-restarts=50' in work
  assert cloud.calls('kubectl logs', 'jobset-name=mine')
  assert cloud.run('launch', '--gke', '--keep').returncode == 0
  assert len(cloud.calls('xpk workload create')) == 1
  cloud.script('xpk_code', '125')
  failed = cloud.run('launch', '--gke', '--keep')
  assert failed.returncode == 1 and 'did not succeed' in failed.stderr
  assert cloud.run('down', '--gke', training=()).returncode == 0
  assert cloud.calls('xpk workload delete') and cloud.calls('cluster delete')
