"""The dispatcher: verbs, suggestions and exit codes."""

import errno
import importlib.util
import os
import subprocess
import sys
import types

import pytest

import unitemp_jax
from unitemp_jax import errors
from unitemp_jax.cli import main as cli


def add_verb(monkeypatch, function):
  """Registers a verb `probe` whose main is `function`."""
  module = types.ModuleType('probe_module')
  module.main = function
  monkeypatch.setitem(sys.modules, 'probe_module', module)
  monkeypatch.setitem(cli.VERBS, 'probe', ('probe_module', 'a probe'))


def test_every_verb_has_its_module():
  for module, _ in cli.VERBS.values():
    assert importlib.util.find_spec(module) is not None, module


def test_the_verb_gets_its_arguments_and_returns_the_code(monkeypatch):
  seen = []
  add_verb(monkeypatch, lambda argv: seen.append(argv) or 7)
  assert cli.main(['probe', '--a=1', 'b']) == 7
  assert seen == [['--a=1', 'b']]


def test_unknown_verb_suggests_the_nearest(capsys):
  assert cli.main(['genrate']) == 2
  captured = capsys.readouterr()
  assert captured.err == (
    "unitemp: error: there is no verb 'genrate'; did you mean 'generate'?\n"
  )
  assert captured.out == ''


def test_verb_near_nothing_points_to_help(capsys):
  assert cli.main(['zzz']) == 2
  assert 'see unitemp --help' in capsys.readouterr().err


def test_user_error_is_one_line_and_exit_2(monkeypatch, capsys):
  def fails(argv):
    raise errors.UserError('no such folder; make it first.')

  add_verb(monkeypatch, fails)
  assert cli.main(['probe']) == 2
  expected = 'unitemp: error: no such folder; make it first.\n'
  assert capsys.readouterr().err == expected


@pytest.mark.parametrize('error', [ZeroDivisionError(), RuntimeError('x')])
def test_other_errors_keep_their_traceback(monkeypatch, error):
  """Negative control: a bug must not be dressed up as bad input."""

  def fails(argv):
    raise error

  add_verb(monkeypatch, fails)
  with pytest.raises(type(error)):
    cli.main(['probe'])


@pytest.mark.parametrize(
  'error, words',
  [
    (OSError(errno.ENOSPC, 'No space left', 'a/b'), 'a/b cannot be read or'),
    (OSError(errno.EROFS, 'Read-only file system'), 'Read-only file system'),
    (IsADirectoryError(errno.EISDIR, 'Is a directory', 'd'), 'd cannot be'),
    (PermissionError(errno.EACCES, 'Permission denied', 'c'), 'c cannot be'),
    (MemoryError('Unable to allocate 9 TiB'), 'Unable to allocate 9 TiB'),
    (RuntimeError('RESOURCE_EXHAUSTED: Out of memory'), 'use fewer pixels'),
    (
      ValueError('Failed to write 8 bytes: No space left on device'),
      'No space',
    ),
  ],
)
def test_faults_of_the_machine_are_sentences(monkeypatch, capsys, error, words):
  def fail(argv):
    raise error

  monkeypatch.setattr(cli, 'find_verb', lambda verb: fail)
  assert cli.main(['plan']) == 2
  said = capsys.readouterr().err
  assert words in said and said.startswith('unitemp: error: ')


def test_interrupt_is_130(monkeypatch, capsys):
  def fails(argv):
    raise KeyboardInterrupt

  add_verb(monkeypatch, fails)
  assert cli.main(['probe']) == 130
  assert 'interrupted' in capsys.readouterr().err


@pytest.mark.parametrize('flag', ['-h', '--help', 'help'])
def test_help_lists_every_verb(flag, capsys):
  assert cli.main([flag]) == 0
  text = capsys.readouterr().out
  assert all(f'  {verb} ' in text for verb in cli.VERBS)


def test_no_verb_prints_help_and_fails(capsys):
  assert cli.main([]) == 2
  assert 'usage:' in capsys.readouterr().out


def test_version(capsys):
  assert cli.main(['--version']) == 0
  assert capsys.readouterr().out == f'unitemp {unitemp_jax.__version__}\n'


