"""Clips as latents with token ids: what every stage after the VAE trains on.

One array_record shard holds a fixed number of clips, so that an interrupted
encoding continues with the first missing shard. A record is a safetensors
buffer: `latents` float16 or bfloat16 `[F, h, w, C]` before normalisation,
`last_image` `[1, h, w, C]` (the last frame encoded alone, as a given frame is),
`anchors` `[windows, P, h, w, C]` (if anchors are windowed: the frames before
every block but the first, each encoded by themselves), `trajectory` `[levels,
F, h, w, C]` (of a teacher's clip: its states on the way there), `ids`, `mask`
and the labels of the clip. `latents.json` is written last and holds what
belongs to the whole set: mean and standard deviation per channel.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from unitemp_jax import files
from unitemp_jax.data.prompt_embeddings import (
  PromptEmbeddings,
  Records,
  are_counts,
  check_values,
  write_records,
)
from unitemp_jax.errors import UserError, foreign

INDEX = 'latents.json'
STARTED = 'encoding.json'  # what the shards are of, from the first one on
CAPTIONS = 'captions.txt'  # of one's own videos, each once
_NORMALISED = ('latents', 'last_image', 'anchors', 'trajectory')
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {'float16': np.dtype(np.float16), 'bfloat16': _BFLOAT16}


def shard_path(folder: str | Path, shard: int) -> Path:
  """File of one shard."""
  return Path(folder) / f'latents-{shard:05d}.array_record'


def to_bytes(example: dict[str, np.ndarray]) -> bytes:
  """A record; bfloat16 as its bits, which every safetensors can write."""
  return safetensors.numpy.save(
    {
      name: array.view(np.uint16) if array.dtype == _BFLOAT16 else array
      for name, array in example.items()
    }
  )


def _typed(record: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The arrays of a record in the types that they were given in."""
  return {
    name: array.view(_BFLOAT16) if array.dtype == np.uint16 else array
    for name, array in record.items()
  }


def write_shard(path: Path, examples: Iterable[dict[str, np.ndarray]]) -> None:
  """Writes one shard atomically."""
  write_records(path, map(to_bytes, examples))


def read_shard(path: Path) -> Iterator[dict[str, np.ndarray]]:
  """Yields the examples of one shard."""
  source = _opened([str(path)], _typed)
  for i in range(len(source)):
    yield source[i]


