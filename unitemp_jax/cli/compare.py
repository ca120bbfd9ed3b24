"""`unitemp compare`: clips of several systems, paired by prompt and sample."""

import shlex
from pathlib import Path

from unitemp_jax.cli import clip_options
from unitemp_jax.cli.options import Parser
from unitemp_jax.compare import blind, gallery, numbers, pairing, run
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import folder as clip_folder
from unitemp_jax.evaluation.clips import naming
from unitemp_jax.evaluation.metrics.results import ResultTable
from unitemp_jax.evaluation_sets import manifests
from unitemp_jax.parallel import locks

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


_OPTIONS = f"""
folders+ FOLDER  DIR, or NAME=DIR
{clip_options.OPTIONS}
--baseline KIND[,KIND]=folder
  who named the clips of all folders but the first, or one for each:
  {', '.join(naming.KINDS)}
--prompts FILE  list of prompts, for names with numbers or cut prompts
--long_prompts FILE  what the models were given instead, line by line
--pictures N:0=300  pairs with stills
--trials N:0=100  of the blind page
--question TEXT=Which video is better?
"""
_ABOUT = """Compare folders of clips: paired table, CSV, gallery, and a blind
page to vote on. The first is compared with each of the others."""
_VOTES = """
votes+ VOTES.json
--key FILE  blind_key.json of the comparison
--out FILE  also write the table as JSON
"""
_NUMBERS = """Compare what two systems made of the same noise. Each npz holds
`noise`, and `latents` or `frames`; axes in any usual order."""


def _check(args) -> None:
  read = [path for _, path in map(pairing.named, args.folders)]
  read += [args.real] if args.real else []
  clip_options.check(args, gallery.EYEBROW, read)
  if args.long_prompts is not None and args.prompts is None:
    raise UserError('--long_prompts needs the short ones; give --prompts.')


def _compare(argv: list[str]) -> int:
  parser = Parser('compare', _ABOUT, _OPTIONS, _EXAMPLE, **clip_options.KINDS)
  args = parser.parse_args(argv)
  _check(args)
  found, problems = pairing.read(args.folders, args.baseline, args.blocks)
  prompts = []
  if args.prompts is not None:
    prompts = manifests.read(args.prompts, args.long_prompts)
  real = args.real and clip_folder.list_clips(args.real)
  paired = pairing.pair([system for system, _ in found], prompts)
  for problem in problems:
    print(f'left out: {problem}')
  for line in pairing.summary(found, paired):
    print(line)
  if not paired.pairs:
    raise UserError(pairing.why_unpaired(found, paired))
  if args.dry_run:
    return 0
  with locks.lock(args.out):
    text = run.run(
      *(found, paired, real, args.out),
      workers=args.workers,
      pictures=args.pictures,
      trials=args.trials,
      question=args.question,
      command=shlex.join(['unitemp', 'compare', *argv]),
    )
  print(text)
  print(args.out / 'index.html')
  return 0


def _votes(argv: list[str]) -> int:
  parser = Parser(
    'compare votes',
    'Score the votes of a blind comparison.',
    _VOTES,
    'example: unitemp compare votes votes-ada.json votes-bo.json',
    **{'VOTES.json': Path},
  )
  args = parser.parse_args(argv)
  path = args.key or blind.find_key(args.votes)
  if args.out is not None:
    blind.check_table(args.out, [path, *args.votes])
  key = blind.read_key(path)
  cast, problems = blind.read_votes(args.votes, key)
  for problem in problems:
    print(f'note: {problem}')
  table = ResultTable(tuple(blind.score(cast, 'unitemp compare votes')))
  print(f'{len(cast)} votes. {key["question"]}')
  print(table.to_markdown())
  if args.out is not None:
    table.to_json(args.out)
    print(args.out)
  return 0


def _numbers(argv: list[str]) -> int:
  parser = Parser(
    'compare numbers',
    _NUMBERS,
    'first FILE\nsecond FILE',
    'example: unitemp compare numbers ours.npz theirs.npz',
  )
  args = parser.parse_args(argv)
  print(numbers.to_text(numbers.compare(args.first, args.second)))
  return 0


_ACTIONS = {'votes': _votes, 'numbers': _numbers}


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  if argv and argv[0] in _ACTIONS:
    return _ACTIONS[argv[0]](argv[1:])
  return _compare(argv)
