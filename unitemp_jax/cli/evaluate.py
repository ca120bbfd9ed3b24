"""`unitemp evaluate`: every number that is claimed for a model."""

import argparse
import collections
import contextlib
import dataclasses
import re
import shlex
import textwrap
from pathlib import Path

from unitemp_jax import files, timeline
from unitemp_jax.aot.clips import estimates
from unitemp_jax.cli import clip_options
from unitemp_jax.cli.options import Parser, add_hosts, at_least, seeds
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import fidelity, naming, tables
from unitemp_jax.evaluation.clips import folder as clip_folder
from unitemp_jax.evaluation.clips.measure import Measurer
from unitemp_jax.evaluation.metrics import frechet, registry, results
from unitemp_jax.evaluation.suites import runner
from unitemp_jax.evaluation.suites.bench import Settings
from unitemp_jax.evaluation_sets import clips, store, verify, work
from unitemp_jax.evaluation_sets.clips import SUITES
from unitemp_jax.generate.text import memory_report
from unitemp_jax.parallel import processes
from unitemp_jax.parallel.mesh import enable_compile_cache
from unitemp_jax.plans import decoding
from unitemp_jax.report import measurements
from unitemp_jax.sampling import model_folder

_FOLDER = """example:
  unitemp evaluate folder out/set/videos --real=real_clips --out=out/measured
  unitemp evaluate folder sf_outputs --naming=self_forcing --out=out/sf
  unitemp evaluate folder DIR --features=a.npz --real_features=b.npz --out=OUT
By several machines: each measures its part, then the numbers of all are joined:
  unitemp evaluate folder DIR --out=OUT --shard=1/4
  unitemp evaluate folder DIR --out=OUT
Run the same command again to continue after an interruption."""


