"""`unitemp data`: prepares data sets for training."""

import argparse
import os
import shlex

from unitemp_jax.cli.options import Parser
from unitemp_jax.errors import UserError, optional

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
  if argv and argv[0] in KINDS:
    return KINDS[argv[0]](argv[1:])
  about = 'Prepares a data set and prints its folder.'
  options = """
kind! KIND  falling_digits: procedural clips of handwritten digits;
  video_folder: your own videos; each with --help
"""
  Parser('data', about, options, EXAMPLE, KIND=KINDS).parse_args(argv)
  return 0


_DIGITS = """
--num_clips! N:1
--split SPLIT=train  train or test
--size N=32  pixels
--num_frames N=33
--seed N=0
@out @dry_run
"""
_VIDEOS = """
--videos! FOLDER  folder of videos, or of tars of them
--fps! X
--height N
--width N
--num_frames N
--buckets HxWxFRAMES,...
  instead of these three: H x W x FRAMES of several sets, such as
  480x832x81,832x480x81
--captions NAME
  CSV or JSONL with the columns file and caption; or a pattern such as
  texts/{folder}/{name}.txt; without it, name.txt beside each name.mp4 is read
--columns FILE,TEXT=file,caption
  of --captions: that of the file, and that of the caption
--short drop|pad=drop
  what becomes of the end of a scene that is too short
--strict  stop at the first unusable file
--pixels  store the clips themselves, at most 2 GB
@shard  look through every N-th file only, and stop
@out @dry_run
"""


def _falling_digits(argv: list[str]) -> int:
  from unitemp_jax.data import digits_builder, falling_digits

  about = 'Procedural clips of handwritten digits.'
  args = Parser('data falling_digits', about, _DIGITS).parse_args(argv)
  spec = falling_digits.FallingDigitsSpec(
    num_frames=args.num_frames, size=args.size, split=args.split, seed=args.seed
  )
  size = args.num_clips * args.num_frames * args.size**2 * 3 / 1e6
  counted = f'{args.num_clips} clips, {size:,.1f} MB before compression'
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
  buckets = video_list.read_buckets(args.buckets or '')
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


def _video_folder(argv: list[str]) -> int:
  from unitemp_jax.data import video_folder_builder
  from unitemp_jax.parallel import processes

  parser = Parser('data video_folder', 'Your own videos.', _VIDEOS)
  beam = 'let Apache Beam look through the files; its options, if any'
  parser.add_argument('--beam', nargs='?', const='', help=beam)
  args = parser.parse_args(argv)

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
  pipeline = None if args.beam is None else _beam_options(args.beam)
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
        beam=pipeline,
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
  with optional('--beam runs Apache Beam', 'beam'):
    from apache_beam.options.pipeline_options import PipelineOptions

  return PipelineOptions(shlex.split(text))


KINDS = {'falling_digits': _falling_digits, 'video_folder': _video_folder}
