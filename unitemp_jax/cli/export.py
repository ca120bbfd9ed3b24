"""`unitemp export`: the weights of finished stages as one model folder."""

from unitemp_jax.cli.options import Parser
from unitemp_jax.training import export
from unitemp_jax.training.config import load_config

_EXAMPLE = """example:
  unitemp export --config=configs/tiny_distill.py --out=out/model \\
    --student=runs/tiny_distill/weights/student.safetensors
Weights are stored as float16. The folder is what "unitemp generate --model"
and "unitemp evaluate --model" take."""


_OPTIONS = """
@config
--student! FILE
@out
"""


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  parser = Parser('export', __doc__, _OPTIONS, _EXAMPLE)
  args, overrides = parser.parse_with_overrides(argv)
  needs = ('model', 'latents', 'teacher', 'student_init')
  config = load_config(args.config, overrides, needs)
  for path in export.export(config, args.student, args.out):
    print(path)
  return 0
