"""A long training that is disturbed at random, beside an undisturbed one.

  python tests/helpers/soak.py DIR --steps=20000 --restarts=200 --seconds=500

A tiny teacher on random latents, every 128th of which is not a number. The
disturbed run ends at random steps: by an exception that nothing catches, by
SIGTERM, by SIGKILL of its process, by a disk that is full while it writes
(RLIMIT_FSIZE), or while one of its shards is gone. With `--seconds` the command
stops in time; the same command goes on. It exits with 0 if the runs are equal
bit for bit and nothing has grown, and 1 otherwise.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import pathlib
import random
import resource
import signal
import sys
import time

import ended
import jax
import kill_harness
import numpy as np
import pytest

from unitemp_jax.cli import main as cli
from unitemp_jax.data import latents
from unitemp_jax.training.program import CompiledSteps

ROOT = pathlib.Path(__file__).parents[2]
KINDS = {'end': 12, 'stop': 3, 'disk': 3, 'shard': 2}
SHARDS, CLIPS, BAD = 2, 64, (5,)
EVERY, SAVED = 10, 50  # steps to a line of metrics, and to a checkpoint


def resident():
  """Memory of this process in MB."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def open_files():
  return len(os.listdir('/proc/self/fd'))


def command(folder, workdir, steps):
  return [
    'train',
    f'--config={ROOT}/configs/tiny_teacher.py:test',
    f'--workdir={workdir}',
    f'--config.latents.dir={folder / "latents"}',
    f'--config.log_every={EVERY}',
    f'--config.checkpoint_every={SAVED}',
    f'--config.num_steps={steps}',
  ]


def newest(workdir):
  """The step of the newest checkpoint, 0 without one."""
  found = (workdir / 'checkpoints').glob('*')
  return max((int(p.name) for p in found if p.name.isdigit()), default=0)


@contextlib.contextmanager
def at_step(count, act):
  """Calls `act` when a training in this process takes its step `count`."""
  taken, take = 0, CompiledSteps.__call__

  def step(self, *arguments):
    nonlocal taken
    taken += 1
    if taken >= count:
      act(taken - count)
    return take(self, *arguments)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(CompiledSteps, '__call__', step)
    yield


def run(words):
  """Runs a command; returns its code, or the name of what ended it."""
  try:
    # A file would be full as well.
    with contextlib.redirect_stdout(io.StringIO()) as said:
      return cli.main(words), said.getvalue()
  except BaseException as error:
    if isinstance(error, KeyboardInterrupt):
      raise
    return f'{type(error).__name__} {str(error)[:300]}'.strip(), ''


