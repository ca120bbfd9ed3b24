"""Prompts as embeddings, encoded once and read by training and generation.

A folder holds array_record shards, an index and keys. One shard holds a fixed
number of prompts, so that an interrupted encoding continues with the first
missing shard, and several machines can make some shards each. A record is a
safetensors buffer with `embedding` `[tokens, D]`, the rows before the end of
the text; beyond it all rows are zero. A prompt is found by its token ids, so
that it need not be spelled with the same white space.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy
from array_record.python import array_record_module

from unitemp_jax import files
from unitemp_jax.errors import UserError

INDEX = 'embeddings.json'
KEYS = 'keys.json'
DTYPES = {'float32': np.float32, 'bfloat16': ml_dtypes.bfloat16}
_MOST = 10**5  # shards, positions of a text or its width


def are_counts(*values: Any) -> bool:
  """Whether an index has whole numbers there that can be."""
  return all(type(value) is int and 0 < value < _MOST for value in values)


def key_of(ids: np.ndarray, mask: np.ndarray) -> str:
  """What a prompt is found by: a hash of its token ids, `[E]` each."""
  tokens = np.asarray(ids)[np.asarray(mask, bool)].astype('<i4')
  return files.sha256(tokens.tobytes())[:20]


def shard_path(folder: str | Path, shard: int) -> Path:
  """File of one shard."""
  return Path(folder) / f'embeddings-{shard:05d}.array_record'


def write_shard(path: Path, embeddings: Sequence[np.ndarray]) -> None:
  """Writes `[tokens, D]` arrays, float32 or bfloat16, atomically."""
  # The bits: not every version of safetensors knows bfloat16 in numpy.
  bits = (
    np.ascontiguousarray(embedding).view(
      np.uint16 if embedding.dtype.itemsize == 2 else np.uint32
    )
    for embedding in embeddings
  )
  write_records(
    path, (safetensors.numpy.save({'embedding': array}) for array in bits)
  )


def write_records(path: Path, records: Iterable[bytes]) -> None:
  """Writes an array_record file of single records, atomically."""
  with files.writing(path) as temporary:
    writer = array_record_module.ArrayRecordWriter(
      str(temporary), 'group_size:1'
    )
    for record in records:
      writer.write(record)
    writer.close()


def check_values(name: str, values: np.ndarray, channels: int) -> None:
  """Refuses, by ValueError, arrays that cannot be trained on."""
  if values.shape[-1:] != (channels,) or not np.isfinite(values).all():
    shape = list(values.shape)
    raise ValueError(f'{name} {shape} is no {channels} channels of numbers')


class Records:
  """What `read` makes of the arrays of records of shards, by number.

  UserError: a shard or a record is damaged, which is named with `mend`; `read`
  may raise anything for the latter.
  """

  def __init__(
    self,
    paths: Sequence[str | Path],
    mend: str,
    read: Callable[[dict[str, np.ndarray]], Any] = dict,
  ):
    import grain  # Here: who generates without a folder does not wait for it.

    self._paths, self._mend = [str(path) for path in paths], mend
    self._read = read
    self._open = grain.sources.ArrayRecordDataSource
    try:
      self._source = self._open(self._paths)
    except RuntimeError as error:
      for path in self._paths if len(self._paths) > 1 else ():
        Records([path], mend, read)
      raise self._damaged(self._paths[0], error) from error

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, number: int) -> Any:
    try:
      return self._read(safetensors.numpy.load(self._source[number]))
    except Exception as error:  # Damage shows as any kind of exception.
      paths = iter(self._paths)
      path = next(paths)
      while number >= (size := len(self._open([path]))):
        path, number = next(paths), number - size
      raise self._damaged(f'{path}, record {number},', error) from error

  def _damaged(self, what: str, error: Exception) -> UserError:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f'the shard {what} is damaged ({why}); {self._mend}.')


def write_index(
  folder: Path, about: dict[str, Any], keys: Sequence[str]
) -> None:
  """Writes index and keys before the shards; the same in every process.

  UserError if the folder holds the embeddings of other prompts or weights.
  """
  digest = files.sha256('\n'.join(keys))[:16]
  index = {**about, 'prompts': len(keys), 'keys': digest}
  if (folder / INDEX).exists():
    if _read_json(folder / INDEX) != index:
      raise UserError(
        f'{folder} holds embeddings of other prompts or another text encoder; '
        'choose another --out.'
      )
    return
  listed = json.dumps(list(keys), indent=1) + '\n'
  files.write(folder / KEYS, listed, replace=False)
  files.write_json(folder / INDEX, index)


def _read_json(path: Path, kind: type = dict) -> Any:
  if not path.exists():
    raise UserError(
      f'{path.parent} holds no embeddings ({path.name} is missing); run '
      '"unitemp encode PROMPTS" with --out there first.'
    )
  mend = 'delete the folder and run "unitemp encode PROMPTS" again'
  return files.read_json(path, mend=mend, kind=kind)


class PromptEmbeddings:
  """Random access to finished embeddings, by number or by token ids.

  Attributes:
    length: E, positions of a text.
    width: D.
    text: hash of the text encoder's weights.
  """

  def __init__(self, folder: str | Path):
    folder = Path(folder)
    index = _read_json(folder / INDEX)
    keys = _read_json(folder / KEYS, list)
    try:
      self.length, self.width = index['length'], index['width']
      self.text, self._dtype = index['text'], DTYPES[index['dtype']]
      if not are_counts(index['shards'], self.length, self.width):
        raise TypeError('a number that cannot be')
      if not all(isinstance(key, str) for key in keys):
        raise TypeError(f'{KEYS} lists what is no text')
      paths = [shard_path(folder, i) for i in range(index['shards'])]
    except (KeyError, TypeError) as error:
      raise UserError(
        f'{folder / INDEX} is not an index of embeddings ({error}); delete '
        'the folder and run "unitemp encode PROMPTS" again.'
      ) from error
    missing = [path for path in paths if not path.is_file()]
    if missing:
      raise UserError(
        f'{len(missing)} of {len(paths)} shards are missing, the first is '
        f'{missing[0]}; run "unitemp encode PROMPTS" again, all parts of it.'
      )
    self._folder = folder
    self._numbers = {key: number for number, key in enumerate(keys)}
    mend = 'delete it and run "unitemp encode PROMPTS" again'
    self._source = Records(paths, mend, self._padded)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, number: int) -> np.ndarray:
    """Embedding float32 `[E, D]` of a prompt, zero after the end."""
    return self._source[number]

  def _padded(self, record: dict[str, np.ndarray]) -> np.ndarray:
    rows = record['embedding'].view(self._dtype).astype(np.float32)
    check_values('embedding', rows, self.width)
    out = np.zeros((self.length, self.width), np.float32)
    out[: len(rows)] = rows
    return out

  def lookup(
    self, ids: np.ndarray, mask: np.ndarray, prompts: Sequence[str] = ()
  ) -> np.ndarray:
    """Embeddings float32 `[B, E, D]` of tokenized prompts.

    Args:
      ids: int `[B, E]`.
      mask: bool `[B, E]`.
      prompts: the texts, for the message.

    Raises:
      UserError: a prompt was not encoded.
    """
    self.check(ids, mask, prompts)
    pairs = zip(ids, mask, strict=True)
    return np.stack([self[self._numbers[key_of(*row)]] for row in pairs])

  def check(
    self, ids: np.ndarray, mask: np.ndarray, prompts: Sequence[str] = ()
  ) -> None:
    """Refuses what `lookup` refuses, by its arguments."""
    missing = self.missing(ids, mask)
    if missing:
      first = missing[0]
      name = f'of the tokens {np.asarray(ids[first])[:8].tolist()}'
      if len(prompts) > first:
        name = f'"{prompts[first][:80]}"'
      raise UserError(
        f'the prompt {name} is not among the {len(self)} of {self._folder}; '
        'encode it with the others, "unitemp encode PROMPTS" to another '
        'folder, and use that one. The captions of encoded videos are in '
        'captions.txt beside their latents.'
      )

  def missing(self, ids: np.ndarray, mask: np.ndarray) -> list[int]:
    """Which of tokenized prompts were not encoded."""
    pairs = enumerate(zip(ids, mask, strict=True))
    return [n for n, row in pairs if key_of(*row) not in self._numbers]

  def others(self, keys: Sequence[str]) -> list[int]:
    """The numbers of all prompts but those of these keys."""
    return [n for key, n in self._numbers.items() if key not in keys]

  def attach(self, example: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An example of training with `text` `[E, D]` in place of `ids`, `mask`."""
    rest = {k: v for k, v in example.items() if k not in ('ids', 'mask')}
    text = self.lookup(example['ids'][None], example['mask'][None])[0]
    return {**rest, 'text': text}


class PromptSource:
  """Prompts alone, for objectives that need no videos: [i] -> {'text'}."""

  def __init__(self, folder: str | Path, without: Sequence[str] = ()):
    """Opens finished embeddings, but for those of some keys.

    UserError if they are not finished, or none is left.
    """
    self._embeddings = PromptEmbeddings(folder)
    self._numbers = self._embeddings.others(without)
    if not self._numbers:
      raise UserError(f'{folder} holds no prompts but the negative one.')

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, number: int) -> dict[str, np.ndarray]:
    return {'text': self._embeddings[self._numbers[number]]}
