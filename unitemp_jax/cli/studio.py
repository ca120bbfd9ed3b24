"""`unitemp studio`: the timeline in a browser."""

from unitemp_jax import files
from unitemp_jax.cli import generate
from unitemp_jax.cli.options import Parser, at_least, out_folder
from unitemp_jax.errors import UserError

_EXAMPLE = """examples:
  unitemp studio --out=out/studio
  # of another machine, through its tunnel: http://localhost:8400
  ssh -L 8400:localhost:8400 tpu-vm unitemp studio --model=DIR --out=out/studio
A project is a folder in --out, with the files that unitemp generate writes.
Stop it at any time: what is queued goes on at the next start."""


def main(argv: list[str]) -> int:
  """Serves until it is interrupted and returns the exit code.

  Raises:
    UserError: a bad option, no model, a packet is missing, or another process
      writes to the folder.
  """
  parser = Parser('studio', __doc__, _EXAMPLE)
  parser.share('model')
  parser.share('out', type=str, help='folder of the projects')
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
  out = out_folder(args.out)
  limit = args.upload_limit * 2**20
  if args.dry_run:
    print(f'would serve {out} at http://{args.host}:{args.port}')
    return 0
  with files.lock(out):
    studio = server.Studio(out, args.model, generate.jobs, limit)
    token = None if guard.is_loopback(args.host) else guard.token_of(studio.out)
    query = f'?token={token}' if token else ''
    print(f'http://{args.host}:{args.port}/{query}', flush=True)
    print('Ctrl-C stops; what is queued goes on at the next start', flush=True)
    server.serve(studio, args.host, args.port, token)
  return 0
