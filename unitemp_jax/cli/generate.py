"""`unitemp generate`: video in any temporal order, from prompts and frames."""

import argparse
from pathlib import Path

from unitemp_jax import files, orders
from unitemp_jax.cli import generate_requests
from unitemp_jax.errors import UserError
from unitemp_jax.generate import jobs, resume
from unitemp_jax.generate.embedded_pipeline import EmbeddedPipeline
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.parallel.processes import enable_compile_cache
from unitemp_jax.plans import decoding, drawing, text
from unitemp_jax.sampling import model_folder

_EXAMPLE = """examples:
  # text to video, many prompts and orders in batches
  unitemp generate --orders=all --num_prompts=8 --out=out
  unitemp generate --prompt="a red seven falls" --orders=backward --out=out
  # one video from what you have; LEN and T are frames (24) or seconds (2s)
  unitemp generate --prompt="..." --image=start.png --at=0 --out=out
  unitemp generate --prompt="..." --extend=clip.mp4 --before=24 --after=2s \\
    --out=out
  unitemp generate --prompt="..." --keyframe=0:a.png --keyframe=32:b.png \\
    --keyframe=-1:c.mp4 --length=65 --out=out
  unitemp generate --prompt="..." --transition --first=a.mp4 --last=b.mp4 \\
    --length=65 --out=out
  unitemp generate --prompt="..." --loop --length=49 --out=out
  unitemp generate --prompt="..." --regenerate=clip.mp4 --span=9:19 \\
    --lossless --out=out
  unitemp generate --prompt="..." --long=120s --direction=backward \\
    --sinks=both --out=out
  unitemp generate --prompt="a red seven falls" \\
    --prompt_at=24:"a blue two falls" --long=10s --out=out
  unitemp generate --storyboard=story.yaml --out=out --dry_run
Run the same command again to continue after an interruption: the clip is the
same, byte for byte."""


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='unitemp generate',
    description=__doc__,
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  _add_workflows(parser)
  add = parser.add_argument_group('what it shows').add_argument
  add('--prompt', help='one prompt')
  add('--prompts', type=Path, metavar='FILE', help='one prompt per line')
  add(
    '--prompt_at',
    action='append',
    default=[],
    metavar='T:TEXT',
    help='the prompt from a time on; --prompt holds before; repeatable',
  )
  add(
    '--num_prompts',
    type=int,
    default=8,
    help='without a prompt, with --orders: so many captions of held-out clips, '
    'whose first and last frames are given to the orders that want them',
  )
  add('--seed', type=int, default=0, help='of the first clip; the next is + 1')
  add('--length', metavar='LEN', help="of the video; default is the model's")
  add('--height', type=int, help='pixels; default is the shape of given frames')
  add('--width', type=int, help="at the model's area, or the model's own size")
  add('--first', type=Path, help='image or clip that the video starts with')
  add('--last', type=Path, help='image or clip that the video ends with')
  add(
    '--trim',
    action='store_true',
    help='cut up to 3 frames off given clips that have not 1 + 4k',
  )
  add = parser.add_argument_group('how').add_argument
  add('--out', required=True, type=Path, metavar='DIR')
  add('--model', type=Path, default=model_folder.TINY, metavar='DIR')
  add(
    '--embeddings',
    type=Path,
    metavar='DIR',
    help='of the prompts, from "unitemp encode"; no text encoder is needed',
  )
  add('--anchors', type=int, help='anchor latents; 0 for none')
  add('--start_level', type=int, help='see "unitemp plan"; 0 starts from noise')
  add(
    '--decode',
    default='joint',
    choices=decoding.MODES,
    help='the file: all at once, blocks as they are made, or one block later',
  )
  add(
    '--lossless',
    action='store_true',
    help='write an mkv (FFV1) too, in which every pixel is as it was made',
  )
  add('--batch_size', type=int, default=8, help='with --orders')
  add('--dry_run', action='store_true', help='print the plan, make nothing')
  add('--draw', type=Path, metavar='FILE.svg', help='draw the plan')
  return parser


