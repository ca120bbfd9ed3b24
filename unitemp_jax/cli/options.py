"""Parsers of the verbs, and the options that several of them share."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from unitemp_jax import TINY, files
from unitemp_jax.errors import UserError, is_blank, nearest, plain
from unitemp_jax.orders import SINKS

_FILES = ('.mp4', '.mkv', '.mov', '.webm', '.gif', '.avi', '.png', '.jpg')
_FILES += ('.safetensors', '.pt', '.pth', '.npz', '.npy', '.json', '.html')


def _path(text: str) -> Path:
  if not text.strip():  # It would be the working folder.
    raise argparse.ArgumentTypeError('the name is empty; give one')
  if files.is_web_address(text) and not text.startswith('hf:'):
    raise UserError(
      f'{text} is a web address, which is neither read nor written; name a '
      'place on this machine.'
    )
  try:  # Not every shell does so behind the = of an option.
    return Path(text).expanduser()
  except RuntimeError as error:
    raise argparse.ArgumentTypeError(f'{text}: {error}') from error


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
_SHARED = f"""
--anchors N  anchor latents; 0 for none
--config! FILE[:ARG]
--coordinator ADDRESS:PORT
  of host 0; not needed on TPU pods, GKE, Slurm and MPI
--dry_run  say what would be done, and stop
--embeddings DIR  of prompts, from "unitemp encode"
--host_index I  which host this is, 0 to N - 1; goes with --coordinator
--hosts N=1  how many hosts run this command together
--mesh MESH  devices of one clip, such as context=4; see the guide
--model DIR=TINY  its folder
--out! OUT
--prompt TEXT  one prompt
--prompts FILE  one prompt per line
--seed N=0  of the first clip; the next is + 1
--shard I/N
  every N-th part from the I-th on, I from 0; default: one per host
