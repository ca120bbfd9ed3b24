"""The clips of an evaluation set: their files, seeds, keys and shards.

A clip depends on (global seed, prompt id, sample, order) and on the model, not
on who makes it: on how many machines, in which batch, after how many kills.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets.manifests import Prompt
from unitemp_jax.evaluation_sets.suites import Suite

# What file systems hold; the name of a clip's record is one byte longer.
MAX_BYTES = 254


@dataclasses.dataclass(frozen=True)
class Clip:
  """One clip of a set.

  Attributes:
    path: below `videos/` and without its ending, such as 'forward/a dog-0'.
    order: name of the temporal order.
    prompt: of the suite.
    sample: number from 0.
    seed: of its noise.
    key: hash of all that decides its content; '' if that is not known.
  """

  path: str
  order: str
  prompt: Prompt
  sample: int
  seed: int
  key: str = ''


def clip_seed(seed: int, prompt_id: str, sample: int, order: str) -> int:
  """Seed of a clip, 0 .. 2**32 - 1."""
  words = json.dumps([seed, prompt_id, sample, order]).encode()
  return int.from_bytes(hashlib.sha256(words).digest()[:4], 'big')


def content_key(*parts: Any) -> str:
  """Hash of JSON values that decide a clip's content, 16 hex digits."""
  return files.sha256(json.dumps(parts))[:16]


def list_clips(
  suite: Suite,
  prompts: Sequence[Prompt],
  orders: Sequence[str],
  *,
  seed: int = 0,
  samples: int | None = None,
) -> list[Clip]:
  """Lists all clips of a set, order by order and prompt by prompt.

  Args:
    suite: whose rules name the files.
    prompts: as `suites.arrange` returns them.
    orders: names of temporal orders.
    seed: the global one.
    samples: per prompt; None = what the suite wants.

  Raises:
    UserError: file names that collide, are too long or cannot be read back.
  """
  clips = []
  for order in orders:
    for number, prompt in enumerate(prompts):
      for sample in range(samples or suite.samples(prompt)):
        path = f'{order}/{suite.file(prompt, number, sample)}'
        seed_ = clip_seed(seed, prompt.id, sample, order)
        clips.append(Clip(path, order, prompt, sample, seed_))
  _check_names(suite, clips)
  return clips


def _check_names(suite: Suite, clips: Sequence[Clip]) -> None:
  """Refuses names before anything is generated; says how many and which."""
  bad: dict[str, list[str]] = {}
  owners: dict[str, Clip] = {}
  for clip in clips:
    name = clip.path.partition('/')[2]
    for reason in _faults(suite, clip):
      bad.setdefault(reason, []).append(name)
    other = owners.setdefault(clip.path, clip)
    if other is not clip:
      reason = 'more than one prompt would be written to it'
      bad.setdefault(reason, []).append(name)
  if bad:
    reason, names = next(iter(bad.items()))
    names = list(dict.fromkeys(names))
    raise UserError(
      f'{len(names)} file name(s) cannot be used, for example '
      f'{names[0] + ".mp4"!r}: {reason}; change those prompts'
      ' or use --suite=plain, which numbers the files.'
    )


def _faults(suite: Suite, clip: Clip) -> list[str]:
  folders, _, name = clip.path.rpartition('/')
  found: list[str] = []
  wanted = 1 if suite.per_dimension else 0
  for mark, called in (('/', '"/"'), ('\n', 'a line feed'), ('\0', 'a null')):
    inside = folders.count('/') != wanted if mark == '/' else mark in name
    if inside:
      found.append(f'it has {called} in it, which a file name must not contain')
  if name.startswith('.') or '..' in folders.split('/'):
    found.append('names that begin with a dot are hidden from benchmarks')
  length = len(f'{name}.mp4'.encode())
  if length > MAX_BYTES:
    found.append(f'it has {length} bytes and file systems hold {MAX_BYTES + 1}')
  for text, reason in suite.forbidden:
    if text in name:
      found.append(f'it contains {text!r}, and {reason}')
  return found


def with_keys(
  listed: Sequence[Clip], tables: Mapping[str, str], model: str, decode: str
) -> list[Clip]:
  """Clips with the hash of all that decides their content.

  Args:
    listed: without.
    tables: the plan of each order as JSON.
    model: its hash.
    decode: how latents become pixels.

  Raises:
    UserError: an image or a real clip cannot be read.
  """
  digests: dict[Path, str] = {}
  found = []
  for clip in listed:
    source = clip.prompt.image or clip.prompt.clip
    if source is not None and source not in digests:
      try:
        digests[source] = files.file_sha256(source)
      except OSError as error:
        raise UserError(
          f'{source} cannot be read ({error.strerror}).'
        ) from error
    words = (model, decode, tables[clip.order], clip.prompt.text, clip.seed)
    key = content_key(*words, digests[source] if source else '')
    found.append(dataclasses.replace(clip, key=key))
  return found


def parse_shard(text: str) -> tuple[int, int]:
  """Reads 'i/n', i from 0 to n - 1; raises UserError for anything else."""
  try:
    index, count = (int(word) for word in text.split('/'))
  except ValueError:
    index, count = -1, 0
  if not 0 <= index < count:
    raise UserError(
      f'--shard={text} is not i/n with i from 0 to n - 1, such as 0/4.'
    )
  return index, count


def shard(clips: Sequence[Clip], index: int, count: int) -> list[Clip]:
  """Every count-th clip: shards are disjoint, even, and leave none out."""
  return list(clips[index::count])
