"""`unitemp ode_pairs`: a teacher's way from noise to clips, to train on."""

from unitemp_jax.cli.options import Parser, part_of, read_prompt_files, seeds
from unitemp_jax.errors import UserError
from unitemp_jax.parallel.mesh import enable_compile_cache
from unitemp_jax.training import ode_pairs
from unitemp_jax.training.config import load_config

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
  part = part_of(args)  # Before the first use of jax.
  enable_compile_cache()
  written = ode_pairs.write(
    *(config, prompts, args.out),
    steps=args.steps,
    seed=args.seed,
    part=part,
    dry_run=args.dry_run,
  )
  if written is not None:
    print(written)
  return 0
