"""`unitemp data`: prepares data sets for training."""

import argparse
import os
from typing import NoReturn

from unitemp_jax.errors import UserError

EXAMPLE = """examples:
  unitemp data falling_digits --out=sets --num_clips=10000
  unitemp data video_folder --videos=my_videos --out=sets \\
      --fps=16 --height=64 --width=64 --num_frames=33 --dry_run
"""


class _Parser(argparse.ArgumentParser):
  """A parser whose complaints are user errors like all others."""

  def error(self, message: str) -> NoReturn:
    raise UserError(f'{self.prog}: {message}; see {self.prog} --help')


def main(argv: list[str]) -> int:
  """Runs the verb.

  Args:
    argv: the arguments after the verb.

  Returns:
    0 on success.

  Raises:
    UserError: an argument, a caption file or a folder is wrong.
  """
  args = _parser().parse_args(argv)
  return args.run(args)


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog='unitemp data',
    description='Prepares a data set and prints its folder.',
    epilog=EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  kinds = parser.add_subparsers(required=True, metavar='KIND')

  digits = kinds.add_parser(
    'falling_digits', help='procedural clips of handwritten digits'
  )
  digits.add_argument('--num_clips', type=int, required=True)
  digits.add_argument('--split', default='train', help='train or test')
  digits.add_argument('--size', type=int, default=32, help='pixels')
  digits.add_argument('--num_frames', type=int, default=33)
  digits.add_argument('--seed', type=int, default=0)
  digits.set_defaults(run=_falling_digits)

  videos = kinds.add_parser('video_folder', help='your own videos')
  videos.add_argument('--videos', required=True, help='folder of videos')
  videos.add_argument('--fps', type=float, required=True)
  videos.add_argument('--height', type=int, required=True, help='pixels')
  videos.add_argument('--width', type=int, required=True, help='pixels')
  videos.add_argument('--num_frames', type=int, required=True)
  videos.add_argument(
    '--captions',
    help='CSV or JSONL with the columns file and caption; without it, '
    'name.txt beside each name.mp4 is read',
  )
  videos.add_argument(
    '--strict', action='store_true', help='stop at the first unusable file'
  )
  videos.set_defaults(run=_video_folder)

  for kind in (digits, videos):
    kind.add_argument('--out', required=True, help='folder of data sets')
    kind.add_argument(
      '--dry_run', action='store_true', help='look and count, write nothing'
    )
  return parser


def _megabytes(num_clips: int, num_frames: int, height: int, width: int) -> str:
  size = num_clips * num_frames * height * width * 3 / 1e6
  return f'{num_clips} clips, {size:,.1f} MB before compression'


def _falling_digits(args: argparse.Namespace) -> int:
  from unitemp_jax.data import digits_builder, falling_digits

  spec = falling_digits.FallingDigitsSpec(
    num_frames=args.num_frames, size=args.size, split=args.split, seed=args.seed
  )
  if args.num_clips < 1:
    raise UserError(f'--num_clips={args.num_clips}: must be at least 1.')
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
