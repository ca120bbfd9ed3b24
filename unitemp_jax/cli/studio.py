"""`unitemp studio`: the timeline in a browser."""

from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.cli import generate
from unitemp_jax.cli.options import Parser, at_least
from unitemp_jax.errors import UserError

_EXAMPLE = """examples:
  unitemp studio --out=out/studio
  # of another machine, through its tunnel: http://localhost:8400
  ssh -L 8400:localhost:8400 tpu-vm unitemp studio --model=DIR --out=out/studio
A project is a folder in --out, with the files that unitemp generate writes.
Stop it at any time: what is queued goes on at the next start."""


_JOINT = 'video = model.video(request)  # uint8 [T, H, W, 3]'
_BY_BLOCK = """
shape = (request.num_frames, request.height, request.width, 3)
video = np.zeros(shape, np.uint8)
for piece in model.run(request, mode={!r}):
  video[piece.first : piece.first + len(piece.frames)] = piece.frames
""".strip()


def jobs(words: list[str]) -> list[Any]:
  """The clips of a command; UserError for what does not fit."""
  return generate.jobs(generate.parse(words))


def _plain(value):
  return str(value) if isinstance(value, Path) else value


def script(words: list[str]) -> str:
  """The Python that makes the frames of a command of the studio."""
  args, imports = generate.parse(words), 'import unitemp_jax'
  name, run = generate.workflow_of(args), _JOINT
  if name == 'storyboard':
    imports += '\nfrom unitemp_jax.generate import storyboard'
    board = f'storyboard.read({str(args.storyboard)!r})'
    request = f'storyboard.to_request({board}, model)'
  else:
    own = {'prompt': generate.schedule(args, args.prompt)}
    own |= generate.arguments(args, None, name, args.seed)
    told = ''.join(
      f'  {key}={_plain(value)!r},\n'
      for key, value in own.items()
      if value is not None and value is not False
    )
    called = generate.WORKFLOWS[name]
    request = f'unitemp_jax.workflows.{called}(\n  model,\n{told})'
  if args.decode != 'joint':
    imports = f'import numpy as np\n{imports}'
    run = _BY_BLOCK.format(args.decode)
  model = f'model = unitemp_jax.load({str(args.model)!r})'
  return f'{imports}\n\n{model}\nrequest = {request}\n{run}\n'


def main(argv: list[str]) -> int:
  """Serves until it is interrupted and returns the exit code."""
  parser = Parser('studio', __doc__, _EXAMPLE)
  parser.share('model')
  parser.share('out', help='folder of the projects')
  parser.add('--host', 'address to listen on', default='127.0.0.1')
  parser.add('--port', None, at_least(0, 65535), 8400)
  parser.add('--upload_limit', 'MiB of a picture or clip', at_least(1), 256)
  parser.share('dry_run')
  args = parser.parse_args(argv)
  try:
    from unitemp_jax.sampling import model_folder
    from unitemp_jax.studio import guard, server
  except ModuleNotFoundError as error:
    raise UserError(
      f'unitemp studio needs {error.name}: pip install "unitemp_jax[studio]".'
    ) from error

  model_folder.read_card(args.model)  # Refused before there is a folder.
  out = args.out
  limit = args.upload_limit * 2**20
  if args.dry_run:
    print(f'would serve {out} at http://{args.host}:{args.port}')
    return 0
  with files.lock(out):
    studio = server.Studio(out, args.model, jobs, script, limit)
    token = None if guard.is_loopback(args.host) else guard.token_of(studio.out)
    query = f'?token={token}' if token else ''
    print(f'http://{args.host}:{args.port}/{query}', flush=True)
    print('Ctrl-C stops; what is queued goes on at the next start', flush=True)
    server.serve(studio, args.host, args.port, token)
  return 0
