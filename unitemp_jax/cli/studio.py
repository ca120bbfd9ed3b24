"""`unitemp studio`: the timeline in a browser."""

from unitemp_jax.cli.options import Parser
from unitemp_jax.errors import optional
from unitemp_jax.parallel import locks

_OPTIONS = """
@model
@out  folder of the projects
--host ADDRESS=127.0.0.1  to listen on
--port N:0..65535=8400
--upload_limit N:1=256  MiB of a picture or clip
@dry_run
"""
_EXAMPLE = """examples:
  unitemp studio --out=out/studio
  # of another machine, through its tunnel: http://localhost:8400
  ssh -L 8400:localhost:8400 tpu-vm unitemp studio --model=DIR --out=out/studio
A project is a folder in --out, with the files that unitemp generate writes.
Stop it at any time: what is queued goes on at the next start."""


def main(argv: list[str]) -> int:
  """Serves until it is interrupted and returns the exit code."""
  args = Parser('studio', __doc__, _OPTIONS, _EXAMPLE).parse_args(argv)
  with optional('unitemp studio is a web server', 'studio'):
    from unitemp_jax.sampling import model_folder
    from unitemp_jax.studio import guard, server

  model_folder.read_card(args.model)  # Refused before there is a folder.
  address = f'http://{args.host}:{args.port}/'
  listens = server.listen(args.host, args.port)
  if args.dry_run:
    listens.close()
    print(f'would serve {args.out} at {address}')
    return 0
  with listens, locks.lock(args.out):
    limit, token = args.upload_limit * 2**20, None
    studio = server.Studio(args.out, args.model, limit)
    if args.host not in ('localhost', '127.0.0.1', '::1'):
      token = guard.token_of(studio.out)
      address += f'?token={token}'
    print(address, flush=True)
    print('Ctrl-C stops; what is queued goes on at the next start', flush=True)
    server.serve(studio, listens, args.host, token)
  return 0
