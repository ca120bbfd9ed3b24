"""Parsers of the verbs, and the options that several of them share."""

import argparse
import difflib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from unitemp_jax import TINY, files
from unitemp_jax.errors import UserError
from unitemp_jax.orders import SINKS

_FILES = ('.mp4', '.mkv', '.mov', '.webm', '.gif', '.avi', '.png', '.jpg')


def _path(text: str) -> Path:
  if not text.strip():  # It would be the working folder.
    raise argparse.ArgumentTypeError('the name is empty; give one')
  if files.is_web_address(text) and not text.startswith('hf:'):
    raise UserError(
      f'{text} is a web address, which is neither read nor written; name a '
      'place on this machine.'
    )
  return Path(text)


def out_folder(text: str) -> Path:
  """The folder of `--out`, not made yet.

  Raises:
    UserError: it is a file or named like one, or cannot be written.
    ArgumentTypeError: it is empty.
  """
  files.check_here(text)
  path = _path(text)
  if path.exists() and not path.is_dir():
    raise UserError(f'{path} is a file; name a folder to write to.')
  if path.suffix.lower() in _FILES and not path.exists():
    raise UserError(
      f'{path} is named like a file; name a folder to write to, in which '
      'each file gets a name of its own.'
    )
  near = path
  while not os.path.lexists(near) and near != near.parent:
    near = near.parent
  if not near.is_dir():
    raise UserError(
      f'{path} cannot be made: {near} is no folder; name another.'
    )
  if not os.access(near, os.W_OK):
    raise UserError(
      f'{path} cannot be written: {near} is read-only or of another user; '
      'name another folder, or mend its permissions.'
    )
  return path


_AXES = ('data', 'fsdp', 'context')


def _mesh(text: str) -> dict[str, int]:
  """Reads `context=4` or `data=2,context=4`; `data` has what is left."""
  shape: dict[str, int] = {}
  for word in text.split(','):
    axis, _, size = word.partition('=')
    if (
      axis not in _AXES or axis in shape or not re.fullmatch('[1-9]\\d*', size)
    ):
      raise argparse.ArgumentTypeError(
        f'{text!r} is no mesh; write AXIS=SIZE with commas, such as context=4, '
        f'axes are {", ".join(_AXES)}'
      )
    shape[axis] = int(size)
  return {'data': -1, **shape}


# Options that mean the same wherever they are; a verb may say more of one.
_SHARED: dict[str, dict[str, Any]] = {
  'prompt': {'help': 'one prompt'},
  'prompts': {'help': 'one prompt per line', 'type': Path, 'metavar': 'FILE'},
  'embeddings': {
    'help': 'of prompts, from "unitemp encode"',
    'type': Path,
    'metavar': 'DIR',
  },
  'anchors': {'help': 'anchor latents; 0 for none', 'type': int},
  'start_level': {
    'help': 'see "unitemp plan"; 0 starts from noise',
    'type': int,
  },
  'window': {
    'help': 'latents before a block that it sees at most',
    'type': int,
  },
  'sinks': {'help': 'ends that stay in view of a window', 'choices': SINKS},
  'shard': {
    'help': 'every N-th part from the I-th on, I from 0; default: one per host',
    'metavar': 'I/N',
  },
  'config': {'required': True, 'metavar': 'FILE[:ARG]'},
  'out': {'required': True, 'type': out_folder, 'metavar': 'DIR'},
  'model': {
    'type': Path,
    'default': TINY,
    'metavar': 'DIR',
    'help': 'its folder (the tiny model)',
  },
  'seed': {
    'type': int,
    'default': 0,
    'help': 'of the first clip; the next is + 1 (0)',
  },
  'mesh': {
    'type': _mesh,
    'metavar': 'AXIS=N,...',
    'help': 'devices of one clip, such as context=4; see the guide',
  },
  'dry_run': {
    'action': 'store_true',
    'help': 'say what would be done, and stop',
  },
}