class Soak:
  """Both runs, the place in them, and what was measured on the way."""

  def __init__(self, folder, steps, restarts, kills, seed=0):
    self.folder, self.steps = folder, steps
    self.whole, self.parts = folder / 'whole', folder / 'parts'
    self.last_shard = latents.shard_path(folder / 'latents', 1)
    if not (folder / 'latents').exists():
      ended.write_latents(
        folder / 'latents', (9, 2, 2), CLIPS, shards=SHARDS, bad=BAD
      )
    rng = random.Random(seed)
    marks = sorted(rng.sample(range(2, steps), restarts))
    drawn = rng.choices(list(KINDS), list(KINDS.values()), k=restarts)
    surely = [*KINDS, *(['kill'] * kills)]
    places = rng.sample(range(restarts), len(surely))
    for i, kind in zip(places, surely, strict=True):
      drawn[i] = kind
    self.legs = list(zip(marks, drawn, strict=True))
    self.place = folder / 'legs.jsonl'

  def done(self):
    """What was noted of the legs so far."""
    if not self.place.exists():
      return []
    return [json.loads(line) for line in self.place.read_text().splitlines()]

  def undisturbed(self):
    """Trains to the end, watching memory and open files."""
    seen = []

    def watch(taken):
      if taken % max(self.steps // 20, 1) == 0:
        seen.append((taken, resident(), open_files(), time.process_time()))

    with at_step(1, watch):
      code, said = run(command(self.folder, self.whole, self.steps))
    assert code == 0, said
    (self.folder / 'watched.json').write_text(json.dumps(seen))

  def disturb(self, until):
    """Takes the legs that are left, until a time."""
    for number, (mark, kind) in enumerate(self.legs):
      if number < len(self.done()):
        continue
      if time.monotonic() > until:
        return False
      began = newest(self.parts)
      outcome = getattr(self, kind)(max(mark - began, 1))
      jax.clear_caches()
      gc.collect()
      noted = {'mark': mark, 'kind': kind, 'from': began, 'outcome': outcome}
      noted |= {'files': open_files(), 'memory': round(resident())}
      with self.place.open('a') as file:
        file.write(json.dumps(noted) + '\n')
    code, said = run(self.words)
    assert code == 0, said
    return True

  @property
  def words(self):
    return command(self.folder, self.parts, self.steps)

  def end(self, count):
    def act(taken):
      raise ended.Ended

    with at_step(count, act):
      return run(self.words)[0]

  def stop(self, count):
    def act(taken):
      if not taken:
        os.kill(os.getpid(), signal.SIGTERM)

    with at_step(count, act):
      return run(self.words)[0]

  def disk(self, count):
    """No file grows beyond so many bytes, which is what a full disk does."""
    most = random.Random(count).choice((100, 4_000, 40_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def act(taken):
      if not taken:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
      elif taken == 3 * SAVED:  # Nothing of that size was written.
        raise ended.Ended

    try:
      with at_step(count, act):
        return run(self.words)[0]
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, before)

  def shard(self, count):
    """A shard vanishes in the middle; nothing starts until it is back."""
    away = self.last_shard.with_suffix('.gone')

    def act(taken):
      if not taken:
        self.last_shard.rename(away)
      elif taken == 20:
        raise ended.Ended

    try:
      with at_step(count, act):
        first = run(self.words)[0]
      before = newest(self.parts)
      code, said = run(self.words)
      assert (code, newest(self.parts)) == (2, before), said
    finally:
      away.rename(self.last_shard)
    return first

  def kill(self, count):
    mark = (newest(self.parts) + count) // EVERY
    words = [sys.executable, '-m', 'unitemp_jax.cli.main', *self.words]
    process = kill_harness.start(words, self.parts)
    kill_harness.wait_for_line(process, self.parts, max(mark, 1))
    time.sleep(random.Random(count).uniform(0, 0.2))
    process.kill()
    return process.wait()

  def complaints(self):
    """What differs or has grown; also prints what was measured."""
    found = kill_harness.differences(self.whole, self.parts)
    # A checkpoint that could not be written may leave a file open.
    spare = 8 + sum(leg['kind'] == 'disk' for leg in self.done())
    found += _grown('open files', [leg['files'] for leg in self.done()], spare)
    found += _grown('MB', [leg['memory'] for leg in self.done()], 150)
    watched = json.loads((self.folder / 'watched.json').read_text())
    taken, memory, files, spent = zip(*watched, strict=True)
    found += _grown('MB, undisturbed', memory, 40)
    found += _grown('open files, undisturbed', files, 8)
    # Of the processor, since other work may slow a machine for a while.
    each = 1e6 * np.diff(spent) / np.diff(taken)
    early = float(np.median(each[1:]))
    found += _grown('us of processor a step', list(each), 0.5 * early)
    lines, _, _ = kill_harness.read_run(self.parts)
    if len(lines) != -(-self.steps // EVERY) or not lines[-1]['skipped_steps']:
      found.append(f'{len(lines)} lines of metrics')
    kept = {path.name for path in (self.parts / 'checkpoints').iterdir()}
    if len(kept) > 2 or (self.parts / 'checkpoints_damaged').exists():
      found.append(f'checkpoints {sorted(kept)}')
    counts = [
      (run / 'goodput.jsonl').read_bytes().count(b'\n')
      for run in (self.whole, self.parts)
    ]
    # A restart has a line, and lines of the steps that it does again.
    if counts[1] > counts[0] + len(self.legs) * (3 + 3 * SAVED // EVERY):
      found.append(f'{counts[1]} lines of goodput')
    print(f'skipped steps: {lines[-1]["skipped_steps"]}, goodput {counts}')
    kinds = [(leg['kind'], str(leg['outcome'])[:60]) for leg in self.done()]
    for kind in sorted(set(kinds)):
      print(f'{kinds.count(kind)} times {kind[0]}: {kind[1]}')
    return found


def _grown(what, values, most):
  """Says if the last quarter of a series is above what the second one has."""
  quarter = max(len(values) // 4, 1)
  early = float(np.median(values[quarter : 2 * quarter] or values))
  late = float(np.median(values[-quarter:]))
  print(f'{what}: {early:.0f} early, {late:.0f} late')
  return [f'{what}: {early:.0f} to {late:.0f}'] if late > early + most else []


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('folder', type=pathlib.Path)
  for name, value in (
    ('steps', 20_000),
    ('restarts', 200),
    ('kills', 10),
    ('seconds', 10**9),
  ):
    parser.add_argument(f'--{name}', type=int, default=value)
  args = parser.parse_args()
  until = time.monotonic() + args.seconds
  jax.config.update('jax_platforms', 'cpu')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(args.folder / 'programs')
  soak = Soak(args.folder.absolute(), args.steps, args.restarts, args.kills)
  if not (soak.folder / 'watched.json').exists():
    soak.undisturbed()
  if not soak.disturb(until):
    print(f'{len(soak.done())} of {args.restarts} restarts; run it again')
    return 3
  found = soak.complaints()
  print('\n'.join(found) or 'equal, and nothing has grown')
  return bool(found)


if __name__ == '__main__':
  sys.exit(main())
