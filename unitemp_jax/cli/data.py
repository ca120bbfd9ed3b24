"""`unitemp data`: prepares data sets for training."""

import argparse
import os

from unitemp_jax.cli.options import Parser, at_least

EXAMPLE = """examples:
  unitemp data falling_digits --out=sets --num_clips=10000
  unitemp data video_folder --videos=my_videos --out=sets \\
      --fps=16 --height=64 --width=64 --num_frames=33 --dry_run
"""


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: an argument, a caption file or a folder is wrong.
  """
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
  parser.add('--videos', 'folder of videos', required=True)
  parser.add('--fps', kind=float, required=True)
  for name in ('height', 'width', 'num_frames'):
    parser.add(f'--{name}', kind=int, required=True)
  captions = 'CSV or JSONL with the columns file and caption; without it,'
  captions += ' name.txt beside each name.mp4 is read'
  parser.add('--captions', captions)
  parser.add('--strict', 'stop at the first unusable file', bool)
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
  folder, _ = digits_builder.prepare_folder(args.out, spec, args.num_clips)
  print(folder)
  return 0


def _video_folder(args: argparse.Namespace) -> int:
  from unitemp_jax.data import video_folder, video_folder_builder

  spec = video_folder.VideoFolderSpec(
    videos=args.videos,
    fps=args.fps,
    height=args.height,
    width=args.width,
    num_frames=args.num_frames,
    captions=args.captions,
  )

  def report(line: str) -> None:
    print(line, flush=True)

  if args.dry_run:
    videos, skipped = video_folder_builder.find_clips(
      spec, strict=args.strict, report=report
    )
    count = sum(len(video.windows) for video in videos)
    counted = _megabytes(count, args.num_frames, args.height, args.width)
    print(f'{len(skipped)} files skipped')
    print(f'would write {counted} below {os.path.abspath(args.out)}')
    return 0
  found = video_folder_builder.prepare(
    args.out, spec, strict=args.strict, report=report
  )
  print(f'{len(found.source)} clips, {len(found.skipped)} files skipped')
  print(found.folder)
  return 0