def _folder_parser() -> Parser:
  parser = Parser(
    'evaluate folder',
    'Measure a folder of clips: flicker at block boundaries, loops, joins,\n'
    'motion, drift, direction, fidelity. No network is needed. Writes\n'
    'OUT/metrics.json, metrics.md, clips.csv and index.html.',
    _FOLDER,
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
  parser.share('shard', help='measure every N-th clip only, and stop')
  return parser


def _check_folder(args) -> None:
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


def measure(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  args = _folder_parser().parse_args(argv)
  _check_folder(args)
  listing = clip_folder.list_clips(args.folder, args.naming, args.blocks)
  real = args.real and clip_folder.list_clips(args.real)
  features = [
    frechet.read_features(path)
    for path in (args.features, args.real_features)
    if path is not None
  ]
  if features:
    frechet.check_alike(*features)
  named = sorted({clip.order for clip in listing.clips} - {''})
  print(f'{len(listing.clips)} clips in {args.folder}; orders: {named or "-"}')
  if args.dry_run:
    for problem in listing.problems:
      print(f'left out: {problem}')
    return 0
  how = shlex.join(['unitemp', 'evaluate', 'folder', *argv])
  measurer = Measurer(args.out / 'measured', args.workers)
  problems, references = list(listing.problems), {}
  if args.reference is not None:
    references = _references(listing, args.reference, problems)
  if args.shard is not None:
    return _measure_part(args, listing, real, measurer, references)
  own, more = tables.measure_clips(
    listing.clips, measurer, references, direction=bool(real)
  )
  if not own:
    raise UserError(
      f'no clip in {listing.folder} could be measured (first problem: '
      f'{more[0]}).'
    )
  groups, real_group = tables.grouped(own, listing.folder), None
  problems += [*more, *tables.mixed(own)]
  if real:
    real_group, more = tables.measure_real(real, own, measurer, direction=True)
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
  print(results.to_markdown(sections))
  print(args.out / 'index.html')
  return 0


def _measure_part(args, listing, real, measurer, references) -> int:
  """Measures a part, of which `Measurer` keeps all; the join finds it."""
  first, parts = processes.part_of(args.shard)
  mine = listing.clips[first::parts]
  own, problems = tables.measure_clips(mine, measurer, references, bool(real))
  if real and own:
    some = dataclasses.replace(real, clips=real.clips[first::parts])
    with contextlib.suppress(UserError):  # None is as long as a clip.
      problems += tables.measure_real(some, own, measurer, direction=True)[1]
  for problem in problems:
    print(f'note: {problem}')
  print(
    f'{len(own)} of {len(listing.clips)} clips are measured; when all parts '
    f'are, run the command without --shard: {args.out}'
  )
  return 0


_SHOWN = 20  # clips that a dry run lists
_GENERATE = f"""suites (name of a clip, samples per prompt):
{chr(10).join(f'  {name:12} {suite.about}' for name, suite in SUITES.items())}

examples:
  unitemp evaluate generate --suite=vbench --manifest=VBench_full_info.json \\
    --long_prompts=all_dimension_longer.txt --order=forward,backward --out=DIR
  unitemp evaluate generate --suite=inbetween --manifest=CLIPS/ \\
    --order=all --out=DIR --shard=0/4
  unitemp evaluate status DIR
  unitemp evaluate verify DIR
Run the same command again to continue after an interruption, on any number of
machines that share DIR: what is finished stays."""
_VERIFY = """examples:
  unitemp evaluate verify DIR
  unitemp evaluate verify VIDEOS --suite=vbench \\
    --manifest=VBench_full_info.json --frames=81 --fps=16 --size=480x832
The second form checks a folder that any other system wrote."""


def _generate_args(argv: list[str]) -> argparse.Namespace:
  parser = Parser(
    'evaluate generate', 'All clips that a benchmark asks for.', _GENERATE
  )
  add = parser.add
  add('--suite', required=True, choices=SUITES, metavar='SUITE')
  add(
    '--manifest',
    'prompts: .txt, .csv, .jsonl, .json of VBench, or a folder of .txt files '
    'named after dimensions; inbetween: a folder of real clips',
    Path,
    required=True,
    metavar='FILE',
  )
  add(
    '--long_prompts',
    'what the model is given instead: line n for prompt n',
    Path,
    metavar='FILE',
  )
  add('--images', 'i2v: the first frames', Path, metavar='DIR')
  add('--captions', 'inbetween: of the clips', Path, metavar='FILE')
  add('--prompt', 'inbetween: for clips without a caption')
  add('--order', 'names with commas, or "all"', default='forward')
  parser.share('out', 'model', 'dry_run')
  add('--samples', "per prompt; the suite's own by default", at_least(1, 1000))
  add('--num_prompts', 'only so many of the first prompts', at_least(1))
  parser.share('seed', help='of the whole set (0)')
  add('--frames', "of a clip, 1 + 4k; the model's by default", int)
  parser.share('anchors', 'start_level', 'window')
  parser.share('sinks', default='none')
  add('--decode', default='joint', choices=decoding.MODES)
  add('--batch_size', 'clips per batch (8, or what fits)', at_least(1))
  parser.share('mesh', 'shard')
  add_hosts(parser)
  return parser.parse_args(argv)


def _work(args: argparse.Namespace) -> work.Work:
  return work.plan_work(
    args.model,
    args.suite,
    clips.find(
      args.suite,
      args.manifest,
      long_prompts=args.long_prompts,
      images=args.images,
      captions=args.captions,
      prompt=args.prompt,
    )[: args.num_prompts],
    work.order_names(args.order, SUITES[args.suite].conditioning),
    seed=args.seed,
    samples=args.samples,
    frames=args.frames,
    anchors=args.anchors,
    start=args.start_level,
    window=args.window,
    sinks=args.sinks,
    decode=args.decode,
  )


def generate(argv: list[str]) -> int:
  """Runs the action and returns its exit code."""
  args = _generate_args(argv)
  if args.shard is not None and args.hosts != 1:
    raise UserError('--hosts makes the parts; leave out --shard.')
  seeds(args.seed, 1)
  processes.join(args.hosts, args.coordinator, args.host_index)
  shard = processes.part_of(args.shard)
  todo = _work(args)
  print(
    f'{todo.settings["prompts"]} prompts, {len(todo.clips)} clips of '
    f'{todo.settings["frames"]} frames, to {args.out}'
  )
  if args.decode == 'lag':
    for note in decoding.lag_notes(todo.order_of):
      print(note)
  for remarks in list(todo.remarks.values())[:_SHOWN]:
    print('\n'.join(f'note: {remark}' for remark in remarks))
  if len(todo.remarks) > _SHOWN:
    print(f'note: ... and {len(todo.remarks) - _SHOWN} more prompts')
  if args.dry_run:
    for clip in todo.clips[:_SHOWN]:
      print(f'  {clip.path}.mp4  seed {clip.seed}  {clip.prompt.text}')
    if len(todo.clips) > _SHOWN:
      print(f'  ... and {len(todo.clips) - _SHOWN} more')
    card = model_folder.read_card(args.model)
    told = memory_report(card, embeddings=False)
    lines = estimates(card, todo.order_of, len(todo.clips))
    print(
      ''.join(f'{line}\n' for line in ([told] if told else []) + lines), end=''
    )
    return 0
  enable_compile_cache()
  made, there = work.run_work(todo, args.out, shard, args.batch_size, args.mesh)
  print(f'made {made}, {there} were there')
  print(args.out)
  return 0


def status(argv: list[str]) -> int:
  """What of a set is there; returns 0 if it is complete, 1 if not."""
  example = 'example: unitemp evaluate status DIR'
  parser = Parser('evaluate status', 'What of a set is there.', example)
  parser.add_argument('folder', type=Path, metavar='DIR')
  seen = store.read_status(parser.parse_args(argv).folder)
  print(store.to_text(seen))
  return 1 if seen.missing else 0


def _verify_args(argv: list[str]) -> argparse.Namespace:
  parser = Parser(
    'evaluate verify',
    'Would a benchmark find every clip, and whole? Ends with code 1 if not.',
    _VERIFY,
  )
  add = parser.add
  parser.add_argument('folder', type=Path, metavar='DIR')
  add('--suite', ', '.join(SUITES), choices=SUITES, metavar='SUITE')
  add('--manifest', kind=Path, metavar='FILE')
  add('--samples', "per prompt; the suite's own by default", at_least(1, 1000))
  add('--frames', kind=at_least(1))
  add('--fps', kind=float)
  add('--size', 'pixels, such as 480x832', metavar='HxW')
  add('--all', 'list every problem', bool)
  add('--repair', 'forget bad clips, so that "generate" makes them again', bool)
  return parser.parse_args(argv)


def _foreign(args) -> tuple[int, list[verify.Problem]]:
  """Checks a folder by the rules of a suite."""
  suite = SUITES[args.suite]
  if suite.conditioning == 'image':
    raise UserError('use --suite=vbench: the names are the same.')
  caption = 'unknown' if suite.conditioning == 'clip' else None
  prompts = clips.find(args.suite, args.manifest, prompt=caption)
  listed = clips.list_clips(suite, prompts, ['.'], samples=args.samples)
  names = [f'{clip.path.removeprefix("./")}.mp4' for clip in listed]
  size = re.fullmatch(r'([1-9]\d{0,4})x([1-9]\d{0,4})', args.size or '')
  if args.size is not None and not size:
    raise UserError(f'--size={args.size} is not HxW, as 480x832.')
  if args.fps is not None and not 0 < args.fps <= timeline.MOST_FPS:
    raise UserError(f'--fps={args.fps}: use more than 0, such as 16.')
  sides = map(int, size.groups()) if size else ()
  wanted = verify.Wanted(args.frames, args.fps, *sides)
  return len(names), verify.verify_folder(args.folder, names, wanted)


def check(argv: list[str]) -> int:
  """Runs the action; returns 0 if all is well, 1 if not."""
  args = _verify_args(argv)
  if (args.suite is None) != (args.manifest is None):
    raise UserError('--suite and --manifest belong together.')
  for option in ('samples', 'frames', 'fps', 'size'):
    if args.suite is None and getattr(args, option) is not None:
      raise UserError(f'--{option} belongs to --suite; leave it out.')
  if args.suite is None:
    wanted, problems = verify.verify_set(args.folder)
  elif args.repair:
    raise UserError('--repair works on sets that "generate" made only.')
  else:
    wanted, problems = _foreign(args)
  counts = collections.Counter(problem.kind for problem in problems)
  shown: collections.Counter = collections.Counter()
  for problem in problems:
    shown[problem.kind] += 1
    if args.all or shown[problem.kind] <= _SHOWN:
      print(f'{problem.kind}: {problem.file}: {problem.what}')
  for kind, number in counts.items():
    if number > _SHOWN and not args.all:
      print(f'{kind}: {number - _SHOWN} more; see --all')
  if args.repair:
    removed = verify.forget(store.Store(args.folder), problems)
    print(f'{removed} clips will be made again by "unitemp evaluate generate"')
  kinds = ', '.join(f'{number} {kind}' for kind, number in counts.items())
  print(f'{wanted} clips wanted: {kinds or "all there and whole"}')
  return 1 if problems else 0


_COMMAND = 'unitemp evaluate'

_SUITES = '\n'.join(
  f'  {name:<12} {suite.about}' for name, suite in runner.SUITES.items()
)
_CLIP, _OTHERS = (
  textwrap.fill(
    '; '.join(names), 78, initial_indent='  ', subsequent_indent='  '
  )
  for names in (registry.CLIP, list(registry.METRICS)[len(registry.CLIP) :])
)
_EXAMPLE = f"""suites:
{_SUITES}

metrics of each clip in "unitemp evaluate folder":
{_CLIP}

metrics of suites and of whole folders, by how their names begin:
{_OTHERS}

example:
  unitemp evaluate --out=out/evaluation
  unitemp evaluate --only=vae,teacher --num_clips=64 --out=out/quick
Run the same command again to continue after an interruption: finished suites
are kept in OUT/SUITE.json.

other actions, each with --help:
  unitemp evaluate generate  the clips that a benchmark asks for, in bulk
  unitemp evaluate status    what of them is there, and the time left
  unitemp evaluate verify    would the benchmark find every clip, and whole
  unitemp evaluate folder    measure the clips of any system"""


def _parser() -> Parser:
  about = f'{__doc__} Writes OUT/metrics.json and OUT/metrics.md.'
  parser = Parser('evaluate', about, _EXAMPLE)
  parser.share('out', 'model')
  add = parser.add
  # A control swaps blocks between clips.
  add('--num_clips', 'held-out captions per order', at_least(2, 100_000), 256)
  add('--batch_size', 'clips per batch', at_least(1), 32)
  parser.share('seed', help='of the generated clips (0)')
  only = 'suites with commas; all by default'
  parser.add_argument(
    '--only', default=','.join(runner.SUITES), metavar='SUITE,...', help=only
  )
  less = 'teacher.safetensors of the model, if its folder has none'
  add('--teacher', less, Path, metavar='FILE')
  first = 'weights that its distillation began with, for the suite power'
  add('--initial', first, Path, metavar='FILE')
  page = 'also write the tables to this Markdown file'
  add('--markdown', page, Path, metavar='FILE')
  parser.share('dry_run')
  return parser


def _suites(text: str) -> list[str]:
  names = [runner.current_name(name) for name in text.split(',')]
  for name in names:
    if name not in runner.SUITES:
      raise UserError(
        f'--only names {name!r}; use some of {", ".join(runner.SUITES)}.'
      )
  return list(dict.fromkeys(names))


# First word -> what it runs; without one of these words, a model is measured.
ACTIONS = {
  'generate': generate,
  'status': status,
  'verify': check,
  'folder': measure,
}


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  if argv and argv[0] in ACTIONS:
    return ACTIONS[argv[0]](argv[1:])
  args = _parser().parse_args(argv)
  names = _suites(args.only)
  seeds(args.seed, args.num_clips)
  settings = Settings(args.num_clips, args.batch_size, args.seed)
  if args.markdown is not None:
    files.check_generated(args.markdown, _COMMAND)
  what = runner.Measured(args.model, settings, args.teacher, args.initial)
  done = runner.finished(args.out, what.key(names))
  if args.dry_run:
    for name in names:
      state = 'there already' if name in done else 'to be measured'
      print(f'  {name}: {state}')
    print(f'{settings.num_clips} held-out clips, to {args.out}')
    return 0
  enable_compile_cache()
  runner.run(what, args.out, names)
  shown = (args.out / results.TABLES).read_text()
  if args.markdown is not None:
    files.write_generated(args.markdown, f'# Results\n\n{shown}', _COMMAND)
  print(shown)
  print(args.out)
  return 0
