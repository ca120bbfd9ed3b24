"""The `unitemp` command: finds the verb and turns bad input into one sentence.

A verb's module is imported only when it is called, so that `unitemp --help`
and light verbs do not wait for jax. Bad input is a `UserError` or the complaint
of a parser (exit code 2), or a fault of a disk or its files; anything else is
a bug and keeps its traceback.
"""

import errno
import functools
import gc
import importlib
import io
import locale
import os
import signal
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Sequence
from typing import TextIO

import unitemp_jax
from unitemp_jax import errors, storage
from unitemp_jax.cli import environment

# Verb -> (module with `main(argv: list[str]) -> int`, help in one line).
VERBS = {
  'train': ('unitemp_jax.cli.train', 'train one stage from a config file'),
  'generate': ('unitemp_jax.cli.generate', 'make videos from prompts'),
  'evaluate': ('unitemp_jax.cli.evaluate', 'measure a model and its videos'),
  'ablate': ('unitemp_jax.cli.ablate', 'train and measure arms and seeds'),
  'compare': ('unitemp_jax.cli.compare', 'compare clips of several systems'),
  'encode': ('unitemp_jax.cli.encode', 'encode clips to latents for training'),
  'ode_pairs': ('unitemp_jax.cli.ode_pairs', "a teacher's trajectories"),
  'convert': ('unitemp_jax.cli.convert', 'read and write PyTorch weights'),
  'parity': ('unitemp_jax.cli.parity', 'compare a checkpoint with PyTorch'),
  'teacher': ('unitemp_jax.cli.teacher', 'make videos with the slow teacher'),
  'export': ('unitemp_jax.cli.export', 'join trained stages to a model folder'),
  'plan': ('unitemp_jax.cli.plan', 'print and draw a generation order'),
  'studio': ('unitemp_jax.cli.studio', 'the timeline in a browser'),
  'report': ('unitemp_jax.cli.report', 'write a page that shows the videos'),
  'bench': ('unitemp_jax.cli.bench', 'measure speed and memory'),
  'aot': ('unitemp_jax.cli.aot', 'compile for a TPU topology without one'),
  'data': ('unitemp_jax.cli.data', 'prepare a data set'),
}

EXIT_NO_OUTPUT, EXIT_BAD_INPUT = 1, 2
# 128 + SIGPIPE and 128 + SIGINT, what shells expect.
EXIT_CLOSED_PIPE, EXIT_INTERRUPTED = 141, 130
_MOST_TYPED = 60
_interrupts: list[int] = []  # The signals of ^C that have come.
_OF_THE_MACHINE = {  # Faults of disks and files, which no code of ours mends.
  *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
  *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EMFILE, errno.EIO),
  *(errno.EFBIG, errno.EISDIR),
}


def usage() -> str:
  """Returns the text of `unitemp --help`."""
  width = max(map(len, VERBS))
  lines = [
    'usage: unitemp VERB [options]',
    '',
    'Any-order video generation with one student.',
    '',
    'verbs:',
    *(f'  {verb:<{width}}  {text}' for verb, (_, text) in VERBS.items()),
    '',
    'options:',
    '  --help     this text; `unitemp VERB --help` for one verb',
    '  --version  the version',
    '',
    'example: unitemp generate --orders=all --num_prompts=8 --out=out/first',
  ]
  return '\n'.join(lines)


def find_verb(verb: str) -> Callable[[list[str]], int]:
  """Returns the `main` of a verb."""
  if verb not in VERBS:
    near = errors.nearest(verb, VERBS)
    hint = f'did you mean {near!r}?' if near else 'see unitemp --help.'
    raise errors.UserError(f'there is no verb {verb!r}; {hint}')
  return importlib.import_module(VERBS[verb][0]).main


def main(argv: Sequence[str]) -> int:
  """Runs one verb and returns the exit code: 0, 2 on bad input, 130 on ^C.

  Args:
    argv: the arguments after the program's name.

  Raises:
    SystemExit: from the verb's own argument parser, after its help.
  """
  warnings.showwarning = functools.partial(_show, warnings.showwarning)
  try:
    if not argv or argv[0] in ('-h', '--help', 'help'):
      print(usage())
      return 0 if argv else EXIT_BAD_INPUT
    if argv[0] == '--version':
      print(f'unitemp {unitemp_jax.__version__}')
      return 0
    for word in argv:
      if any('\ud800' <= c <= '\udfff' for c in word):
        raise errors.UserError(f'the argument {word!r} is not text in UTF-8.')
    with environment.heeded():
      verb = find_verb(argv[0])
      if not any('gs://' in word for word in argv):
        return verb(list(argv[1:]))
      with storage.mirrored(argv) as words:
        return verb(words[1:])
  except errors.UserError as error:
    _say(f'error: {_shown(str(error), argv)}')
    return EXIT_BAD_INPUT
  except (MemoryError, OverflowError) as error:
    _say(f'error: a number is too large for this machine ({error}).')
    return EXIT_BAD_INPUT
  except KeyboardInterrupt:
    _say('interrupted')
    return EXIT_INTERRUPTED
  except Exception as error:
    if _interrupts:  # A library has made it an error of its own.
      _say('interrupted')
      return EXIT_INTERRUPTED
    text = _fault_of_the_machine(error)
    if text is None:
      raise
    _say(f'error: {_shown(text, argv)}')
    return EXIT_BAD_INPUT


