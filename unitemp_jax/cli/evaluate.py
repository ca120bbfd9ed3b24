"""`unitemp evaluate`: every number that is claimed for a model."""

import argparse
import shlex
import textwrap

from unitemp_jax import files
from unitemp_jax.aot.clips import estimates
from unitemp_jax.cli import clip_options
from unitemp_jax.cli.options import Parser, part_of, seeds, some
from unitemp_jax.errors import UserError, check_known
from unitemp_jax.evaluation.clips import folder as clip_folder
from unitemp_jax.evaluation.clips import naming
from unitemp_jax.evaluation.metrics import frechet, registry, results
from unitemp_jax.evaluation.suites import runner
from unitemp_jax.evaluation.suites.bench import Settings
from unitemp_jax.evaluation_sets import clips, store, verify, work
from unitemp_jax.evaluation_sets.clips import SUITES
from unitemp_jax.generate.memory import mesh_of
from unitemp_jax.generate.text import memory_report
from unitemp_jax.parallel import locks
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


_FOLDER_ABOUT = """Measure a folder of clips: flicker at block boundaries,
loops, joins, motion, drift, direction, fidelity. No network is needed. Writes
OUT/metrics.json, metrics.md, clips.csv and index.html."""
_FOLDER_OPTIONS = f"""
folder DIR  clips, with subfolders
--reference DIR  clips of the same names, for PSNR and SSIM
--naming {'|'.join(naming.KINDS)}=folder
  who named the clips; folder: PROMPT-0.mp4 or anything
--features FILE  npy or npz, [n, d]
--real_features FILE  the same of real
{clip_options.OPTIONS}
@shard  measure every N-th clip only, and stop
"""


def _check_folder(args) -> None:
  read = [p for p in (args.folder, args.real, args.reference) if p]
  clip_options.check(args, measurements.EYEBROW, read)
  if (args.features is None) != (args.real_features is None):
    raise UserError(
      'the Frechet distance needs --features and --real_features; give both.'
    )


