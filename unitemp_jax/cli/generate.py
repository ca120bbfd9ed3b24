"""`unitemp generate`: video in any temporal order, from prompts and frames."""

from pathlib import Path
from typing import Any

from unitemp_jax import files, orders
from unitemp_jax.cli.options import Parser, at_least
from unitemp_jax.errors import UserError
from unitemp_jax.plans import decoding, drawing, text

_EXAMPLE = f"""orders: {', '.join(orders.ORDERS)}

examples:
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
_REPEATED: dict[str, Any] = {'action': 'append', 'default': []}


def _parser() -> Parser:
  parser = Parser('generate', __doc__, _EXAMPLE)
  group = parser.add_argument_group('what to do (one of them)')
  one = group.add_mutually_exclusive_group().add_argument
  one('--orders', help='text to video: names with commas, or "all" (forward)')
  one('--image', type=Path, metavar='FILE', help='image to video')
  one('--extend', type=Path, metavar='CLIP')
  one(
    '--keyframe',
    **_REPEATED,
    metavar='T:FILE',
    help='image or clip at a time; -1: it ends the video; repeatable',
  )
  one('--transition', action='store_true', help='from --first to --last')
  one('--loop', action='store_true', help='ends where it starts')
  one('--regenerate', type=Path, metavar='CLIP')
  one('--long', metavar='LEN', help='through a sliding window')
  one('--storyboard', type=Path, metavar='FILE')
  add = parser.add
  add('--at', '--image: where it stands; -1 ends the video', metavar='T')
  add('--before', '--extend: how much is added before', metavar='LEN')
  add('--after', '--extend: how much is added after', metavar='LEN')
  add('--sides', '--extend: which grows first', choices=orders.GROWTHS)
  add('--span', '--regenerate: frames to be made anew', metavar='A:B')
  add('--side', 'where gaps are filled from', choices=orders.SIDES)
  add('--direction', '--long', choices=orders.DIRECTIONS)
  add('--sinks', '--long: ends that stay in view', choices=orders.SINKS)
  add('--window', 'latents that a block sees at most', int)
  add('--prompt', 'one prompt')
  add('--prompts', 'one prompt per line', Path, metavar='FILE')
  parser.add_argument(
    '--prompt_at',
    **_REPEATED,
    metavar='T:TEXT',
    help='the prompt from a time on; --prompt holds before; repeatable',
  )
  add(
    '--num_prompts',
    'without a prompt, with --orders: captions of so many held-out clips, '
    'whose first and last frames are given to the orders that want them',
    int,
    8,
  )
  add('--seed', 'of the first clip; the next is + 1', int, 0)
  add('--length', "of the video; the model's by default", metavar='LEN')
  add('--height', 'pixels; by default in the shape of given frames', int)
  add('--width', "at the model's area, or the model's own size", int)
  add('--first', 'image or clip that the video starts with', Path)
  add('--last', 'image or clip that the video ends with', Path)
  add('--trim', 'cut up to 3 frames off given clips to get 1 + 4k', bool)
  parser.share('out', type=str)
  parser.share('model', 'dry_run')
  add('--embeddings', 'of prompts, from "unitemp encode"', Path, metavar='DIR')
  add('--anchors', 'anchor latents; 0 for none', int)
  add('--start_level', 'see "unitemp plan"; 0 starts from noise', int)
  add(
    '--decode',
    'the file: all at once, blocks as they are made, or one block later',
    default='joint',
    choices=decoding.MODES,
  )
  add('--lossless', 'write an mkv (FFV1) of the exact pixels too', bool)
  add('--batch_size', 'with --orders', at_least(1), 8)
  add('--draw', 'draw the plan', Path, metavar='FILE.svg')
  return parser


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: bad arguments, files or plans; nothing is written then.
    KeyboardInterrupt: after what is finished was written.
  """
  args = _parser().parse_args(argv)
  # Here, so that --help does not wait for jax.
  from unitemp_jax.generate import clip_file, clips, from_options
  from unitemp_jax.generate.pipeline import Pipeline
  from unitemp_jax.parallel.processes import enable_compile_cache

  args.out = clip_file.out_folder(args.out)
  if args.draw and args.draw.suffix != '.svg':
    raise UserError(f'--draw={args.draw}: must end in .svg.')
  todo = from_options.build_jobs(args)
  print(f'{len(todo)} clips, to {args.out}')
  if args.decode == 'lag':
    made = {job.request.workflow: job.request.plan for job in todo}
    for note in decoding.lag_notes(made):
      print(note)
  for remark in dict.fromkeys(r for job in todo for r in job.request.remarks):
    print(f'note: {remark}')
  if args.dry_run or args.storyboard:
    _show(todo)
  if args.draw:
    files.write(args.draw, drawing.draw(todo[0].request.plan), replace=False)
    print(f'drew {args.draw}')
  if args.dry_run:
    return 0
  enable_compile_cache()
  pipeline = Pipeline.load(args.model, embeddings=args.embeddings)
  size = None
  if from_options.workflow_of(args) == 'orders':
    size = min(args.batch_size, len(todo))
  with files.lock(args.out):
    done = clips.run(pipeline, todo, size)
  print(f'made {done}, {len(todo) - done} were there')
  for job in todo[:1] if len(todo) == 1 else []:
    print(job.path)
  print(args.out)
  return 0


def _show(todo: list[Any]) -> None:
  """Prints the plans, each with the clips that it makes."""
  shown = None
  for job in todo:
    request = job.request
    if request.plan is not shown:
      shown = request.plan
      print(f'{request.workflow}:\n{text.table(shown)}')
    size = f'{request.height}x{request.width}'
    print(
      f'  {job.path}  seed {request.seed}  {size}, {request.num_frames} frames'
    )
    for prompt in request.prompts:
      print(f'    {prompt}')
    for given in request.given:
      last = given.frame + len(given.video) - 1
      print(f'    given: frames {given.frame}..{last}')
