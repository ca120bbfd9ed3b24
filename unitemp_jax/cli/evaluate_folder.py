"""`unitemp evaluate folder`: measures clips of any system, without a model."""

import shlex
from pathlib import Path

from unitemp_jax.cli import clip_options
from unitemp_jax.cli.options import Parser
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import fidelity, naming, tables
from unitemp_jax.evaluation.clips import folder as clip_folder
from unitemp_jax.evaluation.clips import groups as measure_folder
from unitemp_jax.evaluation.metrics import frechet
from unitemp_jax.evaluation.suites import runner
from unitemp_jax.report import measurements

_EXAMPLE = """example:
  unitemp evaluate folder out/set/videos --real=real_clips --out=out/measured
  unitemp evaluate folder sf_outputs --naming=self_forcing --out=out/sf
  unitemp evaluate folder DIR --features=a.npz --real_features=b.npz --out=OUT
Run the same command again to continue after an interruption."""


def _parser() -> Parser:
  parser = Parser(
    'evaluate folder',
    'Measure a folder of clips: flicker at block boundaries, loops, joins,\n'
    'motion, drift, direction, fidelity. No network is needed. Writes\n'
    'OUT/metrics.json, metrics.md, clips.csv and index.html.',
    _EXAMPLE,
  )
  add = parser.add
  add('folder', 'clips, with subfolders', Path, metavar='DIR')
  reference = 'clips of the same names, for PSNR and SSIM'
  add('--reference', reference, Path, metavar='DIR')
  who = 'who named the clips (folder: PROMPT-0.mp4 or anything)'
  parser.add_argument(
    '--naming', choices=naming.KINDS, default='folder', help=who
  )
  add('--features', 'npy or npz, [n, d]', Path, metavar='FILE')
  add('--real_features', 'the same of real', Path, metavar='FILE')
  clip_options.add(parser)
  return parser


def _check(args) -> None:
  read = [p for p in (args.folder, args.real, args.reference) if p]
  clip_options.check(args, measurements.EYEBROW, read)
  if (args.features is None) != (args.real_features is None):
    raise UserError(
      'the Frechet distance needs --features and --real_features; give both.'
    )


def _references(listing, folder: Path, problems: list[str]):
  """The reference of each clip that has one, by its path."""
  references = clip_folder.list_clips(folder)
  pairs, alone = fidelity.pair(listing.clips, references.clips)
  if alone:
    problems.append(
      f'{len(alone)} clips have no reference in {folder}, such as '
      f'{alone[0].name}.'
    )
  return {clip.path: reference for clip, reference in pairs}


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: bad arguments, or no clip that can be measured.
  """
  args = _parser().parse_args(argv)
  _check(args)
  listing = clip_folder.list_clips(args.folder, args.naming, args.blocks)
  real = args.real and clip_folder.list_clips(args.real)
  features = [
    frechet.read_features(path)
    for path in (args.features, args.real_features)
    if path is not None
  ]
  if features:
    frechet.check_alike(*features)
  orders = sorted({clip.order for clip in listing.clips} - {''})
  print(f'{len(listing.clips)} clips in {args.folder}; orders: {orders or "-"}')
  if args.dry_run:
    for problem in listing.problems:
      print(f'left out: {problem}')
    return 0
  how = shlex.join(['unitemp', 'evaluate', 'folder', *argv])
  cache, problems = args.out / 'measured', list(listing.problems)
  references = {}
  if args.reference is not None:
    references = _references(listing, args.reference, problems)
  groups, more = measure_folder.measure_groups(
    listing, cache, args.workers, print, references
  )
  problems += [*more, *measure_folder.mixed(groups)]
  real_group = None
  if real:
    window, layout = measure_folder.common_window(groups)
    real_group, more = measure_folder.measure_real(
      real, window, layout, cache, args.workers, print
    )
    problems += more
  else:
    problems.append(
      'there are no real clips beside these numbers; give some with --real.'
    )
  sections, more = tables.sections(groups, real_group, how)
  problems += more
  if features:
    name = listing.folder.resolve().name
    made, true = features
    sections.append(tables.frechet_section(name, made, true, how))
  for problem in problems:
    print(f'note: {problem}')
  shown = [*groups, *([real_group] if real_group else [])]
  measurements.write(args.out, sections, tables.to_csv(shown), problems)
  print(runner.to_markdown(sections))
  print(args.out / 'index.html')
  return 0