def _fault_of_the_machine(error: Exception) -> str | None:
  """The sentence for a disk or a device that is full, None for other errors."""
  cause = errors.system_error(error)  # Libraries hide it in a text of theirs.
  if cause is not None and cause.errno in _OF_THE_MACHINE:
    return (
      f'{cause.filename or "a file"} cannot be read or written '
      f'({cause.strerror}); make room, mend its permissions or choose another '
      'name.'
    )
  # Of XLA, which is not imported.
  if isinstance(error, RuntimeError) and 'RESOURCE_EXHAUSTED' in str(error):
    return (
      f'the memory of the device does not hold this ({str(error)[:160]}); use '
      'fewer pixels, frames or clips at a time.'
    )
  return None


def _show(usual: Callable, message, category, *arguments, **more) -> None:
  """Shows a remark without Python's lines about where it arose."""
  if issubclass(category, errors.Remark):
    _say(f'note: {message}')
  else:
    usual(message, category, *arguments, **more)


def _shown(text: str, argv: Sequence[str]) -> str:
  """One line of a message, with what was typed cut to some 60 characters.

  Paths stay whole unless they are longer than any that exists.
  """
  for word in argv:
    for part in (word, word.partition('=')[2]):
      most = 300 if os.sep in part else _MOST_TYPED
      if len(part) > most:
        for typed in (part, repr(part)[1:-1]):
          text = text.replace(typed, part[:_MOST_TYPED] + '...')
  return errors.plain(' '.join(text.split('\n')))


def _say(text: str) -> None:
  try:
    print(errors.plain(f'unitemp: {text}'), file=sys.stderr, flush=True)
  except OSError:
    _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
  """Drops what could not be written; Python would try again at its end."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Output(io.TextIOWrapper):
  """Standard output; where it cannot be written, the program ends."""

  def write(self, text: str) -> int:
    try:
      return super().write(errors.plain(text))
    except OSError as error:
      raise self._end(error) from None

  def flush(self) -> None:
    try:
      super().flush()
    except OSError as error:
      raise self._end(error) from None

  def _end(self, error: OSError) -> SystemExit:
    _silence(self)
    if isinstance(error, BrokenPipeError):
      return SystemExit(EXIT_CLOSED_PIPE)
    _say(f'error: the output cannot be written ({error.strerror}).')
    return SystemExit(EXIT_NO_OUTPUT)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
  """^C; within an import, of which libraries crash, at once."""
  _interrupts.append(number)
  names = {f.f_globals.get('__name__') for f, _ in traceback.walk_stack(frame)}
  if 'importlib._bootstrap' in names:
    os.write(2, b'unitemp: interrupted\n')
    os._exit(EXIT_INTERRUPTED)
  raise KeyboardInterrupt


def run() -> None:
  """Entry point of the console command."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupt)
  # Imports and tracing make many objects and drop few of them.
  gc.set_threshold(10_000)
  if not sys.flags.utf8_mode and locale.getencoding().lower() != 'utf-8':
    # Files are UTF-8 whatever the terminal speaks.
    words = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, words, {**os.environ, 'PYTHONUTF8': '1'})
  if isinstance(sys.stdout, io.TextIOWrapper):
    settings = {
      name: getattr(sys.stdout, name)
      for name in ('encoding', 'line_buffering', 'write_through')
    }
    out = sys.stdout.detach()
    sys.stdout = _Output(out, errors='backslashreplace', **settings)
  try:
    code: int | str | None = main(sys.argv[1:])
  except SystemExit as error:
    code = error.code
  if sys.stdout is not None:
    sys.stdout.flush()
  if code == EXIT_INTERRUPTED:
    os._exit(code)  # Libraries crash when they end what they are doing.
  sys.exit(code)


if __name__ == '__main__':
  run()
