"""`unitemp ode_pairs`: a teacher's way from noise to clips, to train on."""

from unitemp_jax import progress, storage
from unitemp_jax.cli.options import (
  Parser,
  part_of,
  read_prompt_files,
  seeds,
)
from unitemp_jax.data import latents
from unitemp_jax.errors import UserError
from unitemp_jax.parallel.mesh import enable_compile_cache
from unitemp_jax.training.config import load_config
from unitemp_jax.training.ode_pairs import TrajectoryMaker

_SHARD = 64  # clips

_EXAMPLE = """example:
  unitemp ode_pairs prompts.txt --config=configs/wan_1p3b_ode_init.py \\
    --out=data/wan_ode
The teacher is config.teacher, its guidance config.sampling's, and its Euler
steps pass the levels of config.student. config.mesh says how it is split over
the devices of this machine; several machines can make some shards each
(--shard=I/N). Run the same command again to continue after an interruption;
the command that finds all shards writes the index."""


_OPTIONS = """
prompts+ PROMPTS
@config @out
--steps N=48  of Euler
@seed @shard @dry_run
"""


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  parser = Parser('ode_pairs', __doc__, _OPTIONS, _EXAMPLE)
  args, overrides = parser.parse_with_overrides(argv)
  config = load_config(args.config, overrides)
  if 'student' not in config or 'latents' not in config:
    raise UserError(
      f'{args.config} trains no student; use a config such as '
      'configs/wan_1p3b_ode_init.py.'
    )
  # It is among the prompts to be encoded, and nothing to make clips of.
  negative = config.sampling.get('negative_prompt')
  prompts = [
    line for line in read_prompt_files(args.prompts) if line != negative
  ]
  seeds(args.seed, len(prompts))
  first, parts = part_of(args)
  count = -(-len(prompts) // _SHARD)
  maker = TrajectoryMaker(config, args.steps)
  about = maker.about(prompts, args.seed)
  if latents.is_complete(args.out, about, 'another teacher or other prompts'):
    print(f'nothing to do: {args.out / latents.INDEX}')
    return 0
  latents.check_started(args.out, about)
  print(f'{len(prompts)} trajectories in {count} shards to {args.out}')
  if args.dry_run:
    return 0
  enable_compile_cache()
  latents.start(args.out, about)
  paths = [latents.shard_path(args.out, shard) for shard in range(count)]
  todo = [s for s in range(first, count, parts) if not paths[s].exists()]
  for shard in progress.track(todo, 'shard'):
    end = min((shard + 1) * _SHARD, len(prompts))
    records: list[dict] = []
    for i in range(shard * _SHARD, end, maker.rows):
      some = prompts[i : min(i + maker.rows, end)]
      records += maker.make(some, args.seed + i)
    latents.write_shard(paths[shard], records)
  if len(storage.existing(paths)) == count:
    print(latents.write_index(args.out, count, about, maker.statistics))
  return 0
