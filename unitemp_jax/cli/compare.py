"""`unitemp compare`: clips of several systems, paired by prompt and sample."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from unitemp_jax.cli import clip_options
from unitemp_jax.cli.options import Parser, at_least
from unitemp_jax.compare import gallery, numbers, pairing, run, votes
from unitemp_jax.compare.pairing import System
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import folder as clip_folder
from unitemp_jax.evaluation.clips import naming
from unitemp_jax.evaluation.metrics.results import ResultTable
from unitemp_jax.evaluation_sets import manifests
from unitemp_jax.report.pages import plural

_EXAMPLE = """baselines, by how they name their clips:
  self_forcing  PROMPT[:100]-0.mp4 or 12-0_ema.mp4
  causvid       output_012.mp4, long_video_output_012.mp4
  longlive      rank0-PROMPT[:100]-0.mp4, rank0-12-0_lora.mp4
  folder        PROMPT-0.mp4 as VBench wants it, 0012.mp4, or anything
Clips with a record (those of unitemp) are read by it, whatever their name.

examples:
  unitemp compare ours=out/set/videos sf=sf_out --baseline=self_forcing \\
    --prompts=prompts.txt --out=out/against_sf
  unitemp compare out/set/videos --out=out/orders   (its orders, pair by pair)
  unitemp compare votes votes-*.json --key=out/against_sf/blind_key.json
  unitemp compare numbers ours.npz theirs.npz"""


def _parser() -> Parser:
  parser = Parser(
    'compare',
    'Compare folders of clips: paired table, CSV, gallery, and a blind page\n'
    'to vote on. The first is compared with each of the others.',
    _EXAMPLE,
  )
  add = parser.add
  add('folders', nargs='+', metavar='[NAME=]DIR')
  clip_options.add(parser)
  who = 'who named the clips of all folders but the first, or one for each: '
  who += ', '.join(naming.KINDS)
  add('--baseline', who, default='folder', metavar='KIND[,KIND]')
  prompts = 'list of prompts, for names with numbers or cut prompts'
  add('--prompts', prompts, Path, metavar='FILE')
  given = 'what the models were given instead, line by line'
  add('--long_prompts', given, Path, metavar='FILE')
  add('--pictures', 'pairs with stills', at_least(0), 300)
  add('--trials', 'of the blind page', at_least(0), 100)
  add('--question', default='Which video is better?')
  return parser


def _kinds(text: str, count: int) -> list[str]:
  kinds = text.split(',')
  for kind in kinds:
    if kind not in naming.KINDS:
      raise UserError(
        f'--baseline={text}: {kind!r} is none of {", ".join(naming.KINDS)}.'
      )
  if len(kinds) == 1:
    return ['folder', *kinds * (count - 1)]
  if len(kinds) != count:
    raise UserError(
      f'--baseline={text} names {len(kinds)} kinds for {count} folders; give '
      'one, or one for each.'
    )
  return kinds


def _named(text: str) -> tuple[str, Path]:
  """Splits NAME=DIR; a folder with `=` in its name is one."""
  name, separator, folder = text.partition('=')
  if not separator or Path(text).is_dir():
    return '', Path(text)
  return name, Path(folder)


def _systems(args, problems: list[str]) -> list[tuple[System, Path]]:
  found: list[tuple[System, Path]] = []
  kinds = _kinds(args.baseline, len(args.folders))
  for text, kind in zip(args.folders, kinds, strict=True):
    name, path = _named(text)
    named = bool(name)
    if (path / 'set.json').is_file():
      path = path / 'videos'
    listing = clip_folder.list_clips(path, kind, args.blocks)
    problems += listing.problems
    name = name or path.resolve().name
    if not named and name == 'videos':
      name = path.resolve().parent.name
    # The orders of a single folder need not say whose they are.
    name = '' if len(args.folders) == 1 else name
    found += [(system, path) for system in run.split(name, listing)]
  return _distinct(found)


def _distinct(
  systems: Sequence[tuple[System, Path]],
) -> list[tuple[System, Path]]:
  """Numbers systems of one name."""
  seen: dict[str, int] = {}
  named = []
  for system, path in systems:
    seen[system.name] = seen.get(system.name, 0) + 1
    count = seen[system.name]
    name = system.name if count == 1 else f'{system.name} ({count})'
    named.append((System(name, system.clips), path))
  return named


def _check(args) -> None:
  read = [path for _, path in map(_named, args.folders)]
  read += [args.real] if args.real else []
  clip_options.check(args, gallery.EYEBROW, read)
  if args.long_prompts is not None and args.prompts is None:
    raise UserError('--long_prompts needs the short ones; give --prompts.')


def _compare(argv: list[str]) -> int:
  args = _parser().parse_args(argv)
  _check(args)
  problems: list[str] = []
  systems = _systems(args, problems)
  if len(systems) < 2:
    raise UserError(
      'there is a single system; name two folders, or one with several orders.'
    )
  prompts = []
  if args.prompts is not None:
    prompts = manifests.read(args.prompts, args.long_prompts)
  real = args.real and clip_folder.list_clips(args.real)
  paired = pairing.pair([system for system, _ in systems], prompts)
  for problem in problems:
    print(f'left out: {problem}')
  _tell(systems, paired)
  if not paired.pairs:
    raise UserError(_why_unpaired(systems, paired))
  if args.dry_run:
    return 0
  options = run.Options(
    workers=args.workers,
    pictures=args.pictures,
    trials=args.trials,
    question=args.question,
    command=shlex.join(['unitemp', 'compare', *argv]),
  )
  print(run.run(systems, paired, real, args.out, options))
  print(args.out / 'index.html')
  return 0


def _why_unpaired(systems, paired) -> str:
  """One sentence for when no two clips belong together."""
  kinds = {
    naming.guess(clip.path.stem)
    for system, _ in systems
    for clip in system.clips
    if not clip.about
  }
  kinds -= {'folder'}
  mend = 'give --prompts=FILE, or another --baseline'
  if kinds:
    mend = f'some names look like those of --baseline={",".join(sorted(kinds))}'
  first = paired.unpaired[0]
  return (
    f'no two clips have the same prompt and sample ({first.clip.name}: '
    f'{first.reason}); {mend}.'
  )


def _tell(systems, paired) -> None:
  for system, folder in systems:
    mine = [p for p in paired.pairs if system.name in p.clips]
    print(
      f'{system.name}: {plural(len(system.clips), "clip")} in {folder}, '
      f'{len(mine)} paired'
    )
  reasons: dict[tuple[str, str], list[str]] = {}
  for alone in paired.unpaired:
    names = reasons.setdefault((alone.system, alone.reason), [])
    names.append(alone.clip.name)
  for (name, reason), clips in reasons.items():
    print(f'not paired: {len(clips)} of {name}, {reason}: {clips[0]}')


def _votes(argv: list[str]) -> int:
  parser = Parser(
    'compare votes',
    'Score the votes of a blind comparison.',
    'example: unitemp compare votes votes-ada.json votes-bo.json',
  )
  parser.add('votes', kind=Path, nargs='+', metavar='VOTES.json')
  key = 'blind_key.json of the comparison'
  parser.add('--key', key, Path, metavar='FILE')
  parser.add('--out', 'also write the table as JSON', Path, metavar='FILE')
  args = parser.parse_args(argv)
  path = args.key or votes.find_key(args.votes)
  if args.out is not None:
    _check_table(args.out, [path, *args.votes])
  key = votes.read_key(path)
  cast, problems = votes.read_votes(args.votes, key)
  for problem in problems:
    print(f'note: {problem}')
  table = ResultTable(tuple(votes.score(cast, 'unitemp compare votes')))
  print(f'{len(cast)} votes. {key["question"]}')
  print(table.to_markdown())
  if args.out is not None:
    table.to_json(args.out)
    print(args.out)
  return 0


def _check_table(out: Path, read: Sequence[Path]) -> None:
  """Raises UserError where a table of votes would replace something else."""
  for path in read:
    if out.exists() and path.exists() and out.samefile(path):
      raise UserError(f'--out={out} is read as well; choose another file.')
  if out.exists():
    try:
      ResultTable.from_json(out)
    except UserError as error:
      raise UserError(
        f'--out={out} is there and no table of results; choose another file.'
      ) from error


def _numbers(argv: list[str]) -> int:
  parser = Parser(
    'compare numbers',
    'Compare what two systems made of the same noise. Each npz holds `noise`,\n'
    'and `latents` or `frames`; axes in any usual order.',
    'example: unitemp compare numbers ours.npz theirs.npz',
  )
  parser.add('first', kind=Path, metavar='A.npz')
  parser.add('second', kind=Path, metavar='B.npz')
  args = parser.parse_args(argv)
  print(numbers.to_text(numbers.compare(args.first, args.second)))
  return 0


_ACTIONS = {'votes': _votes, 'numbers': _numbers}


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: bad arguments, or nothing that can be compared.
  """
  if argv and argv[0] in _ACTIONS:
    return _ACTIONS[argv[0]](argv[1:])
  return _compare(argv)
