"""What the environment says to JAX is heeded, set aside, or a sentence."""

import os
import subprocess
import sys

import pytest

from unitemp_jax.cli import environment
from unitemp_jax.cli import main as cli
from unitemp_jax.errors import UserError

PROBE = """
import sys, types
from unitemp_jax.cli import main as cli
def probe(argv):
  import jax
  print(jax.numpy.asarray([1.0]).dtype, jax.device_count())
sys.modules['probe'] = types.SimpleNamespace(main=probe)
cli.VERBS['probe'] = 'probe', ''
sys.exit(cli.main(['probe']))
"""
FAST = '--xla_cpu_enable_fast_math'


@pytest.mark.parametrize(
  ('setting', 'words'),
  [
    ('JAX_PLATFORMS=cuda', 'JAX_PLATFORMS=cuda'),
    ('JAX_PLATFORMS=foo', 'JAX_PLATFORMS=foo (Unable to initialize backend'),
    ('JAX_NUM_CPU_DEVICES=abc', 'JAX_NUM_CPU_DEVICES=abc (Invalid value'),
    ('JAX_DEFAULT_MATMUL_PRECISION=foo', 'JAX_DEFAULT_MATMUL_PRECISION=foo'),
    ('XLA_FLAGS=--xla_nonsense=1', 'Unknown flag'),
    (f'XLA_FLAGS={FAST}=maybe', "Couldn't interpret value maybe"),
    ('LIBTPU_INIT_ARGS=--nonsense=1', "flag 'nonsense'"),
    ('LIBTPU_INIT_ARGS= ', ''),
    (f'XLA_FLAGS={FAST}=false', ''),  # The controls.
    ('JAX_NUM_CPU_DEVICES=2', ''),
    ('JAX_ENABLE_X64=1', ''),
  ],
)
def test_environment(setting, words):
  name, _, value = setting.partition('=')
  if 'LIBTPU' in name:
    pytest.importorskip('libtpu')
  env = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '', name: value}
  done = subprocess.run(
    [sys.executable, '-c', PROBE], env=env, capture_output=True, text=True
  )
  if words:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith('unitemp: error: ')
    assert done.stderr.count('\n') == 1
    assert words in done.stderr and setting in done.stderr
    return
  assert done.returncode == 0, done.stderr
  assert done.stdout == f'float32 {2 if value == "2" else 1}\n'
  assert done.stderr.startswith('unitemp: note: ' if '64' in name else '')


def test_what_is_set_aside(monkeypatch):
  given = {'JAX_ENABLE_X64': 'True', 'JAX_TRANSFER_GUARD_X': 'disallow'}
  given |= {'JAX_DEFAULT_PRNG_IMPL': 'rbg', 'JAX_RANDOM_SEED_OFFSET': '7'}
  given |= {'JAX_THREEFRY_PARTITIONABLE': 'false'}
  kept = {'JAX_TRANSFER_GUARD': 'log', 'JAX_LOG_COMPILES': '1'}
  for name, value in {**given, **kept}.items():
    monkeypatch.setenv(name, value)
  with pytest.warns(UserWarning, match='is set aside'), environment.heeded():
    assert given.keys() - os.environ.keys() == given.keys()
    assert kept.keys() <= os.environ.keys()
  kept = {'JAX_ENABLE_X64': '0', 'JAX_DEFAULT_PRNG_IMPL': 'threefry2x32'}
  kept |= {'JAX_THREEFRY_PARTITIONABLE': '1', 'JAX_RANDOM_SEED_OFFSET': '0'}
  for name, value in kept.items():
    monkeypatch.setenv(name, value)
  with environment.heeded():
    assert kept.keys() <= os.environ.keys()


@pytest.mark.parametrize('kind', [AssertionError, RuntimeError, ValueError])
@pytest.mark.parametrize('note', ['JAX has removed its internal frames', ''])
def test_bugs_keep_their_traceback(kind, note, monkeypatch):
  """Errors of JAX, and of others, where its devices are there."""
  error = kind('a bug')
  error.add_note(note)
  with pytest.raises(kind, match='a bug'), environment.heeded():
    raise error

  def fails():
    raise RuntimeError('no device')

  monkeypatch.setattr(environment.sys.modules['jax'], 'devices', fails)
  wanted = UserError if note else kind  # The control.
  with pytest.raises(wanted), environment.heeded():
    raise error


def test_flags_of_tests_start_no_process(monkeypatch):
  started = []
  monkeypatch.setattr(cli.environment.subprocess, 'run', started.append)
  for flags in ('', ' ', '--xla_force_host_platform_device_count=8'):
    monkeypatch.setenv('XLA_FLAGS', flags)
    # As JAX sets it in every process, where there is libtpu, for its children.
    monkeypatch.delitem(sys.modules, 'jax', raising=False)
    own = ' --xla_tpu_use_enhanced_launch_barrier=true'
    monkeypatch.setenv('LIBTPU_INIT_ARGS', own)
    with environment.heeded():
      assert not started


@pytest.mark.parametrize('module', ['jax', 'unitemp_jax.parallel.mesh'])
def test_libtpu_is_quiet_where_there_is_no_tpu(module):
  """Control: it is not where jax alone is imported."""
  pytest.importorskip('libtpu')
  done = subprocess.run(
    [sys.executable, '-c', f'import jax, {module}; print(jax.devices())'],
    env={k: v for k, v in os.environ.items() if k[:4] not in ('JAX_', 'TPU_')},
    capture_output=True,
    text=True,
  )
  if 'Cpu' not in done.stdout:
    pytest.skip('a machine with accelerators')
  assert bool(done.stderr) == (module == 'jax'), done.stderr
