"""`unitemp data`: prepares data sets for training."""

import argparse
import os
import shlex

from unitemp_jax.cli.options import Parser, at_least
from unitemp_jax.errors import UserError

EXAMPLE = """examples:
  unitemp data falling_digits --out=sets --num_clips=10000
  unitemp data video_folder --videos=my_videos --out=sets \\
      --fps=16 --height=64 --width=64 --num_frames=33 --dry_run
  Wide and tall videos, each to a set of their shape:
    unitemp data video_folder --videos=my_videos --out=sets --fps=16 \\
      --buckets=480x832x81,832x480x81,480x832x49
  The second of four machines that look through the files; then, once and
  without --shard, the index is written:
    unitemp data video_folder ... --shard=1/4
  By Apache Beam (pip install unitemp_jax[beam]), here on Dataflow:
    unitemp data video_folder ... --beam="--runner=DataflowRunner \\
      --project=P --region=us-central1 --temp_location=gs://BUCKET/tmp"
Videos are read where they lie: what is written is an index of clips.
"""


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  parser = Parser('data', 'Prepares a data set and prints its folder.', EXAMPLE)
  kinds = parser.add_subparsers(
    required=True, metavar='KIND', parser_class=_Kind
  )
  what = 'procedural clips of handwritten digits'
  _add_digits(kinds.add_parser('falling_digits', help=what))
  _add_videos(kinds.add_parser('video_folder', help='your own videos'))
  args = parser.parse_args(argv)
  return args.run(args)


class _Kind(Parser):
  def __init__(self, prog: str, **_):
    super().__init__(prog.removeprefix('unitemp '), None)


def _add_digits(parser: Parser) -> None:
  parser.add('--num_clips', kind=at_least(1), required=True)
  parser.add('--split', 'train or test', default='train')
  parser.add('--size', 'pixels', int, 32)
  parser.add('--num_frames', kind=int, default=33)
  parser.add('--seed', kind=int, default=0)
  parser.share('out', 'dry_run')
  parser.set_defaults(run=_falling_digits)


def _add_videos(parser: Parser) -> None:
  parser.add('--videos', 'folder of videos, or of tars of them', required=True)
  parser.add('--fps', kind=float, required=True)
  for name in ('height', 'width', 'num_frames'):
    parser.add(f'--{name}', kind=int)
  shapes = 'instead of these three: H x W x FRAMES of several sets, such as '
  parser.add('--buckets', shapes + '480x832x81,832x480x81', default='')
  captions = 'CSV or JSONL with the columns file and caption; or a pattern such'
  captions += ' as texts/{folder}/{name}.txt; without it, name.txt beside each '
  parser.add('--captions', captions + 'name.mp4 is read')
  columns = 'of --captions: that of the file, and that of the caption'
  parser.add('--columns', columns, default='file,caption', metavar='FILE,TEXT')
  short = 'what becomes of the end of a scene that is too short'
  parser.add('--short', short, default='drop', choices=('drop', 'pad'))
  parser.add('--strict', 'stop at the first unusable file', bool)
  parser.add('--pixels', 'store the clips themselves, at most 2 GB', bool)
  parser.share('shard', help='look through every N-th file only, and stop')
  beam = 'let Apache Beam look through the files; its options, if any'
  parser.add('--beam', beam, nargs='?', const='', metavar='OPTIONS')
  parser.share('out', 'dry_run')
  parser.set_defaults(run=_video_folder)


def _megabytes(num_clips: int, num_frames: int, height: int, width: int) -> str:
  size = num_clips * num_frames * height * width * 3 / 1e6
  return f'{num_clips} clips, {size:,.1f} MB before compression'


def _falling_digits(args: argparse.Namespace) -> int:
  from unitemp_jax.data import digits_builder, falling_digits

  spec = falling_digits.FallingDigitsSpec(
    num_frames=args.num_frames, size=args.size, split=args.split, seed=args.seed
  )
  counted = _megabytes(args.num_clips, args.num_frames, args.size, args.size)
  if args.dry_run:
    print(f'would write {counted} below {os.path.abspath(args.out)}')
    return 0
  print(f'preparing {counted}', flush=True)
  folder, _ = digits_builder.prepare(args.out, spec, args.num_clips)
  print(folder)
  return 0


def _video_specs(args: argparse.Namespace) -> list:
  from unitemp_jax.data import video_list

  one = (args.height, args.width, args.num_frames)
  buckets = video_list.read_buckets(args.buckets)
  if bool(buckets) == (None not in one) or (buckets and one != (None,) * 3):
    raise UserError(
      'say --height, --width and --num_frames of the clips, or --buckets.'
    )
  columns = tuple(args.columns.split(','))
  if len(columns) != 2 or not all(columns):
    raise UserError(f'--columns={args.columns}: name two, as FILE,CAPTION.')
  return [
    video_list.VideoFolderSpec(
      videos=args.videos,
      fps=args.fps,
      height=height,
      width=width,
      num_frames=num_frames,
      captions=args.captions,
      columns=columns,
      short=args.short,
      buckets=buckets,
    )
    for height, width, num_frames in buckets or (one,)
  ]


def _video_folder(args: argparse.Namespace) -> int:
  from unitemp_jax.data import video_folder_builder
  from unitemp_jax.parallel import processes

  def report(line: str) -> None:
    print(line, flush=True)

  specs = _video_specs(args)
  scans = os.path.join(os.path.abspath(args.out), video_folder_builder.SCANS)
  if args.shard:
    found = video_folder_builder.find_clips(
      specs[0],
      strict=args.strict,
      report=report,
      scans=None if args.dry_run else scans,
      part=processes.part_of(args.shard),
    )
    then = 'when all parts are done, run the command without --shard'
    then = 'nothing is kept in a dry run' if args.dry_run else then
    print(f'{len(found.scans)} files looked through; {then}')
    return 0
  beam = None if args.beam is None else _beam_options(args.beam)
  for spec in specs:
    try:
      if args.dry_run:
        found = video_folder_builder.find_clips(
          spec, strict=args.strict, report=report
        )
        _describe(spec, found, args)
        continue
      made = video_folder_builder.prepare(
        args.out,
        spec,
        strict=args.strict,
        report=report,
        pixels=args.pixels,
        beam=beam,
      )
    except video_folder_builder.EmptyBucket as error:
      print(error)
      continue
    print(f'{len(made.source)} clips, {len(made.skipped)} files skipped')
    print(made.folder)
  return 0


def _describe(spec, found, args: argparse.Namespace) -> None:
  """Says what would be written, and what each choice of length keeps."""
  from unitemp_jax.data import video_folder

  print(f'{len(found.skipped)} files skipped')
  table = video_folder.choices(spec, list(found.scans.values()))
  for name, count, share in table:
    print(f'{name}: {count} clips, {100 * share:.1f} % of the frames')
  kept = 'with' if args.pixels else 'without'
  print(
    f'would write {len(found.clips)} clips of {spec.num_frames} frames, '
    f'{spec.height}x{spec.width}, {kept} their pixels, below '
    f'{os.path.abspath(args.out)}'
  )


def _beam_options(text: str):
  try:
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError as error:
    raise UserError(
      '--beam needs Apache Beam; run: pip install unitemp_jax[beam]'
    ) from error
  return PipelineOptions(shlex.split(text))
