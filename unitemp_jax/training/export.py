"""Export of finished stages: their weights as one model folder."""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax import files
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import foreign
from unitemp_jax.models import weights
from unitemp_jax.models.weights import LazyWeights
from unitemp_jax.sampling import model_folder
from unitemp_jax.training import workdir
from unitemp_jax.training.programs.networks import lazy_teacher, model_card


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
  began = stages.get('vae', {}).get('config', {}).get('pretrained')
  if began and Path(began).is_file():  # Its decoder alone was trained further.
    stages['vae_pretrained'] = workdir.provenance(began)
  return {'commit': workdir.commit(), 'hardware': workdir.hardware(), **stages}


def _half(shapes):
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float16), shapes
  )


def export(config: ConfigDict, student: Path, out: Path) -> Iterator[Path]:
  """Writes a model folder in float16, and yields its files as they are there.

  Args:
    config: of the student's last stage; it names the weights of the others.
    student: weights of a training.
    out: the folder; of a former export or empty.
  """
  card = model_card(config, {})
  shapes = model_folder.param_shapes(card)
  teacher = lazy_teacher(config)
  networks = {
    'vae': LazyWeights(config.latents.vae, shapes['vae']),
    'text': teacher['text'],
    'teacher': teacher['dit'],
    'student': LazyWeights(str(student), shapes['student']),
  }
  if not networks['text']:  # Prompts come as embeddings.
    del networks['text']
  weights.check_lazy(networks)
  Tokenizer.from_file(config.latents.tokenizer)  # Refused before it is copied.
  written = [f'{name}.safetensors' for name in networks] + ['tokenizer.json']
  if not (out / model_folder.INDEX).exists():
    for name in written:
      if os.path.lexists(out / name):
        raise foreign(out / name, 'not of an export')
  else:
    model_folder.read_card(out)
  out.mkdir(parents=True, exist_ok=True)
  for name, lazy in networks.items():  # One at a time, in half the size.
    path = out / f'{name}.safetensors'
    yield weights.save(path, lazy.load(_half(lazy.tree)), dtype=np.float16)
  tokenizer = Path(config.latents.tokenizer)
  if tokenizer.resolve() != (out / 'tokenizer.json').resolve():
    with files.writing(out / 'tokenizer.json') as temporary:
      shutil.copyfile(tokenizer, temporary)
  card = dataclasses.replace(card, provenance=_provenance(config, student))
  yield model_folder.write_card(out, card)
