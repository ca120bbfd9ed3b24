"""`evaluate generate` on four made-up hosts, through the real worker script."""

import json
import os
import shutil
import subprocess
import sys
import types

import pytest
from fake_cloud import ROOT, FakeCloud
from model_fixture import random_model

from unitemp_jax.aot import topology

pytestmark = pytest.mark.skipif(
  shutil.which('bash') is None or shutil.which('git') is None,
  reason='needs bash and git',
)

GONE = """
def gone():
  try:
    return not os.path.samefile('.', os.environ['HOME'] + '/unitemp/source')
  except FileNotFoundError:
    return True
"""
# What stands for `unitemp`: twelve clips, whose content depends on their number
# and on the prompts alone. `parts K kill` ends after K clips as a crash does,
# `parts K preempt` takes the machines away, `parts K wait` goes with them.
SET = f"""
import os, pathlib, signal, sys, time
{GONE}"""
SET += """
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
      while not gone():
        time.sleep(0.05)
      sys.exit(1)
    temporary = out / f'.{i}.{os.getpid()}'
    temporary.write_bytes(f'{i} {prompts[i]}'.encode() + image)
    temporary.rename(path)
    made += 1
  print(f'forward: {done}/{len(mine)} clips, 9.0 per minute', flush=True)
print(f'made {made}')
"""
# The real `unitemp`, which ends in the same ways, or with the machine.
REAL = f"""
import os, pathlib, signal, sys, threading, time
sys.path.insert(0, {str(ROOT)!r})
{GONE}
from unitemp_jax.cli import main
from unitemp_jax.evaluation_sets import work
if sys.argv[1] == 'verify':
  sys.exit(main.main(['evaluate', 'verify', sys.argv[2]]))
fake, what = pathlib.Path(os.environ['FAKE']), sys.argv[1].split()
write, lock, made = work.write_clip, threading.Lock(), 0
def with_machine():
  while not gone():
    time.sleep(0.05)
  os._exit(1)
def write_clip(*arguments):
  global made
  with lock:
    if len(what) > 1 and made == int(what[1]):
      if what[2] == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)
      if what[2] == 'preempt':
        (fake / 'state').write_text('SUSPENDED\\n')
      with_machine()
    write(*arguments)
    made += 1
work.write_clip = write_clip
threading.Thread(target=with_machine, daemon=True).start()
sys.exit(main.main(sys.argv[2:]))
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


def make(folder, hosts, behaviours, given, *flags, program=SET):
  """Runs the launcher; behaviours are one list per host."""
  folder.mkdir()
  cloud = FakeCloud(folder, hosts=hosts)
  (folder / 'set.py').write_text(program)
  for host, lines in enumerate(behaviours):
    cloud.script(f'behaviour.{host}', *lines)
  done = cloud.run(
    *('launch', '--spot', *flags), training=(*COMMAND, *given), timeout=900
  )
  out = folder / 'bucket' / 'mine'
  clips = {
    path.relative_to(out).as_posix(): path.read_bytes()
    for path in out.rglob('*')
    if path.is_file() and not {'progress', 'partial'} & {*path.parts}
  }
  return cloud, done, clips


# Of four hosts the second is preempted twice and the third killed at last.
BEHAVIOURS = [
  ['parts'] * 5,
  ['parts 1 preempt', 'parts 1 preempt', *['parts'] * 3],
  ['parts 1 wait', 'parts 0 wait', 'parts 1 kill', *['parts'] * 2],
  ['parts'] * 5,
]


@pytest.mark.slow
def test_real_clips_of_four_hosts_are_those_of_one(tmp_path):
  """The command itself, in the real worker script, with a small model."""
  prompts = tmp_path / 'prompts.txt'
  numbers = ('one', 'two', 'three', 'four')
  prompts.write_text(
    '\n'.join(
      f'a {c} {n} falls' for c in ('red', 'blue', 'green') for n in numbers
    )
  )
  given = (f'--manifest={prompts}', f'--model={random_model()}')
  given += ('--frames=5', '--batch_size=1', '--order=backward')
  _, done, one = make(tmp_path / 'one', 1, [['parts']], given, program=REAL)
  assert done.returncode == 0, done.stdout + done.stderr
  cloud, done, many = make(
    tmp_path / 'many', 4, BEHAVIOURS, given, program=REAL
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert sum(name.endswith('.mp4') for name in one) == 12
  assert many.keys() == one.keys()
  assert [name for name in one if many[name] != one[name]] == []
  assert len(cloud.calls('resources create')) == 3
  assert 'all hosts: ' in done.stdout and '12 clips' in done.stdout
  # Control: clips that are others differ.
  clips = [one[name] for name in sorted(one) if name.endswith('.mp4')]
  assert len(set(clips)) == 12


def test_hosts_make_what_one_host_makes(tmp_path, given):
  """One is preempted twice, another killed: the same files, bit for bit."""
  _, done, one = make(tmp_path / 'one', 1, [['parts']], given)
  assert done.returncode == 0, done.stdout + done.stderr
  cloud, done, many = make(tmp_path / 'many', 4, BEHAVIOURS, given)
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
    'time: 7200 clips x 4 s on 4 hosts = 2.00 h (as given)',
    'cost: 16 chips x 2 h x 1.5 USD',
    'gcloud storage cp --recursive',
    'gcloud storage rsync --recursive',
    '--manifest=../bucket/mine-inputs/manifest-prompts.txt',
    '--out=../bucket/mine --shard=HOST/4',
    'now evaluate verify ../bucket/mine',
  ):
    assert words in done.stdout


def test_time_and_cost_of_what_was_compiled(tmp_path, given):
  cloud = FakeCloud(tmp_path, hosts=4)
  known = 'configs/aot/results/sampler-v5e-1x1.json'
  path = cloud.repository / known
  path.parent.mkdir(parents=True)
  time = {'ops': 9.0, 'kernels': 8.0, 'waits': 1.0, 'ideal': 9.0}
  step = {'name': 'sampler', 'tflops': 1773.0, 'rows': 1, 'time': time}
  path.write_text(json.dumps({'steps': [step]}))
  done = cloud.run(
    *('launch', '--dry_run', '--clips=7200'), training=(*COMMAND, *given)
  )
  assert done.returncode == 0, done.stderr
  (line,) = [l for l in done.stdout.splitlines() if l.startswith('time: ')]
  assert line.endswith(
    '(by the schedule in sampler-v5e-1x1.json, compiled, not run)'
  )
  # A host of four v6e chips, at the share of the peak of the compiled v5e.
  each = 1773 / (0.5 * 918) / 4
  assert f'7200 clips x {each:.3g} s on 4 hosts' in line
  assert f'= {7200 * each / 4 / 3600:.2f} h' in line
  hours = 7200 * each / 4 / 3600
  assert f'{16 * hours * 3:,.2f} USD (on_demand)' in done.stdout


def test_speeds_are_those_of_the_compilers_chips(monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / 'launch'))
  from pod import hardware

  own = {g.name: g.tflops for g in hardware.GENERATIONS.values()}
  chips = topology.CHIPS.values()
  assert own == {chip.name: chip.tflops * chip.devices for chip in chips}
  for name in [name for name in sys.modules if name.startswith('pod')]:
    monkeypatch.delitem(sys.modules, name)


def test_gke_makes_parts_too(tmp_path, given):
  cloud, done, _ = make(
    tmp_path / 'gke', 4, [], given, '--gke', '--keep', '--slices=2'
  )
  assert done.returncode == 0, done.stderr
  work, last = cloud.calls('xpk workload create')
  assert 'UNITEMP_HOSTS_PER_SLICE=4' in work
  assert '--shard=HOST/8' in work and '--out=/mnt/unitemp/mine' in work
  assert cloud.calls('storage rsync')
  # At the end one host verifies it, once.
  assert 'tpu_worker.sh first evaluate verify /mnt/unitemp/mine' in last
  assert '--workload=mine-end' in last and '--max-restarts=0' in last


@pytest.mark.parametrize(('number', 'makes'), [(0, True), (1, False)])
def test_the_first_host_works_alone(tmp_path, number, makes):
  cloud = FakeCloud(tmp_path)
  own = {'PATH': f'{tmp_path / "bin"}:{os.environ["PATH"]}', 'HOST': '0'}
  own |= {'HOME': f'{tmp_path}', 'FAKE': f'{tmp_path}'}
  done = subprocess.run(
    ['bash', 'launch/tpu_worker.sh', 'first', 'train'],
    cwd=cloud.repository,
    env={**os.environ, **own, 'TPU_WORKER_ID': str(number)},
  )
  assert done.returncode == 0
  assert bool(cloud.calls(': unitemp train')) == makes


@pytest.mark.parametrize('command', ['ode_pairs', 'teacher', 'generate'])
def test_other_verbs_make_parts(tmp_path, command):
  prompts = tmp_path / 'prompts.txt'
  prompts.write_text('x')
  cloud = FakeCloud(tmp_path, hosts=4)
  words = '' if command == 'ode_pairs' else '--prompts='
  training = (command, f'{words}{prompts}')
  done = cloud.run('launch', '--dry_run', '--clips=9', training=training)
  assert done.returncode == 0, done.stdout + done.stderr
  assert f'start {command} {words}../bucket/mine-inputs/' in done.stdout
  assert '--out=../bucket/mine --shard=HOST/4' in done.stdout
  # What a student takes says nothing of a teacher.
  assert 'time: unknown, give --seconds_per_clip; the cost' in done.stdout


def test_one_line_for_all_hosts(monkeypatch):
  """Though the first has made its own; of every verb that makes parts."""
  monkeypatch.syspath_prepend(str(ROOT / 'launch'))
  from pod import watch

  tails = [
    f'[a] b/shard 1/1, 0 s left\n[b] shard {i}/3, 9 s left' for i in (2, 3)
  ]
  tails += [
    '[a] backward: 3/4 clips, 9.0 per minute',
    '[a]   2/9 files measured',
  ]
  tails.insert(1, tails[0])
  pod = types.SimpleNamespace(
    state=lambda: 'ACTIVE',
    statuses=lambda: ['running' if tails[1:] else 'exited 0'],
    log=lambda offset: '',
    tails=lambda lines: tails.pop(0),
  )
  said = []
  watch.Follower(pod, 0, said.append, lambda _: None, parts=True).follow()
  assert [line.removeprefix('all hosts: ') for line in said] == [
    *('3 of 4 parts (2 hosts)', '4 of 4 parts (2 hosts)'),
    *('3 of 4 clips (1 hosts)', '2 of 9 files (1 hosts)'),
  ]
  for name in [name for name in sys.modules if name.startswith('pod')]:
    monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
  ('hosts', 'command', 'words'),
  [
    (4, ('generate', '--prompt=x'), 'take a type with one (v6e-8)'),
    (4, (*COMMAND, '--shard=0/4'), 'leave out --shard'),
    (1, (*COMMAND, '--model=gs://other/m'), 'not in the bucket of the run'),
    (1, (*COMMAND, '--manifest=none.json'), 'none.json is not on this machine'),
    (1, (*COMMAND, '--model', 'none'), 'none: none is not on this machine'),
    (1, (*COMMAND, '--manifst=x.json'), 'has no option --manifst'),
  ],
)
def test_bad_input_is_one_sentence(tmp_path, hosts, command, words):
  cloud = FakeCloud(tmp_path, hosts=hosts)
  done = cloud.run('launch', training=command)
  assert done.returncode == 2
  assert words in done.stderr and len(done.stderr.splitlines()) == 1
  assert not cloud.calls('create')


def test_a_folder_is_measured_in_parts_that_are_joined(tmp_path):
  clips = tmp_path / 'clips'
  clips.mkdir()
  (clips / 'a.mp4').write_bytes(b'clip')
  cloud = FakeCloud(tmp_path, hosts=4)
  command = ('evaluate', 'folder', str(clips), '--naming=vbench')
  done = cloud.run('launch', training=command)
  assert done.returncode == 0, done.stdout + done.stderr
  there = '../bucket/mine-inputs/given-clips'
  assert (tmp_path / 'bucket/mine-inputs/given-clips/a.mp4').exists()
  starts = cloud.calls(': unitemp evaluate folder')
  words = f'evaluate folder {there} --naming=vbench --out=../bucket/mine'
  assert all(f'{words} --shard=' in line for line in starts)
  assert {s.rpartition('=')[2] for s in starts} == {f'{i}/4' for i in range(4)}
  # No host waits for the others of its slice, and the first one joins.
  assert len(cloud.calls('of 1,1,1 processes')) == 4
  (join,) = cloud.calls('joins with')
  assert join == f'host 0: joins with {words}'


def test_hosts_that_encode_join(tmp_path):
  (tmp_path / 'prompts.txt').write_text('a red one falls')
  cloud = FakeCloud(tmp_path, hosts=4)
  given = f'{tmp_path}/prompts.txt'
  done = cloud.run('launch', training=('encode', given, '--model=gs://runs/m'))
  assert done.returncode == 0, done.stdout + done.stderr
  (words,) = {
    line.partition(': ')[2] for line in cloud.calls(': unitemp encode')
  }
  assert words == (
    'unitemp encode ../bucket/mine-inputs/given-prompts.txt '
    '--model=../bucket/m --out=../bucket/mine --hosts=4'
  )
  # Control: as in a training, all of them make up one mesh.
  assert len(cloud.calls('of all processes')) == 4


def test_paths_of_the_bucket_are_those_of_the_mount(tmp_path):
  cloud = FakeCloud(tmp_path, hosts=1)
  done = cloud.run(
    'launch', training=('generate', '--prompt=x', '--model=gs://runs/m/x')
  )
  assert done.returncode == 0, done.stderr
  (start,) = cloud.calls(': unitemp generate')
  assert '--model=../bucket/m/x --out=../bucket/mine' in start