def write_index(
  folder: str | Path,
  shards: int,
  about: dict[str, Any],
  statistics: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Path:
  """Writes the index, atomically, with mean and standard deviation.

  They are computed from all shards, unless the latents' own are known.
  """
  mean, std = statistics or _statistics(folder, shards)
  index = {
    **about,
    'shards': shards,
    'latent_mean': [round(float(m), 5) for m in mean],
    # A channel that is the same everywhere has none.
    'latent_std': [max(round(float(s), 5), 1e-5) for s in std],
  }
  return files.write_json(Path(folder) / INDEX, index, indent=2)


def _statistics(folder: str | Path, shards: int):
  count, total, square = 0, np.zeros(1), np.zeros(1)
  for shard in range(shards):
    for example in read_shard(shard_path(folder, shard)):
      z = example['latents'].astype(np.float64)
      flat = z.reshape(-1, z.shape[-1])
      count += len(flat)
      total = total + flat.sum(0)
      square = square + (flat**2).sum(0)
  mean = total / count
  std = np.sqrt(np.maximum(square / count - mean**2, 1e-12))
  return mean, std


def is_complete(folder: str | Path, about: dict[str, Any], others: str) -> bool:
  """Whether a folder holds a finished set that is the same.

  Args:
    folder: of the set.
    about: what its index must say.
    others: what the set is of if it is another, for the message.

  Raises:
    UserError: it holds another set.
  """
  if not (Path(folder) / INDEX).exists():
    return False
  old = read_index(folder)
  if any(old.get(key) != value for key, value in about.items()):
    raise UserError(
      f'{folder} holds latents of {others}; choose another --out.'
    )
  return True


def check_started(
  folder: str | Path, about: dict[str, Any], beside: Sequence[str] = ()
) -> None:
  """Refuses, by UserError, a folder with the beginning of another set.

  Args:
    folder: of the set.
    about: what `start` noted.
    beside: patterns of the names of what is written beside the shards.
  """
  folder = Path(folder)
  place = folder / STARTED
  if place.exists():
    mend = 'choose another --out, or delete its folder'
    if files.read_json(place, 'the beginning of latents', mend) != about:
      raise UserError(
        f'{folder} holds the beginning of other latents (another VAE, other '
        'videos or settings); choose another --out, or delete it.'
      )
    return
  for pattern in ('latents-*.array_record', *beside):
    for path in folder.glob(pattern):
      why = f'was not written by this command ({STARTED} is missing)'
      raise foreign(path, why)


def start(folder: str | Path, about: dict[str, Any]) -> None:
  """Notes what the shards are of, before the first one is written."""
  files.write_json(Path(folder) / STARTED, about)


def read_index(folder: str | Path) -> dict[str, Any]:
  """Reads the index of an encoded set.

  UserError if there is none, or it is not JSON.
  """
  path = Path(folder) / INDEX
  if not path.exists():
    raise UserError(
      f'{folder} holds no finished latents ({INDEX} is missing); run '
      '"unitemp encode" with --out there first.'
    )
  index = files.read_json(
    path,
    'an index of latents',
    'delete it and run "unitemp encode" again',
    keys=('shards', 'latent_mean', 'latent_std'),
  )
  mean, std = index['latent_mean'], index['latent_std']
  if not (
    are_counts(index['shards'])
    and all(map(_are_numbers, (mean, std)))
    and len(mean) == len(std)
    and min(std) > 0
  ):
    raise UserError(
      f'{path} is no index of latents; delete it and run "unitemp encode" '
      'again.'
    )
  return index


def _are_numbers(values: Any) -> bool:
  return (
    isinstance(values, list)
    and bool(values)
    and all(type(v) in (int, float) and abs(v) < 1e9 for v in values)
  )


def first_of(folders: Sequence[str | Path]) -> str | Path:
  """The first folder that holds a finished set; else the first one."""
  there = (folder for folder in folders if (Path(folder) / INDEX).exists())
  return next(there, folders[0])


def _opened(paths: Sequence[str], read: Callable[..., Any]) -> Records:
  mend = f'delete it and {INDEX} beside it, and run "unitemp encode" again'
  return Records(paths, mend, read)


class LatentSource:
  """Random access to normalised latents: [i] -> latents, text, labels."""

  def __init__(
    self,
    folder: str | Path,
    embeddings: str | Path | None = None,
    like: 'LatentSource | None' = None,
  ):
    """Opens a finished set.

    Args:
      folder: of the latents.
      embeddings: of their captions, see `prompt_embeddings`; examples then
        have `text` `[E, D]` in place of `ids` and `mask`.
      like: another set, whose mean and standard deviation are used.

    Raises:
      UserError: a folder is not finished.
    """
    self._embeddings = PromptEmbeddings(embeddings) if embeddings else None
    self.index = read_index(folder)
    paths = [str(shard_path(folder, i)) for i in range(self.index['shards'])]
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
      raise UserError(
        f'the shard {missing[0]} is missing; run "unitemp encode" again.'
      )
    self._shapes: dict[str, tuple[int, ...]] = {}  # of every record
    self._source = _opened(paths, self._normalised)
    known = like.index if like else self.index
    self._mean = np.asarray(known['latent_mean'], np.float32)
    self._std = np.asarray(known['latent_std'], np.float32)

  def _normalised(self, record: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    example = _typed(record)
    shapes = {name: array.shape for name, array in example.items()}
    self._shapes = self._shapes or shapes
    if shapes != self._shapes or not {'latents', 'ids', 'mask'} <= {*shapes}:
      raise ValueError(f'its arrays are {sorted(shapes)}, and others before')
    for name in {'latents'} | ({*_NORMALISED} & {*example}):
      raw = example[name].astype(np.float32)
      check_values(name, raw, len(self._mean))
      example[name] = (raw - self._mean) / self._std
    return example

  @property
  def shape(self) -> tuple[int, int, int]:
    """`[F, h, w]` of every clip."""
    frames, height, width, _ = self[0]['latents'].shape
    return frames, height, width

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    example = self._source[i]
    if self._embeddings is not None:
      example = self._embeddings.attach(example)
    return example