class Parser(argparse.ArgumentParser):
  """Parses the options of a verb; what it complains of is a UserError."""

  def __init__(self, verb: str, description: str | None, epilog: str = ''):
    """The description is the first line of the verb's docstring, or a text."""
    super().__init__(
      prog=f'unitemp {verb}',
      description=(description or '').split(': ', 1)[-1].strip(),
      epilog=epilog,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    self.register('type', Path, _path)

  def parse_known_args(self, args=None, namespace=None):
    """As argparse does, which takes `--option=--` for an empty list."""
    for word in args or ():
      if re.fullmatch(r'--\w+=--', word):
        self.error(f'{word}: -- is no value')
    return super().parse_known_args(args, namespace)

  def error(self, message: str) -> NoReturn:
    """Refuses the arguments; names the option that may be meant."""
    word = re.match(r'unrecognized arguments: (--\w+)', message)
    known = list(self._option_string_actions)
    near = difflib.get_close_matches(word[1], known, n=1) if word else []
    hint = f'did you mean {near[0]}? See' if near else 'see'
    raise UserError(f'{self.prog}: {message}; {hint} {self.prog} --help')

  def add(
    self,
    name: str,
    help: str | None = None,
    kind: Callable[[str], Any] = str,
    default: Any = None,
    **more,
  ) -> None:
    """Adds an option; its default ends its help. A bool is a switch."""
    if default is not None:
      help = f'{help or ""} ({default})'.strip()
    if kind is bool:
      self.add_argument(name, action='store_true', help=help)
    else:
      self.add_argument(name, type=kind, default=default, help=help, **more)

  def share(self, *names: str, **changes) -> None:
    """Adds options that verbs share; `changes` hold for each of them."""
    for name in names:
      self.add_argument(f'--{name}', **{**_SHARED[name], **changes})

  def parse_with_overrides(
    self, argv: list[str]
  ) -> tuple[argparse.Namespace, list[str]]:
    """Parses a verb's own arguments; returns the config overrides beside."""
    args, rest = self.parse_known_args(argv)
    for word in rest:
      if not word.startswith('--config.'):
        self.error(f'unknown argument {word}; overrides look like --config.a=1')
    return args, rest


def add_hosts(parser: Parser) -> None:
  """Adds the options of a command that several hosts run together."""
  hosts = 'how many hosts run this command together'
  parser.add('--hosts', hosts, int, 1, metavar='N')
  where = 'of host 0; not needed on TPU pods, GKE, Slurm and MPI'
  parser.add('--coordinator', where, metavar='ADDRESS:PORT')
  which = 'which host this is, 0 to N - 1; goes with --coordinator'
  parser.add('--host_index', which, int, metavar='I')


def seeds(first: int, count: int) -> list[int]:
  """Seeds of so many clips; UserError if one is outside of 0 .. 2**32 - 1."""
  if not 0 <= first <= 2**32 - count:
    raise UserError(
      f'--seed={first}: the seeds of {count} clips must lie in 0..{2**32 - 1}.'
    )
  return list(range(first, first + count))


def read_prompts(args: argparse.Namespace) -> list[str] | None:
  """The texts of --prompt or --prompts, None without; UserError if empty."""
  if args.prompt is None and args.prompts is None:
    return None
  if args.prompt is not None and args.prompts is not None:
    raise UserError('give --prompt or --prompts, one of the two.')
  lines = [args.prompt]
  if args.prompt is None:
    lines = files.read_lines(args.prompts)
  if not lines:
    raise UserError(f'{args.prompts} holds no prompt; write one per line.')
  if not all(line.strip() for line in lines):
    raise UserError('the prompt is empty; say what the video should show.')
  return [line.strip() for line in lines]


def read_prompt_files(paths: Sequence[Path]) -> list[str]:
  """The lines of all files that are not blank; UserError if there are none."""
  lines = [line for path in paths for line in files.read_lines(path)]
  if not lines:
    raise UserError('the files hold no prompts; write one per line.')
  return lines


def at_least(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
  """Returns what reads a whole number that lies between the two."""

  def read(text: str) -> int:
    value = int(text)
    if value < least:
      raise argparse.ArgumentTypeError(
        f'{value} is too few; use {least} or more'
      )
    if value > most:
      raise argparse.ArgumentTypeError(f'{value} is too many; use up to {most}')
    return value

  read.__name__ = 'int'  # As argparse names it.
  return read


def part_lock(out: Path, shard: tuple[int, int]) -> Path:
  """The folder that the writer of a part locks: of all, `out` itself."""
  index, count = shard
  return out if count == 1 else out / f'.part-{index}-of-{count}'


def by_time(texts: list[str], option: str, what: str) -> dict[str, str]:
  """Reads 'T:WHAT' by time."""
  found: dict[str, str] = {}
  for entry in texts:
    time, colon, value = entry.partition(':')
    if not colon or not value.strip():
      raise UserError(f'{option}={entry}: write it as T:{what}.')
    if time in found:
      raise UserError(f'{option}={entry}: there is one at {time} already.')
    found[time] = value.strip()
  return found
