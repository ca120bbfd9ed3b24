"""The clips of an evaluation set: their files, seeds, keys and shards.

What each benchmark expects of a folder was read in its own code;
`tests/evaluation_sets/readers.py` reads folders by these rules. A clip that is
not found under its exact name is left out of the score (VBench) or ends it
(VBench 2.0). A clip depends on (global seed, prompt id, sample, order) and on
the model, not on who makes it: on how many machines, in which batch, after how
many kills.
"""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import manifests
from unitemp_jax.evaluation_sets.manifests import Prompt
from unitemp_jax.generate import clip_file

_MOST = 200_000  # clips of a set, which are listed in memory


@dataclasses.dataclass(frozen=True)
class Suite:
  """The rules of one benchmark."""

  about: str  # one line for `--help`
  file: str  # format of a stem, of prompt, its number, a title, and sample
  fewest: int = 1  # samples of a prompt
  more: Mapping[str, int] = dataclasses.field(default_factory=dict)
  named: bool = False  # files are, by the prompt, so that equal ones are one
  per_dimension: bool = False  # a folder for each dimension
  # what a name must not contain, with the reason
  forbidden: tuple[tuple[str, str], ...] = ()
  conditioning: str = ''  # what clips are conditioned on: '', 'image' or 'clip'

  def samples(self, prompt: Prompt) -> int:
    """Of a prompt; some dimensions want more."""
    return max([self.fewest, *(self.more.get(d, 0) for d in prompt.dimensions)])


_BY_NAME = '{prompt.name}-{sample}'


def _vbench(about: str, *forbidden: tuple[str, str]) -> Suite:
  # Enough of 25 survive the filter that keeps static clips only.
  more = {'temporal_flickering': 25}
  return Suite(about, _BY_NAME, 5, more, named=True, forbidden=forbidden)


SUITES = {
  'vbench': _vbench(
    'PROMPT-0.mp4 ... -4.mp4; 25 samples for temporal flickering'
  ),
  'vbench2': Suite(
    'DIMENSION/first 180 characters-0.mp4 ... -2.mp4; 20 for Diversity',
    '{prompt.dimensions[0]}/{prompt.name:.180}-{sample}',
    fewest=3,
    more={'Diversity': 20},
    named=True,
    per_dimension=True,
  ),
  'vbench_long': _vbench(
    'as vbench, for long videos that VBench-Long cuts into pieces',
    ('_', 'VBench-Long takes what stands before it for the whole name'),
    ('.mp4', 'VBench-Long cuts names there'),
  ),
  'moviegen': Suite(
    'NUMBER-0.mp4: the number of the prompt from 0; 1 sample',
    '{number:04d}-{sample}',
  ),
  'i2v': Suite(
    'PROMPT-0.mp4 ... -4.mp4, starting from the image of the prompt',
    _BY_NAME,
    fewest=5,
    named=True,
    conditioning='image',
  ),
  'inbetween': Suite(
    'NAME-0.mp4 for each real clip NAME; its ends are given to the orders '
    'inbetween*',
    _BY_NAME,
    named=True,
    conditioning='clip',
  ),
  'plain': Suite('NUMBER-some-words-0.mp4; 1 sample', '{title}-{sample}'),
}


def arrange(suite: Suite, prompts: list[Prompt]) -> tuple[list[Prompt], int]:
  """Turns the entries of a manifest into those of a suite.

  Entries that a benchmark could not tell apart are joined, with the dimensions
  of all; where it numbers them instead, each keeps an id of its own.

  Returns:
    The prompts, and how many entries were joined to an earlier one.

  Raises:
    UserError: the suite needs dimensions and an entry has none.
  """
  if suite.per_dimension:
    prompts = _spread(prompts)
  if not suite.named:
    return _numbered(prompts), 0
  joined: dict[tuple, Prompt] = {}
  for prompt in prompts:
    key = (prompt.dimensions if suite.per_dimension else (), prompt.name)
    if suite.conditioning:
      # Other images or clips under one name are a collision, found later.
      key += (prompt.image, prompt.clip)
    first = joined.setdefault(key, prompt)
    more = first.dimensions + prompt.dimensions
    joined[key] = dataclasses.replace(
      first, dimensions=tuple(dict.fromkeys(more))
    )
  return list(joined.values()), len(prompts) - len(joined)


def _spread(prompts: list[Prompt]) -> list[Prompt]:
  """One entry per prompt and dimension, each with seeds of its own."""
  found = []
  for prompt in prompts:
    if not prompt.dimensions:
      raise UserError(
        f'the prompt {prompt.name!r} has no dimension, which names its folder; '
        "give the benchmark's JSON, a folder with a .txt file for each, or a "
        'column "dimension".'
      )
    found += [
      dataclasses.replace(
        prompt, dimensions=(dimension,), id=f'{dimension}/{prompt.id}'
      )
      for dimension in prompt.dimensions
    ]
  return found


