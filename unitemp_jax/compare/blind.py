"""Blind comparison (a two-alternative forced choice) and its votes.

Clips are copied under names that tell nothing, without their tags; which side
is whose lies in a key that stays outside the folder of the page, whose secret
the sides are derived from: the same command makes the same page. Shares are of
the decided votes, with Wilson's 95 % interval and the exact binomial p-value of
no preference; pairs won by the majority are counted as well, since votes of
several raters on one pair are not independent.
"""

import collections
import dataclasses
import hashlib
import hmac
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av

from unitemp_jax import files
from unitemp_jax.compare.pairing import Pair
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips.folder import ClipFile
from unitemp_jax.evaluation.metrics import bootstrap
from unitemp_jax.evaluation.metrics.bootstrap import Interval
from unitemp_jax.evaluation.metrics.results import Result, ResultTable, result
from unitemp_jax.report import pages
from unitemp_jax.video import read
from unitemp_jax.video.read import read_video
from unitemp_jax.video.write import write_video

KEY, PAGE = 'blind_key.json', 'blind/index.html'
KEY_FORMAT = 'unitemp blind key 1'
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
  shown, key, copies = [], {}, {}
  for number, (pair, *sides) in enumerate(trials):
    words = [pair.prompt, pair.sample, *sides]
    trial = _name(secret, 'trial', *words)
    paths = [f'clips/{_name(secret, "clip", *words, s)}.mp4' for s in sides]
    for name, file in zip(sides, paths, strict=True):
      copies[folder / file] = pair.clips[name]
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
  former = _former(out, study)
  for path, clip in copies.items():
    _copy(clip, path)
  about = {
    'format': KEY_FORMAT,
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
  return {
    **former,
    out / KEY: json.dumps(about, indent=1) + '\n',
    out / PAGE: page,
  }


def _former(out: Path, study: str) -> dict[Path, str]:
  """The key of a former page of another study, whose votes need it still."""
  path = out / KEY
  if not os.path.lexists(path):
    return {}
  try:
    old = str(read_key(path)['study'])
  except UserError as error:
    raise UserError(
      f'{path} is there already and no key of a blind comparison; move it away.'
    ) from error
  return {} if old == study else {out / _kept(old): files.read_text(path)}


def _kept(study: str) -> str:
  name = re.sub(r'[^\w]+', '-', study)[:60]
  return f'{KEY.removesuffix(".json")}-{name}.json'


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


VOTES_FORMAT = 'unitemp votes 1'
_CHOICES = ('left', 'right', 'tie')


@dataclasses.dataclass(frozen=True)
class Vote:
  """One choice of one rater."""

  rater: str  # who
  trial: str  # which pair of videos
  # the first of the study, then the one it was shown against
  systems: tuple[str, str]
  choice: str  # name of the preferred system, '' for no difference
  side: str  # 'left', 'right' or 'tie'


def find_key(votes: Sequence[Path]) -> Path:
  """Looks for the key beside the votes, two folders up, and here.

  UserError if it is not there.
  """
  places = [
    place for path in votes for place in list(path.resolve().parents)[:3]
  ]
  for place in [*places, Path()]:
    if (place / KEY).is_file():
      return place / KEY
  raise UserError(
    f'there is no {KEY} beside the votes; give it with --key=FILE.'
  )


def read_key(path: Path) -> dict[str, Any]:
  """Reads the key that `make` wrote; UserError if it is missing or is none."""
  mend = f'give the {KEY} of the comparison with --key=FILE'
  parts = ('format', 'study', 'question', 'systems', 'trials')
  key = files.read_json(path, 'a key', mend, keys=parts)
  if key['format'] != KEY_FORMAT or not _is_key(key):
    raise UserError(f'{path} is no key of a blind comparison; {mend}.')
  return key


def _is_key(key: Mapping[str, Any]) -> bool:
  systems, trials = key['systems'], key['trials']
  if not isinstance(systems, list) or not isinstance(trials, dict):
    return False
  return all(
    isinstance(trial, dict)
    and trial.get('left') in systems
    and trial.get('right') in systems
    and systems[0] in (trial['left'], trial['right'])
    for trial in trials.values()
  ) and all(isinstance(system, str) for system in systems)


def read_votes(
  paths: Sequence[Path], key: Mapping[str, Any]
) -> tuple[list[Vote], list[str]]:
  """Reads all votes; of two by one rater on one pair, the one given last.

  Returns:
    The votes, and one sentence for each that cannot be used.

  Raises:
    UserError: not one vote can be used.
  """
  found: dict[tuple[str, str], Vote] = {}
  problems = []
  for path in paths:
    try:
      about = files.read_json(path, 'votes', 'save them again')
      if about.get('format') != VOTES_FORMAT or not isinstance(
        about.get('votes'), list
      ):
        raise UserError(f'{path} is no file of votes.')
      if about.get('study') != key['study']:
        raise UserError(
          f'{path} belongs to another comparison; give its key, which may be '
          f'{_kept(str(about.get("study")))}.'
        )
    except UserError as error:
      problems.append(str(error))
      continue
    rater = str(about.get('rater') or path.stem)
    again = 0
    for entry in about['votes']:
      vote = _vote(rater, entry, key)
      if vote is None:
        problems.append(
          f'{path}: {repr(entry)[:60]} is no vote of this comparison.'
        )
        continue
      again += (rater, vote.trial) in found
      found[rater, vote.trial] = vote
    if again:
      problems.append(
        f'{path}: {rater} had voted on {again} of these pairs before; the '
        'votes of the file named last count.'
      )
  if not found:
    why = f' (first problem: {problems[0]})' if problems else ''
    raise UserError(f'there is no vote to be counted{why}.')
  return list(found.values()), problems


def _vote(rater: str, entry: Any, key: Mapping[str, Any]) -> Vote | None:
  if not isinstance(entry, dict) or entry.get('choice') not in _CHOICES:
    return None
  trial = key['trials'].get(str(entry.get('trial')))
  if trial is None:
    return None
  side = entry['choice']
  first = key['systems'][0]
  other = trial['right'] if trial['left'] == first else trial['left']
  choice = '' if side == 'tie' else trial[side]
  return Vote(rater, str(entry['trial']), (first, other), choice, side)


def score(votes: Sequence[Vote], how: str) -> list[Result]:
  """The rows of a table: all raters, each rater, and how far to trust them."""
  rows = []
  for systems in dict.fromkeys(vote.systems for vote in votes):
    chosen = [vote for vote in votes if vote.systems == systems]
    match = f'{systems[0]} over {systems[1]}'
    rows += _preferred(f'{match}, all raters', chosen, systems, how)
    rows += _majority(f'{match}, pairs of videos', chosen, systems, how)
    raters = dict.fromkeys(vote.rater for vote in chosen)
    for rater in raters if len(raters) > 1 else ():
      own = [vote for vote in chosen if vote.rater == rater]
      rows += _preferred(f'{match}, {rater}', own, systems, how)
  return rows + _trust(votes, how)


def check_table(out: Path, read: Sequence[Path]) -> None:
  """Raises UserError where a table of votes would replace something else."""
  for path in read:
    if out.exists() and path.exists() and out.samefile(path):
      raise UserError(f'--out={out} is read as well; choose another file.')
  if os.path.lexists(out):
    try:
      ResultTable.from_json(out)
    except UserError as error:
      raise UserError(
        f'--out={out} is there and no table of results; choose another file.'
      ) from error


def _share(metric, group, hits: int, total: int, about: str) -> list[Result]:
  """A share with Wilson's interval; nothing without a vote."""
  from scipy import stats

  if not total:
    return []
  span = stats.binomtest(hits, total).proportion_ci(method='wilson')
  measured = Interval(hits / total, span.low, span.high, total)
  return [result(metric, group, measured, unit='%', how=about)]


def _p_value(group, wins: int, losses: int, how: str) -> list[Result]:
  from scipy import stats

  if not wins + losses:
    return []
  p = float(stats.binomtest(wins, wins + losses).pvalue)
  about = f'exact binomial test of no preference; {how}'
  measured = bootstrap.exact(p, wins + losses)
  return [result('p-value', group, measured, unit='ratio', how=about)]


def _preferred(group, votes, systems, how) -> list[Result]:
  counts = collections.Counter(vote.choice for vote in votes)
  wins, losses = counts[systems[0]], counts[systems[1]]
  about = f'of the decided votes, Wilson interval; {how}'
  ties = f'of all votes; {how}'
  return [
    *_share('preferred', group, wins, wins + losses, about),
    *_share('no difference', group, counts[''], len(votes), ties),
    *_p_value(group, wins, losses, how),
  ]


def _majority(group, votes, systems, how) -> list[Result]:
  """Pairs of videos as units: each counts once, for who got more votes."""
  sums = collections.Counter[str]()
  for vote in votes:
    sums[vote.trial] += (vote.choice == systems[0]) - (
      vote.choice == systems[1]
    )
  wins = sum(total > 0 for total in sums.values())
  losses = sum(total < 0 for total in sums.values())
  about = f'of the pairs with a majority, Wilson interval; {how}'
  share = _share('preferred', group, wins, wins + losses, about)
  return share + _p_value(group, wins, losses, how)


def _trust(votes: Sequence[Vote], how: str) -> list[Result]:
  """Whether raters agree, and whether they favour a side of the screen."""
  decided = [vote for vote in votes if vote.side != 'tie']
  left = sum(vote.side == 'left' for vote in decided)
  about = f'of the decided votes; sides are shuffled, so 50 is fair; {how}'
  trials = pages.grouped((vote.trial, vote.choice) for vote in votes).values()
  couples = [c for own in trials for c in itertools.combinations(own, 2)]
  same = sum(one == two for one, two in couples)
  agree = f'of couples of raters on one pair of videos; {how}'
  return [
    *_share('left side chosen', 'all raters', left, len(decided), about),
    *_share('raters agree', 'all raters', same, len(couples), agree),
  ]
