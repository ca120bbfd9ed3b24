"""The `unitemp` command: finds the verb and turns bad input into one sentence.

A verb's module is imported only when it is called, so that `unitemp --help`
and light verbs do not wait for jax.
"""

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence

import unitemp_jax
from unitemp_jax import errors

# Verb -> (module with `main(argv: list[str]) -> int`, help in one line).
VERBS = {
  'train': ('unitemp_jax.cli.train', 'train one stage from a config file'),
  'generate': ('unitemp_jax.cli.generate', 'make videos from prompts'),
  'evaluate': ('unitemp_jax.cli.evaluate', 'measure a model and its videos'),
  'compare': ('unitemp_jax.cli.compare', 'compare clips of several systems'),
  'encode': ('unitemp_jax.cli.encode', 'encode clips to latents for training'),
  'ode_pairs': ('unitemp_jax.cli.ode_pairs', "a teacher's trajectories"),
  'convert': ('unitemp_jax.cli.convert', 'read and write PyTorch weights'),
  'parity': ('unitemp_jax.cli.parity', 'compare a checkpoint with PyTorch'),
  'teacher': ('unitemp_jax.cli.teacher', 'make videos with the slow teacher'),
  'export': ('unitemp_jax.cli.export', 'join trained stages to a model folder'),
  'plan': ('unitemp_jax.cli.plan', 'print and draw a generation order'),
  'report': ('unitemp_jax.cli.report', 'write a page that shows the videos'),
  'bench': ('unitemp_jax.cli.bench', 'measure speed and memory'),
  'aot': ('unitemp_jax.cli.aot', 'compile for a TPU topology without one'),
  'data': ('unitemp_jax.cli.data', 'prepare a data set'),
}

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what shells expect


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
  """Returns the `main` of a verb.

  Raises:
    UserError: there is no such verb; the nearest one is suggested.
  """
  if verb not in VERBS:
    near = difflib.get_close_matches(verb, VERBS, n=1)
    hint = f'did you mean {near[0]!r}?' if near else 'see unitemp --help.'
    raise errors.UserError(f'there is no verb {verb!r}; {hint}')
  return importlib.import_module(VERBS[verb][0]).main


def main(argv: Sequence[str]) -> int:
  """Runs one verb and returns the exit code: 0, 2 on bad input, 130 on ^C.

  Args:
    argv: the arguments after the program's name.

  Raises:
    SystemExit: from the verb's own argument parser (code 0 or 2).
  """
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(usage())
    return 0 if argv else EXIT_BAD_INPUT
  if argv[0] == '--version':
    print(f'unitemp {unitemp_jax.__version__}')
    return 0
  try:
    return find_verb(argv[0])(list(argv[1:]))
  except errors.UserError as error:
    print(f'unitemp: error: {error}', file=sys.stderr)
    return EXIT_BAD_INPUT
  except KeyboardInterrupt:
    print('unitemp: interrupted', file=sys.stderr)
    return EXIT_INTERRUPTED


def run() -> None:
  """Entry point of the console command."""
  sys.exit(main(sys.argv[1:]))


if __name__ == '__main__':
  run()