def _add_workflows(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group('what to do (one of them)')
  one = group.add_mutually_exclusive_group()
  one.add_argument(
    '--orders',
    help='text to video: names with commas, or "all"; forward by default',
  )
  one.add_argument('--image', type=Path, metavar='FILE', help='image to video')
  one.add_argument('--extend', type=Path, metavar='CLIP')
  one.add_argument(
    '--keyframe',
    action='append',
    default=[],
    metavar='T:FILE',
    help='image or clip at a time; -1: it ends the video; repeatable',
  )
  one.add_argument(
    '--transition', action='store_true', help='from --first to --last'
  )
  one.add_argument('--loop', action='store_true', help='ends where it starts')
  one.add_argument('--regenerate', type=Path, metavar='CLIP')
  one.add_argument('--long', metavar='LEN', help='through a sliding window')
  one.add_argument('--storyboard', type=Path, metavar='FILE')
  add = parser.add_argument_group('options of single workflows').add_argument
  add('--at', metavar='T', help='--image: where it stands; -1 ends the video')
  add('--before', metavar='LEN', help='--extend: how much is added before')
  add('--after', metavar='LEN', help='--extend: how much is added after')
  add('--sides', choices=orders.GROWTHS, help='--extend: which grows first')
  add('--span', metavar='A:B', help='--regenerate: frames to be made anew')
  add(
    '--side',
    choices=orders.SIDES,
    help='--keyframe, --transition, --loop, --regenerate: where gaps start',
  )
  add('--direction', choices=orders.DIRECTIONS, help='--long')
  add('--sinks', choices=orders.SINKS, help='--long: ends that stay in view')
  add('--window', type=int, help='latents that a block sees at most')


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: bad arguments, files or plans; nothing is written then.
    KeyboardInterrupt: after what is finished was written.
  """
  args = _parser().parse_args(argv)
  if args.batch_size < 1:
    raise UserError('--batch_size must be at least 1.')
  if args.out.exists() and not args.out.is_dir():
    raise UserError(f'--out={args.out} is a file; name a folder.')
  card = model_folder.read_card(args.model)
  todo = generate_requests.build_jobs(args, card)
  print(f'{len(todo)} clips, to {args.out}')
  if args.decode == 'lag':
    plans = {job.request.workflow: job.request.plan for job in todo}
    for note in decoding.lag_notes(plans):
      print(note)
  if args.dry_run or args.storyboard:
    _show(todo)
  if args.draw:
    if args.draw.suffix != '.svg':
      raise UserError(f'--draw={args.draw}: must end in .svg.')
    page = drawing.draw(todo[0].request.plan)
    files.write(args.draw, page, replace=False)
    print(f'drew {args.draw}')
  if args.dry_run:
    return 0
  enable_compile_cache()
  pipeline = (
    EmbeddedPipeline.load_with(args.model, args.embeddings)
    if args.embeddings
    else Pipeline.load(args.model)
  )
  if generate_requests.workflow(args) == 'orders':
    done = jobs.run(pipeline, todo, min(args.batch_size, len(todo)))
  else:
    done = resume.run_all(pipeline, todo)
  print(f'made {done}, {len(todo) - done} were there')
  for job in todo[:1] if len(todo) == 1 else []:
    print(job.path)
  print(args.out)
  return 0


def _show(todo: list[jobs.Job]) -> None:
  """Prints the plans, each with the clips that it makes."""
  shown = None
  for job in todo:
    if job.request.plan is not shown:
      shown = job.request.plan
      print(f'{job.request.workflow}:\n{text.table(shown)}')
    request = job.request
    size = f'{request.height}x{request.width}'
    print(
      f'  {job.path}  seed {request.seed}  {size}, {request.num_frames} frames'
    )
    for prompt in request.prompts:
      print(f'    {prompt}')
    for given in request.given:
      last = given.frame + len(given.video) - 1
      print(f'    given: frames {given.frame}..{last}')