--sinks {'|'.join(SINKS)}  ends that stay in view of a window
--start_level N  see "unitemp plan"; 0 starts from noise
--window N  latents before a block that it sees at most
"""
_LINE = re.compile(
  r'(@?[\w,-]+)([!?+*])?(?: ([^\s=]+))?(?:=(.*?))?(?: {2,}(.*))?', re.ASCII
)
# What stands for a value in the help -> what reads it. Others are text.
_KINDS: dict[str, Any] = {
  **dict.fromkeys(('FILE', 'DIR', 'PATH', 'CLIP', 'PROMPTS'), Path),
  **{'N': int, 'I': int, 'X': float, 'MESH': _mesh, 'OUT': out_folder},
}
_SHOWN = {'OUT': 'DIR', 'MESH': 'AXIS=N,...'}


class Parser(argparse.ArgumentParser):
  """Parses the options of a verb; what it complains of is a UserError.

  Options are lines of text, `--name KIND=DEFAULT  help`, which go on in lines
  that begin with a space. Behind a name, `!` says that it is needed, `+` that
  it may be repeated, `*` that there may be none. Without a kind it is a switch.
  `N:2..9` bounds a number, `a|b` are choices, other kinds are of `_KINDS` or of
  `kinds`. `@name` is an option that verbs share, with another mark (`?`: it is
  not needed), default or help where these are given.
  """

  def __init__(
    self,
    verb: str,
    about: str | None,
    options: str,
    epilog: str = '',
    **kinds: Any,
  ):
    """`about` is the first line of the verb's docstring, or a text."""
    about = (about or '').split(': ', 1)[-1].strip()
    super().__init__(
      prog=f'unitemp {verb}',
      description=about[:1].upper() + about[1:],
      epilog=epilog,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    self.register('type', Path, _path)
    self._kinds = _KINDS | kinds
    self.options(options)

  def options(self, text: str, group: Any = None) -> None:
    """Adds options, to a group if one is given."""
    for line in _lines(text):
      if line.startswith('@') and '  ' not in line:
        for word in line.split():
          self._share(word)
      elif line.startswith('@'):
        self._share(line)
      else:
        self._one(group or self, *_read(line))

  def _share(self, line: str) -> None:
    name, *own = _read(line)
    name = f'--{name[1:]}'
    self._one(self, name, *map(_first, own, _shared[name]))

  def _one(self, group, name, mark, kind, default, help) -> None:
    if default == 'TINY':
      default, help = TINY, f'{help} (the tiny model)'
    elif default is not None:
      help = f'{help or ""} ({default})'.strip()
    if kind is None and name.startswith('-'):
      group.add_argument(*name.split(','), action='store_true', help=help)
      return
    read: Any = self._kinds.get(kind)
    settings: dict[str, Any] = {'metavar': _SHOWN.get(kind, kind)}
    if bounds := re.fullmatch(r'N:(\d+)(?:\.\.(\d+))?', kind or ''):
      least, most = bounds.groups(default=2**31 - 1)
      read, settings['metavar'] = at_least(int(least), int(most)), 'N'
    elif '|' in (kind or ''):
      settings = {'choices': kind.split('|')}
    elif read is not None and not callable(read):
      read, settings['choices'] = None, list(read)
    if mark in ('+', '*') and name.startswith('-'):
      settings |= {'action': 'append'}
      default = []
    elif mark in ('+', '*'):
      settings['nargs'] = mark
    elif mark == '!' and name.startswith('-'):
      settings['required'] = True
    group.add_argument(
      *name.split(','), type=read, default=default, help=help, **settings
    )

  def parse_known_args(self, args=None, namespace=None):
    """As argparse does, which takes `--option=--` for an empty list."""
    seen = set()
    for word in args or ():
      if re.fullmatch(r'--\w+=--', word):
        self.error(f'{word}: -- is no value')
      name, _, value = word.partition('=')
      action = self._option_string_actions.get(name)
      if type(action) is argparse._StoreAction and action in seen:
        value = ' '.join(value.splitlines()) or 'the last'
        told = f'{name} is there again; {value} holds'
        print(f'unitemp: note: {plain(told)}', file=sys.stderr)
      seen.add(action)
    return super().parse_known_args(args, namespace)

  def error(self, message: str) -> NoReturn:
    """Refuses the arguments; names the option that may be meant."""
    word = re.match(r'unrecognized arguments: (--\w+)', message)
    near = nearest(word[1], self._option_string_actions) if word else ''
    hint = f'did you mean {near}? See' if near else 'see'
    raise UserError(f'{self.prog}: {message}; {hint} {self.prog} --help')

  def parse_with_overrides(
    self, argv: list[str]
  ) -> tuple[argparse.Namespace, list[str]]:
    """Parses a verb's own arguments; returns the config overrides beside."""
    args, rest = self.parse_known_args(argv)
    for word in rest:
      if not word.startswith('--config.'):
        self.error(f'unknown argument {word}; overrides look like --config.a=1')
    return args, rest


def _lines(text: str) -> list[str]:
  """The options of a text, continued lines joined."""
  return re.sub(r'\n +', '  ', text).strip().split('\n')


def _read(line: str) -> list[Any]:
  """Name, mark, kind, default and help of an option, None where not said."""
  found = _LINE.fullmatch(line)
  assert found is not None, line
  return [text and re.sub(' +', ' ', text) for text in found.groups()]


def _first(own: str | None, shared: str | None) -> str | None:
  return shared if own is None else own


_shared = {name: own for name, *own in map(_read, _lines(_SHARED))}


def part_of(args: argparse.Namespace) -> tuple[int, int]:
  """Which part of N a command makes: by --shard, or else this host's.

  Hosts that run it together are joined, which must be the first use of jax.
  """
  own: dict[str, Any] = {'hosts': 1, 'coordinator': None, 'host_index': None}
  own |= {name: value for name, value in vars(args).items() if name in own}
  if args.shard is None and list(own.values()) == [1, None, None]:
    return 0, 1
  from unitemp_jax.parallel import processes

  processes.join(**own)
  return processes.part_of(args.shard)


def seeds(first: int, count: int) -> list[int]:
  """Seeds of so many clips; UserError if one is outside of 0 .. 2**32 - 1."""
  if not 0 <= first <= 2**32 - count:
    raise UserError(
      f'--seed={first}: the seeds of {count} clips must lie in 0..{2**32 - 1}.'
    )
  return list(range(first, first + count))


def read_prompts(args: argparse.Namespace) -> list[str] | None:
  """The texts of --prompt or --prompts, None without; UserError if empty."""
  if args.prompt is not None and args.prompts is not None:
    raise UserError('give --prompt or --prompts, one of the two.')
  if args.prompts is not None:
    _check_columns(args.prompts)
    return read_prompt_files([args.prompts])
  if args.prompt is not None and is_blank(args.prompt):
    raise UserError('the prompt is empty; say what the video should show.')
  return None if args.prompt is None else [args.prompt.strip()]


def _check_columns(path: Path) -> None:
  """Refuses a table of prompts that says more of a clip than is read."""
  from unitemp_jax.evaluation_sets import manifests

  kind = path.suffix.lower()
  found = manifests.read(path) if kind in manifests.TABLES else []
  for name in (name for prompt in found for name in prompt.settings):
    raise UserError(
      f'{path} names {name}s, which are not read with prompts; give each with '
      f'--{name}, or leave out that column.'
    )


def read_prompt_files(paths: Sequence[Path]) -> list[str]:
  """The prompts of all files; UserError if there are none.

  Tables are read as "unitemp evaluate generate" does, others line by line.
  """
  from unitemp_jax.evaluation_sets import manifests

  lines: list[str] = []
  for path in paths:
    if path.suffix.lower() in manifests.TABLES:
      lines += [prompt.text for prompt in manifests.read(path)]
    else:
      lines += files.read_lines(path)
  if not lines:
    names = ', '.join(map(str, paths))
    raise UserError(f'{names} holds no prompt; write one per line.')
  return lines


def some(lines: Sequence[str], what: str, most: int = 20) -> list[str]:
  """The first lines of many, and how many more there are."""
  more = [f'... and {len(lines) - most} more {what}'] if lines[most:] else []
  return [*lines[:most], *more]


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


def by_time(texts: list[str], option: str, what: str) -> dict[str, str]:
  """Reads 'T:WHAT' by time."""
  found: dict[str, str] = {}
  for entry in texts:
    time, colon, value = entry.partition(':')
    if not colon or is_blank(value):
      raise UserError(f'{option}={entry}: write it as T:{what}.')
    if time in found:
      raise UserError(f'{option}={entry}: there is one at {time} already.')
    found[time] = value.strip()
  return found
