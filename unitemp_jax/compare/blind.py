"""A page on which people choose between two videos without knowing whose.

Clips are copied under names that tell nothing, without their tags; which side
is whose lies in a key that stays outside the folder of the page. The sides are
derived from the key's secret, so the same command makes the same page.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from pathlib import Path

import av

from unitemp_jax import files
from unitemp_jax.compare.pairing import Pair
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips.folder import ClipFile
from unitemp_jax.report import pages
from unitemp_jax.video import read
from unitemp_jax.video.read import read_video
from unitemp_jax.video.write import write_video

KEY, PAGE = 'blind_key.json', 'blind/index.html'
FORMAT = 'unitemp blind key 1'
_PLAYABLE = ('.mp4', '.m4v', '.mov')


def make(
  out: Path,
  names: Sequence[str],
  pairs: Sequence[Pair],
  *,
  count: int,
  question: str,
  seed: int = 0,
) -> dict[Path, str]:
  """Copies clips to OUT/blind/clips; makes the page and OUT/blind_key.json.

  Args:
    out: folder.
    names: of the systems; the first is shown against each of the others.
    pairs: of their clips.
    count: trials at most, spread over the systems.
    question: what the rater is asked.
    seed: of the choice of trials and sides.

  Returns:
    The text of key and page by path, to be written.

  Raises:
    UserError: no pair can be shown, or a file cannot be written.
  """
  secret = _secret(names, pairs, seed)
  trials = _trials(names, pairs, count, secret)
  if not trials:
    raise UserError('there is no pair to be shown blind.')
  folder = out / 'blind'
  shown, key = [], {}
  for number, (pair, *sides) in enumerate(trials):
    words = [pair.prompt, pair.sample, *sides]
    trial = _name(secret, 'trial', *words)
    paths = [f'clips/{_name(secret, "clip", *words, s)}.mp4' for s in sides]
    for name, file in zip(sides, paths, strict=True):
      _copy(pair.clips[name], folder / file)
    left, right = paths
    shown.append(
      {'id': trial, 'prompt': pair.prompt, 'left': left, 'right': right}
    )
    key[trial] = {
      'number': number,
      'left': sides[0],
      'right': sides[1],
      'left_clip': pair.clips[sides[0]].name,
      'right_clip': pair.clips[sides[1]].name,
      'prompt': pair.prompt,
      'sample': pair.sample,
    }
  study = _name(secret, 'study', question, json.dumps(shown))
  about = {
    'format': FORMAT,
    'study': study,
    'question': question,
    'systems': list(names),
    'trials': key,
  }
  page = pages.render(
    'blind.html',
    title=question,
    eyebrow='blind comparison',
    problems=(),
    study={'study': study, 'trials': shown},
  )
  return {out / KEY: json.dumps(about, indent=1) + '\n', out / PAGE: page}


def _secret(names: Sequence[str], pairs: Sequence[Pair], seed: int) -> bytes:
  """What decides the sides; it needs files that raters do not have."""
  digest = hashlib.sha256(json.dumps([seed, list(names)]).encode())
  for pair in pairs:
    for name, clip in pair.clips.items():
      size = clip.path.stat().st_size
      words = [pair.prompt, pair.sample, name, clip.name, size]
      digest.update(json.dumps(words).encode())
  return digest.digest()


def _name(secret: bytes, *words: object) -> str:
  text = json.dumps([str(word) for word in words]).encode()
  return hmac.new(secret, text, 'sha256').hexdigest()[:20]


def _trials(names, pairs, count, secret) -> list[tuple]:
  """(pair, left system, right system): shuffled, sides in equal numbers."""
  chosen = []
  others = names[1:]
  for place, other in enumerate(others):
    both = [p for p in pairs if names[0] in p.clips and other in p.clips]
    both.sort(key=lambda p: _name(secret, 'choose', other, p.prompt, p.sample))
    share = count // len(others) + (place < count % len(others))
    for rank, pair in enumerate(both[:share]):
      sides = (names[0], other)
      # Their order is a shuffle already, so every second one is a fair coin.
      chosen.append((pair, *(sides if rank % 2 else sides[::-1])))
  chosen.sort(
    key=lambda t: _name(secret, 'order', t[0].prompt, t[0].sample, *t[1:])
  )
  return chosen


def _copy(clip: ClipFile, path: Path) -> None:
  """Copies the pictures of a clip, not what its file says about itself."""
  if clip.path.suffix.lower() not in _PLAYABLE:
    frames, fps = read_video(clip.path)
    write_video(path, frames, fps, scale=1)
    return
  options = {'movflags': 'faststart'}
  with (
    files.writing(path) as temporary,
    read.reading(clip.path),
    av.open(str(clip.path)) as source,
    av.open(str(temporary), 'w', 'mp4', options=options) as target,
  ):
    stream = source.streams.video[0]
    copy = target.add_stream_from_template(stream)
    copy.metadata.clear()
    for packet in source.demux(stream):
      if packet.dts is not None:
        packet.stream = copy
        target.mux(packet)