def measure(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  about = 'evaluate folder', _FOLDER_ABOUT, _FOLDER_OPTIONS, _FOLDER
  args = Parser(*about, **clip_options.KINDS).parse_args(argv)
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
  part = part_of(args)
  with locks.lock(args.out, part):
    text, problems = measurements.measure_folder(
      listing,
      args.out,
      shlex.join(['unitemp', 'evaluate', 'folder', *argv]),
      real=real,
      reference=args.reference,
      features=features,
      workers=args.workers,
      part=None if args.shard is None else part,
    )
  for problem in problems:
    print(f'note: {problem}')
  print(text)
  print(args.out if args.shard else args.out / 'index.html')
  return 0


_GENERATE = f"""suites (name of a clip, samples per prompt):
{chr(10).join(f'  {name:12} {suite.about}' for name, suite in SUITES.items())}

examples:
  unitemp evaluate generate --suite=vbench --manifest=VBench_full_info.json \\
    --long_prompts=all_dimension_longer.txt --orders=forward,backward --out=DIR
  unitemp evaluate generate --suite=inbetween --manifest=CLIPS/ \\
    --orders=all --out=DIR --shard=0/4
  unitemp evaluate status DIR
  unitemp evaluate verify DIR
Run the same command again to continue after an interruption, on any number of
machines that share DIR: what is finished stays."""
_VERIFY = """examples:
  unitemp evaluate verify DIR
  unitemp evaluate verify VIDEOS --suite=vbench \\
    --manifest=VBench_full_info.json --frames=81 --fps=16 --size=480x832
The second form checks a folder that any other system wrote."""


_GENERATE_OPTIONS = f"""
--suite! SUITE
--manifest! FILE
  prompts: .txt, .csv, .jsonl, .json of VBench, or a folder of .txt files named
  after dimensions; inbetween: a folder of real clips
--long_prompts FILE  what the model is given instead: line n for prompt n
--images DIR  i2v: the first frames
--captions FILE  inbetween: of the clips
--prompt TEXT  inbetween: for clips without a caption
--orders,--order NAME,...=forward  names with commas, or "all"
@out @model @dry_run
--samples N:1..1000  per prompt; the suite's own by default
--num_prompts N:1  only so many of the first prompts
@seed  of the whole set
--frames N  of a clip, 1 + 4k; the model's by default
@anchors @start_level @window @sinks=none
--decode {'|'.join(decoding.MODES)}=joint
--batch_size N:1  clips per batch (8, or what fits)
@mesh @shard @hosts @coordinator @host_index
"""


_OF_PROMPTS = ('long_prompts', 'images', 'captions', 'prompt')
_OF_SET = ('seed', 'samples', 'frames', 'anchors', 'window', 'sinks', 'decode')


def _work(args: argparse.Namespace) -> work.Work:
  return work.plan_work(
    args.model,
    args.suite,
    clips.find(
      args.suite,
      args.manifest,
      **{name: getattr(args, name) for name in _OF_PROMPTS},
    )[: args.num_prompts],
    work.order_names(args.orders, SUITES[args.suite].conditioning),
    start=args.start_level,
    **{name: getattr(args, name) for name in _OF_SET},
  )


def generate(argv: list[str]) -> int:
  """Runs the action and returns its exit code."""
  about = 'All clips that a benchmark asks for.'
  args = Parser(
    'evaluate generate', about, _GENERATE_OPTIONS, _GENERATE, SUITE=SUITES
  ).parse_args(argv)
  if args.shard is not None and args.hosts != 1:
    raise UserError('--hosts makes the parts; leave out --shard.')
  seeds(args.seed, 1)
  shard = part_of(args)
  todo = _work(args)
  print(
    f'{todo.settings["prompts"]} prompts, {len(todo.clips)} clips of '
    f'{todo.settings["frames"]} frames, to {args.out}'
  )
  if args.decode == 'lag':
    for note in decoding.lag_notes(todo.order_of):
      print(note)
  remarks = ['\nnote: '.join(said) for said in todo.remarks.values()]
  for remark in some(remarks, 'prompts'):
    print(f'note: {remark}')
  if args.dry_run:
    made = store.Store(args.out)
    made.check(todo.settings, todo.clips)
    if there := sum(map(made.is_finished, todo.clips)):
      print(f'{there} of them are there')
    listed = [
      f'{c.path}.mp4  seed {c.seed}  {c.prompt.text}' for c in todo.clips
    ]
    for line in some(listed, 'clips'):
      print(f'  {line}')
    card = model_folder.read_card(args.model)
    if args.mesh:
      mesh_of(card, args.mesh)
    if told := memory_report(card, embeddings=False):
      print(told)
    for line in estimates(card, todo.order_of, len(todo.clips)):
      print(line)
    return 0
  enable_compile_cache()
  made, there = work.run_work(todo, args.out, shard, args.batch_size, args.mesh)
  print(f'made {made}, {there} were there')
  print(args.out)
  return 0


def status(argv: list[str]) -> int:
  """What of a set is there; returns 0 if it is complete, 1 if not."""
  example = 'example: unitemp evaluate status DIR'
  about = 'What of a set is there.'
  parser = Parser('evaluate status', about, 'folder DIR', example)
  seen = store.read_status(parser.parse_args(argv).folder)
  print(store.to_text(seen))
  return 1 if seen.missing else 0


_VERIFY_OPTIONS = f"""
folder DIR
--suite SUITE  {', '.join(SUITES)}
--manifest FILE
--samples N:1..1000  per prompt; the suite's own by default
--frames N:1
--fps X
--size HxW  pixels, such as 480x832
--all  list every problem
--repair  forget bad clips, so that "generate" makes them again
"""


def check(argv: list[str]) -> int:
  """Runs the action; returns 0 if all is well, 1 if not."""
  about = 'Would a benchmark find every clip, and whole? Code 1 if not.'
  args = Parser(
    'evaluate verify', about, _VERIFY_OPTIONS, _VERIFY, SUITE=SUITES
  ).parse_args(argv)
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
    wanted, problems = verify.verify_foreign(
      *(args.folder, args.suite, args.manifest, args.samples),
      verify.Wanted.parse(args.frames, args.fps, args.size),
    )
  for line in verify.to_lines(problems, None if args.all else 20):
    print(line)
  if args.repair:
    removed = verify.forget(store.Store(args.folder), problems)
    print(f'{removed} clips will be made again by "unitemp evaluate generate"')
  print(f'{wanted} clips wanted: {verify.summary(problems)}')
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


# A control swaps blocks between clips: two at least.
_OPTIONS = """
@out @model
--num_clips N:2..100000=256  held-out captions per order
--batch_size N:1=32  clips per batch
@seed  of the generated clips
--only SUITE,...  suites with commas; all by default
--teacher FILE  teacher.safetensors of the model, if its folder has none
--initial FILE  weights that its distillation began with, for the suite power
--markdown FILE  also write the tables to this Markdown file
@dry_run
"""


def _suites(text: str) -> list[str]:
  names = [runner.current_name(name) for name in text.split(',')]
  for name in names:
    check_known('--only names', name, runner.SUITES, 'some')
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
  about = f'{__doc__} Writes OUT/metrics.json and OUT/metrics.md.'
  args = Parser('evaluate', about, _OPTIONS, _EXAMPLE).parse_args(argv)
  names = list(runner.SUITES) if args.only is None else _suites(args.only)
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
  with locks.lock(args.out):
    runner.run(what, args.out, names)
  shown = (args.out / results.TABLES).read_text()
  if args.markdown is not None:
    files.write_generated(args.markdown, f'# Results\n\n{shown}', _COMMAND)
  print(shown)
  print(args.out)
  return 0