def _numbered(prompts: list[Prompt]) -> list[Prompt]:
  """Repeated ids get numbers, so that no two entries share their seeds."""
  seen = collections.Counter[str]()
  found = []
  for prompt in prompts:
    seen[prompt.id] += 1
    if seen[prompt.id] > 1:
      number = f'{prompt.id}#{seen[prompt.id]}'
      prompt = dataclasses.replace(prompt, id=number)
    found.append(prompt)
  return found


def find(
  suite_name: str,
  manifest: Path,
  *,
  long_prompts: Path | None = None,
  images: Path | None = None,
  captions: Path | None = None,
  prompt: str | None = None,
  say: Callable[[str], None] = print,
) -> list[Prompt]:
  """Reads the prompts of a suite.

  Args:
    suite_name: of `SUITES`.
    manifest: see `manifests.read`, or a folder of clips for a suite with
      given clips.
    long_prompts: see `manifests.read`.
    images: folder of first frames; None = that of the manifest.
    captions: see `manifests.read_clips`.
    prompt: for clips without a caption.
    say: is told what the user should know.

  Raises:
    UserError: unreadable or unfitting files.
  """
  suite = SUITES[suite_name]
  beside = {
    '--long_prompts': (long_prompts, suite.conditioning != 'clip'),
    '--images': (images, suite.conditioning == 'image'),
    '--captions': (captions, suite.conditioning == 'clip'),
    '--prompt': (prompt, suite.conditioning == 'clip'),
  }
  for option, (value, fits) in beside.items():
    if value is not None and not fits:
      raise UserError(f'--suite={suite_name} has no use for {option}.')
  if suite.conditioning == 'clip':
    listed = manifests.read_clips(manifest, captions, prompt)
  else:
    listed = manifests.read(manifest, long_prompts)
  if suite.conditioning == 'image':
    listed = manifests.with_images(listed, images or manifest.parent)
  found, joined = arrange(suite, listed)
  if joined:
    counts = collections.Counter(entry.name for entry in listed)
    name, count = counts.most_common(1)[0]
    say(
      f'the manifest repeats {joined} of its {len(listed)} entries, such as '
      f'{name!r} ({count} times); each prompt is made once'
    )
  needs = suite_name in ('vbench', 'vbench_long')
  if needs and not any(entry.dimensions for entry in found):
    say(
      f'the manifest names no dimensions: {suite.samples(found[0])} samples '
      'for every prompt; with VBench_full_info.json temporal flickering gets 25'
    )
  return found


# What file systems hold; the name of a clip's record is one byte longer.
MAX_BYTES = 254


@dataclasses.dataclass(frozen=True)
class Clip:
  """One clip of a set."""

  path: str  # below `videos/` and without its ending, such as 'forward/a dog-0'
  order: str  # name of the temporal order
  prompt: Prompt  # of the suite
  sample: int  # number from 0
  seed: int  # of its noise
  key: str = ''  # hash of all that decides its content; '' if that is not known


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
  count = sum(samples or suite.samples(prompt) for prompt in prompts)
  if (count := count * len(orders)) > _MOST:
    raise UserError(
      f'{len(prompts)} prompts make {count} clips, more than {_MOST}; cut the '
      'manifest into several sets, or use fewer --samples or --orders.'
    )
  clips = []
  for order in orders:
    for number, prompt in enumerate(prompts):
      title = Path(clip_file.clip_name(number, prompt.name)).stem
      of = {'prompt': prompt, 'number': number, 'title': title}
      for sample in range(samples or suite.samples(prompt)):
        path = f'{order}/{suite.file.format(**of, sample=sample)}'
        seed_ = clip_seed(seed, prompt.id, sample, order)
        clips.append(Clip(path, order, prompt, sample, seed_))
  _check_names(suite, clips)
  return clips


def _check_names(suite: Suite, clips: Sequence[Clip]) -> None:
  """Refuses names before anything is generated; says how many and which."""
  bad: dict[str, dict[str, None]] = {}
  seen: set[str] = set()
  for clip in clips:
    reasons = _faults(suite, clip)
    if clip.path in seen:
      reasons.append('more than one prompt would be written to it')
    seen.add(clip.path)
    for reason in reasons:
      bad.setdefault(reason, {})[clip.path.partition('/')[2]] = None
  if bad:
    reason, names = next(iter(bad.items()))
    raise UserError(
      f'{len(names)} file name(s) cannot be used, for example '
      f'{next(iter(names)) + ".mp4"!r}: {reason}; change those prompts'
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
