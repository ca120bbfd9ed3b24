"""`evaluate generate` on four made-up hosts, through the real worker script."""

import shutil

import pytest
from fake_cloud import FakeCloud

pytestmark = pytest.mark.skipif(
  shutil.which('bash') is None or shutil.which('git') is None,
  reason='needs bash and git',
)

# What stands for `unitemp`: twelve clips, whose content depends on their number
# and on the prompts alone. `parts K kill` ends after K clips as a crash does,
# `parts K preempt` takes the machines away, `parts K wait` goes with them.
SET = """
import os, pathlib, signal, sys, time
fake = pathlib.Path(os.environ['FAKE'])
if sys.argv[1] == 'verify':
  there = sorted(p.name for p in pathlib.Path(sys.argv[2]).glob('*.mp4'))
  print(f'verify: {len(there)} clips')
  sys.exit(0 if there == sorted(f'{i}.mp4' for i in range(12)) else 1)
what = sys.argv[1].split()
options = dict(w.split('=', 1) for w in sys.argv[2:] if '=' in w)
out = pathlib.Path(options['--out'])
out.mkdir(parents=True, exist_ok=True)
prompts = pathlib.Path(options['--manifest']).read_text().splitlines()
image = (pathlib.Path(options['--images']) / 'a.png').read_bytes()
index, count = map(int, options.get('--shard', '0/1').split('/'))
mine = list(range(12))[index::count]
made = 0
for done, i in enumerate(mine, 1):
  path = out / f'{i}.mp4'
  if not path.exists():
    if len(what) > 1 and made == int(what[1]):
      if what[2] == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)
      if what[2] == 'preempt':
        (fake / 'state').write_text('SUSPENDED\\n')
      while os.path.isdir(os.environ['HOME']):
        time.sleep(0.05)
      sys.exit(1)
    temporary = out / f'.{i}.{index}'
    temporary.write_bytes(f'{i} {prompts[i]}'.encode() + image)
    temporary.rename(path)
    made += 1
  print(f'forward: {done}/{len(mine)} clips, 9.0 per minute', flush=True)
print(f'made {made}')
"""
COMMAND = ('evaluate', 'generate', '--suite=plain')


@pytest.fixture
def given(tmp_path):
  """Inputs that are on the laptop alone."""
  folder = tmp_path / 'laptop'
  (folder / 'pictures').mkdir(parents=True)
  (folder / 'prompts.txt').write_text('\n'.join('abcdefghijkl'))
  (folder / 'pictures' / 'a.png').write_bytes(b'image')
  return (
    f'--manifest={folder / "prompts.txt"}',
    f'--images={folder / "pictures"}',
  )


def make(folder, hosts, behaviours, given, *flags):
  """Runs the launcher; behaviours are one list per host."""
  folder.mkdir()
  cloud = FakeCloud(folder, hosts=hosts)
  (folder / 'set.py').write_text(SET)
  for host, lines in enumerate(behaviours):
    cloud.script(f'behaviour.{host}', *lines)
  done = cloud.run('launch', '--spot', *flags, training=(*COMMAND, *given))
  clips = {
    path.name: path.read_bytes()
    for path in (folder / 'bucket' / 'mine').glob('*.mp4')
  }
  return cloud, done, clips


