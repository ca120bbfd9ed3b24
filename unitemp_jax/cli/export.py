"""`unitemp export`: the weights of finished stages as one model folder."""

import dataclasses
import os
import shutil
from pathlib import Path

import jax
import numpy as np

from unitemp_jax import files
from unitemp_jax.cli.options import Parser
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.models import weights
from unitemp_jax.models.weights import LazyWeights
from unitemp_jax.sampling import model_folder
from unitemp_jax.training import workdir
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs.networks import lazy_teacher, model_card

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


def _provenance(config, student: Path) -> dict:
  """Every stage's run, the commit and the hardware of this command."""
  paths = {
    'vae': config.latents.vae,
    'teacher': config.teacher,
    'student_init': config.student_init,
    'student': student,
  }
  # What the student began with may be gone by now.
  stages = {
    name: workdir.provenance(path)
    for name, path in paths.items()
    if Path(path).is_file()
  }
  return {'commit': workdir.commit(), 'hardware': workdir.hardware(), **stages}


def _half(shapes):
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float16), shapes
  )


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  parser = Parser('export', __doc__, _OPTIONS, _EXAMPLE)
  args, overrides = parser.parse_with_overrides(argv)
  needs = ('model', 'latents', 'teacher', 'student_init')
  config = load_config(args.config, overrides, needs)
  card = model_card(config, {})
  shapes = model_folder.param_shapes(card)
  teacher = lazy_teacher(config)
  networks = {
    'vae': LazyWeights(config.latents.vae, shapes['vae']),
    'text': teacher['text'],
    'teacher': teacher['dit'],
    'student': LazyWeights(str(args.student), shapes['student']),
  }
  if not networks['text']:  # Prompts come as embeddings.
    del networks['text']
  weights.check_lazy(networks)
  Tokenizer.from_file(config.latents.tokenizer)  # Refused before it is copied.
  written = [f'{name}.safetensors' for name in networks] + ['tokenizer.json']
  if not (args.out / model_folder.INDEX).exists():
    for name in written:
      if os.path.lexists(args.out / name):
        raise UserError(
          f'{args.out / name} is there already and not of an export; choose '
          'another --out, or move it away.'
        )
  else:
    model_folder.read_card(args.out)
  args.out.mkdir(parents=True, exist_ok=True)
  for name, lazy in networks.items():  # One at a time, in half the size.
    path = args.out / f'{name}.safetensors'
    print(weights.save(path, lazy.load(_half(lazy.tree)), dtype=np.float16))
  tokenizer = Path(config.latents.tokenizer)
  if tokenizer.resolve() != (args.out / 'tokenizer.json').resolve():
    with files.writing(args.out / 'tokenizer.json') as temporary:
      shutil.copyfile(tokenizer, temporary)
  card = dataclasses.replace(card, provenance=_provenance(config, args.student))
  print(model_folder.write_card(args.out, card))
  return 0