def test_the_process_exits_with_the_code():
  command = [sys.executable, '-m', 'unitemp_jax.cli.main', 'repotr']
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2
  assert "did you mean 'report'?" in done.stderr


PLAN = f'{sys.executable} -m unitemp_jax.cli.main plan --order=backward'


@pytest.mark.parametrize('unbuffered', ['', '1'])
@pytest.mark.parametrize(
  ('command', 'code', 'error'),
  [
    (f'{PLAN} | true; exit ${{PIPESTATUS[0]}}', 141, ''),
    (f'{PLAN} | head -1', 0, ''),
    (f'{PLAN} >/dev/full', 1, 'No space left on device'),
    (f'{PLAN} --help >/dev/full', 1, 'No space left on device'),
    (f'{PLAN} >&-', 0, ''),
    (f'{PLAN} --nope 2>/dev/full', 2, ''),
    (f"{PLAN} --given=$'\\xff'", 2, 'not text in UTF-8'),
    (f'LC_ALL=POSIX {PLAN}', 0, ''),
    (f'PYTHONUTF8=0 LC_ALL=POSIX PYTHONCOERCECLOCALE=0 {PLAN}', 0, ''),
    (f'PYTHONIOENCODING=ascii {PLAN} --sides=é', 2, 'sides'),
  ],
)
def test_a_bad_terminal_is_one_sentence_or_silence(
  command, code, error, unbuffered
):
  done = subprocess.run(
    ['bash', '-c', command],
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONUNBUFFERED': unbuffered},
  )
  assert done.returncode == code, done.stderr
  assert error in done.stderr
  assert done.stderr.count('\n') == bool(error)


def test_what_was_typed_is_cut_and_a_path_is_not(capsys):
  path = f'{"a" * 40}/{"b" * 40}.json'
  for word, shown in (('x' * 5000, 'x' * 60 + '...'), (path, path)):
    assert cli.main(['plan', f'--plan={word}', '--order=loop']) == 2
    assert cli.main(['plan', f'--plan={word}']) == 2
    error = capsys.readouterr().err
    assert shown in error and 'x' * 61 not in error


def test_what_was_typed_cannot_break_the_line(capsys):
  assert cli.main(['a\nb\x1b[2J']) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1 and '\x1b' not in error


@pytest.mark.parametrize('unknown', ['\x1b[31m x', '\u202e', 'y' * 5000])
def test_prompts_neither_steer_the_terminal_nor_fill_it(tmp_path, unknown):
  words = ['generate', f'--prompt=a red {unknown}', '--out=o', '--dry_run']
  command = [sys.executable, '-m', 'unitemp_jax.cli.main', *words]
  done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
  said = done.stdout + done.stderr
  assert done.returncode == 0 and 'note: the model does not know' in said
  assert all(line.isprintable() for line in said.split('\n'))
  assert '    a red ' in said and 'y' * 61 not in said
  # Negative control: letters of any language are shown.
  assert errors.plain('ein rotes ß, 七\n') == 'ein rotes ß, 七\n'


def imported_by(statement):
  code = f'import sys; {statement}\nprint(" ".join(sys.modules))'
  command = [sys.executable, '-c', code]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  return set(done.stdout.split())


@pytest.mark.parametrize(
  'argv', [['--help'], ['plan', '--order=loop'], ['generate', '--help']]
)
def test_light_commands_do_not_import_heavy_packages(argv):
  modules = imported_by(
    'import contextlib; from unitemp_jax.cli import main\n'
    f'with contextlib.suppress(SystemExit): main.main({argv})'
  )
  assert 'unitemp_jax.cli.main' in modules
  assert not modules & {'jax', 'flax', 'grain', 'orbax', 'av'}
  # Negative control: the probe sees jax where it is imported.
  assert 'jax' in imported_by('import jax')


def test_generating_imports_neither_loaders_nor_checkpoints():
  modules = imported_by('import unitemp_jax.generate.workflows')
  assert not modules & {'grain', 'orbax', 'optax', 'tensorflow_datasets'}