def test_hosts_make_what_one_host_makes(tmp_path, given):
  """One is preempted twice, another killed: the same files, bit for bit."""
  _, done, one = make(tmp_path / 'one', 1, [['parts']], given)
  assert done.returncode == 0, done.stdout + done.stderr
  behaviours = [['parts'] * 5 for _ in range(4)]
  behaviours[1][:2] = ['parts 1 preempt', 'parts 1 preempt']
  behaviours[2][:3] = ['parts 1 wait', 'parts 0 wait', 'parts 1 kill']
  cloud, done, many = make(tmp_path / 'many', 4, behaviours, given)
  assert done.returncode == 0, done.stdout + done.stderr
  assert many == one and len(one) == 12
  assert many['3.mp4'] == b'3 dimage'  # Of the laptop's own inputs.
  starts = cloud.calls(': unitemp evaluate generate')
  shards = {line.rpartition('--shard=')[2] for line in starts}
  assert shards == {f'{i}/4' for i in range(4)}
  for host in range(4):
    own = [s for s in starts if s.startswith(f'host {host}:')]
    assert all(f'--shard={host}/4' in s for s in own)
  assert len(cloud.calls('resources create')) == 3
  assert 'the training was lost; resuming' in done.stdout
  assert 'all hosts: ' in done.stdout and 'of 12 clips' in done.stdout
  assert 'verify: 12 clips' in done.stdout
  (cleanup,) = cloud.calls('resources delete')[-1:]
  assert cleanup


def test_a_set_that_is_not_whole_is_an_error(tmp_path, given):
  """Control: verify can fail, and the machines are not kept for it."""
  folder = tmp_path / 'short'
  folder.mkdir()
  cloud = FakeCloud(folder, hosts=1)
  (folder / 'set.py').write_text(SET.replace('range(12)[', 'range(11)['))
  text = SET.replace('list(range(12))', 'list(range(11))')
  (folder / 'set.py').write_text(text)
  cloud.script('behaviour.0', 'parts')
  done = cloud.run('launch', training=(*COMMAND, *given))
  assert done.returncode == 1
  assert 'missing or damaged' in done.stderr
  assert len(done.stderr.strip().splitlines()) == 1


def test_dry_run_says_time_and_cost_and_copies_nothing(tmp_path, given):
  flags = ('--dry_run', '--clips=7200', '--seconds_per_clip=4')
  cloud, done, clips = make(tmp_path / 'dry', 4, [], given, *flags)
  assert done.returncode == 0, done.stderr
  assert not clips and not cloud.calls()
  for words in (
    'time: 7200 clips x 4 s on 4 hosts = 2.00 h',
    'cost: 16 chips x 2 h x 1.5 USD',
    'gcloud storage cp --recursive',
    'gcloud storage rsync --recursive',
    '--manifest=../bucket/mine/inputs/manifest-prompts.txt',
    '--out=../bucket/mine --shard=HOST/4',
    'now evaluate verify ../bucket/mine',
  ):
    assert words in done.stdout


def test_gke_makes_parts_too(tmp_path, given):
  cloud, done, _ = make(
    tmp_path / 'gke', 4, [], given, '--gke', '--keep', '--slices=2'
  )
  assert done.returncode == 0, done.stderr
  (work,) = cloud.calls('xpk workload create')
  assert 'UNITEMP_HOSTS_PER_SLICE=4' in work
  assert '--shard=HOST/8' in work and '--out=/mnt/unitemp/mine' in work
  assert cloud.calls('storage rsync')


@pytest.mark.parametrize(
  ('hosts', 'command', 'words'),
  [
    (4, ('generate', '--prompt=x'), 'runs on one host, and v6e-16 has 4'),
    (4, (*COMMAND, '--shard=0/4'), 'leave out --shard'),
    (1, (*COMMAND, '--model=gs://other/m'), 'not in the bucket of the run'),
  ],
)
def test_bad_input_is_one_sentence(tmp_path, hosts, command, words):
  cloud = FakeCloud(tmp_path, hosts=hosts)
  done = cloud.run('launch', training=command)
  assert done.returncode == 2
  assert words in done.stderr and len(done.stderr.splitlines()) == 1
  assert not cloud.calls('create')


def test_paths_of_the_bucket_are_those_of_the_mount(tmp_path):
  cloud = FakeCloud(tmp_path, hosts=1)
  done = cloud.run(
    'launch', training=('generate', '--prompt=x', '--model=gs://runs/m/x')
  )
  assert done.returncode == 0, done.stderr
  (start,) = cloud.calls(': unitemp generate')
  assert '--model=../bucket/m/x --out=../bucket/mine' in start
