"""Config files and overrides: `--config=FILE[:ARG] --config.a.b=value`."""

import ast
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_collections

from unitemp_jax import timeline
from unitemp_jax.diffusion import guidance
from unitemp_jax.errors import UserError, nearest
from unitemp_jax.models import sizes

# What every training's config has.
TRAINING = ('objective', 'model', 'data', 'optimizer', 'num_steps', 'seed')
TRAINING += ('batch_size', 'accumulate', 'mesh', 'num_devices')


def flatten_config(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns all values of a config by their dotted names: `model.dim`."""
  flat: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      inner = flatten_config(value)
      flat |= {f'{key}.{rest}': leaf for rest, leaf in inner.items()}
    else:
      flat[key] = value
  return flat


def _run_file(path: Path) -> dict[str, Any]:
  """Runs a config file, from whose parent folder `configs` can be imported."""
  try:
    code = compile(path.read_text(), str(path), 'exec')
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f'The config file {path} cannot be read ({error}); check --config.'
    ) from error
  except (SyntaxError, ValueError) as error:
    line = getattr(error, 'lineno', None)
    raise UserError(
      f'The config file {path} is not Python: {error.args[0]} in line {line}; '
      'correct it there.'
    ) from error
  names = {'__name__': path.stem, '__file__': str(path)}
  root = str(path.absolute().parent.parent)
  sys.path.insert(0, root)
  try:
    exec(code, names)
  except (Exception, SystemExit) as error:
    raise UserError(
      f'The config file {path} fails when it is run: '
      f'{type(error).__name__}: {error}; correct it there.'
    ) from error
  finally:
    sys.path.remove(root)
  return names


def _call_get_config(
  path: Path, argument: str | None
) -> ml_collections.ConfigDict:
  get_config = _run_file(path).get('get_config')
  if not callable(get_config):
    raise UserError(
      f'The config file {path} has no function get_config(arg=None); add one.'
    )
  arguments = () if argument is None else (argument,)
  try:
    inspect.signature(get_config).bind(*arguments)
  except TypeError as error:
    raise UserError(
      f'The config {path} takes no argument {argument!r}; drop what follows '
      'the colon.'
    ) from error
  try:
    config = get_config(*arguments)
  except UserError:
    raise
  except (Exception, SystemExit) as error:
    if argument is not None and isinstance(error, ValueError):
      raise UserError(f'--config={path}:{argument}: {error}') from error
    raise UserError(
      f'get_config of {path} fails: {type(error).__name__}: {error}; correct '
      'the file or the argument after the colon.'
    ) from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(f'get_config of {path} must return a ConfigDict.')
  return config


def _parse(name: str, text: str, default: Any) -> Any:
  """Returns `text` as a value of the type of `default`."""
  if isinstance(default, str):
    return text
  if isinstance(default, bool):
    words = {'true': True, '1': True, 'false': False, '0': False}
    value = words.get(text.lower())
  else:
    try:
      value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      value = text if default is None else None
  if default is None:
    return value
  if isinstance(default, float) and type(value) is int:
    value = float(value)
  if isinstance(default, tuple | list) and isinstance(value, tuple | list):
    value = type(default)(value)
  if type(value) is not type(default):
    raise UserError(
      f'--config.{name}={text} is not of type {type(default).__name__}; the '
      f'default is {default!r}.'
    )
  return value


def _apply(config: ml_collections.ConfigDict, override: str) -> None:
  """Sets one value, given as `a.b=value` or `--config.a.b=value`."""
  name, equals, text = override.removeprefix('--config.').partition('=')
  if not equals:
    raise UserError(
      f'The override {override} has no value; write {name}=VALUE.'
    )
  known = flatten_config(config)
  *path, key = name.split('.')
  if path and path[-1] in ('dit', 'text'):
    name = '.'.join((*path, sizes.CURRENT_NAMES.get(key, key)))
  if key == 'guidance' and name not in known:  # Its former name.
    name, added = f'{name}_scale', guidance.FORMER_CONFIG.get(path[-1], 0.0)
    text = str(_parse(name, text, 0.0) + added)
  if name not in known:
    hint = f'it has {", ".join(config)}.'
    if near := nearest(name, known, cutoff=0.5):
      hint = f'did you mean {near}?'
    raise UserError(f'The config has no key {name!r}; {hint}')
  *path, key = name.split('.')
  node = config
  for part in path:
    node = node[part]
  try:
    node[key] = _parse(name, text, node[key])
  except TypeError as error:
    raise UserError(
      f'--config.{name}={text} has a wrong type: {error}'
    ) from error


def load_config(
  path_with_arg: str,
  overrides: Iterable[str] = (),
  needs: Iterable[str] = (),
) -> ml_collections.ConfigDict:
  """Returns the locked config of a file, with values replaced.

  Args:
    path_with_arg: `FILE` or `FILE:ARG`; defines `get_config(arg=None)`.
    overrides: `--config.a.b=value` each; the value gets the default's type, and
      what refers to it in the config follows.
    needs: keys that it must have.
  """
  name, _, argument = path_with_arg.partition(':')
  path = Path(name)
  if not path.is_file():
    near = nearest(path.name, (p.name for p in path.parent.glob('*.py')))
    hint = f'did you mean {path.parent / near}?' if near else 'check --config.'
    raise UserError(f'There is no config file {path}; {hint}')
  config = _call_get_config(path, argument or None)
  lacks = [key for key in needs if key not in config]
  if lacks:
    raise UserError(f'The config {name} lacks {", ".join(lacks)}; add them.')
  config.lock()
  for override in overrides:
    _apply(config, override)
  _check_values(config, name)
  return config


_SHARES = ('hop_share', 'turn_share', 'draft_share', 'text_drop', 'anchor_drop')
_SIGMAS = ('sigma_min', 'sigma_max', 'context_sigma', 'draft_sigma')
# Name, or the last part of names -> least and most.
_RANGES = {
  'data.num_frames': (1, timeline.MOST_FRAMES),
  'data.num_clips': (1, 10**8),
  **dict.fromkeys(
    ('data.size', 'data.height', 'data.width'), (8, timeline.MOST_SIDE)
  ),
  'fps': (1, timeline.MOST_FPS),
  'orders.block': (1, 1000),
  **dict.fromkeys(('orders.anchors', 'orders.start'), (0, 1000)),
  'cut_frames': (0, timeline.MOST_FRAMES),
  'latent_noise': (0, 10),
  **dict.fromkeys(('num_steps', 'log_every', 'keep_checkpoints'), (1, 10**9)),
  **dict.fromkeys(('batch_size', 'accumulate', 'critic_updates'), (1, 2**20)),
  'seed': (0, 2**32 - 1),
  'learning_rate': (0, 100),
  **dict.fromkeys(
    (
      *('clip_norm', 'max_loss_ratio', 'max_skipped', 'checkpoint_every'),
      *('checkpoint_minutes', 'keep_every', 'sample_every'),
      *('profile_step', 'profile_steps'),
    ),
    (0, 10**9),
  ),
  **dict.fromkeys((*_SHARES, *_SIGMAS, 'weight_decay', 'eps'), (0, 1)),
  'final_fraction': (0, 1),
  **dict.fromkeys(('ema_decay', 'b1', 'b2'), (0, 0.9999999)),
  'shift': (0.01, 1000),
  'steps': (1, 1000),
  **dict.fromkeys(('loss', 'weights'), (0, 10**9)),  # all that they hold
}


def _check_values(config: ml_collections.ConfigDict, name: str) -> None:
  """Refuses values that no training can have, by UserError."""
  for key, value in flatten_config(config).items():
    parent, _, last = key.rpartition('.')
    found = (key, last, parent.rpartition('.')[2])
    wanted = next((_RANGES[one] for one in found if one in _RANGES), None)
    if wanted is None or type(value) not in (int, float):
      continue
    if not wanted[0] <= value <= wanted[1]:
      raise UserError(
        f'{name}: config.{key} is {value}; use {wanted[0]}..{wanted[1]}.'
      )
  data, cut = config.get('data', {}), config.get('cut_frames')
  kind, frames = data.get('name', 'video_folder'), data.get('num_frames')
  if kind not in ('falling_digits', 'video_folder'):
    raise UserError(
      f'{name}: config.data.name is {kind!r}; use falling_digits or '
      'video_folder.'
    )
  for key, value in (('data.num_frames', frames), ('cut_frames', cut or 1)):
    if isinstance(value, int) and (value - 1) % timeline.STRIDE:
      raise UserError(
        f'{name}: config.{key} is {value}; the VAE takes '
        f'1 + {timeline.STRIDE} k frames, such as 33.'
      )
  if cut and frames and cut > frames:
    raise UserError(
      f'{name}: config.cut_frames is {cut} of {frames} frames '
      '(config.data.num_frames); use no more, or 0 for all.'
    )
