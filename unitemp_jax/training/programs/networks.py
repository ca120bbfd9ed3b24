"""Initial and frozen networks of a training: their files and sizes.

Distillation has a student, a critic of the student's size, and a teacher that
may be larger (`config.teacher_model`), as the published 14B one is.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax import files
from unitemp_jax.data import latents
from unitemp_jax.data.prompt_embeddings import PromptEmbeddings, key_of
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.vae3d import VAEConfig
from unitemp_jax.models.weights import Lazy, LazyWeights
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.training.programs import builders


def teacher_config(config: ConfigDict) -> DiTConfig:
  """Size of the teacher: the model's own, or `config.teacher_model`'s."""
  return builders.dit_config(config.get('teacher_model') or config.model)


def lazy_teacher(config: ConfigDict, frozen: bool = False) -> dict[str, Any]:
  """Where the teacher's weights are: `{'dit', 'text'}` in `config.teacher`.

  With `config.latents.embeddings` the file holds the transformer alone, and
  `text` is empty. A `frozen` one is held in the dtypes that it is used in.
  """
  shapes_of = sizes.inference_shapes if frozen else sizes.param_shapes
  dit = shapes_of(teacher_config(config))
  if config.latents.get('embeddings'):
    return {'dit': LazyWeights(config.teacher, dit), 'text': {}}
  text = sizes.param_shapes(builders.text_config(config.model))
  shapes = {'dit': dit, 'text': text}
  return {name: LazyWeights(config.teacher, shapes, name) for name in shapes}


def initial_networks(config: ConfigDict) -> dict[str, LazyWeights]:
  """What student and critic of a distillation start from.

  The critic starts from `config.critic_init`, or from the teacher.
  """
  own = builders.dit_config(config.model)
  shapes = sizes.param_shapes(own)
  student = LazyWeights(config.student_init, shapes)
  if config.get('critic_init'):
    return {
      'student': student,
      'critic': LazyWeights(config.critic_init, shapes),
    }
  teacher = teacher_config(config)
  if sizes.param_shapes(teacher) != shapes:
    raise UserError(
      'config.critic_init is missing: the critic has the size of the student '
      f'(dim {own.dim}), and cannot start from a teacher of dim '
      f'{teacher.dim}; give weights of its size.'
    )
  return {'student': student, 'critic': lazy_teacher(config)['dit']}


def normalised_vae(config: ConfigDict) -> VAEConfig:
  """The VAE with the statistics of the config's latents, if they are there."""
  if not (Path(builders.latents_dir(config)) / latents.INDEX).exists():
    return builders.vae_config(config.model)
  return model_card(config, {}).vae


def model_card(config: ConfigDict, provenance: dict[str, Any]) -> ModelCard:
  """What a model folder says, with the statistics of the config's latents.

  Without latents, where prompts were enough, they are those of the VAE.
  """
  folder, vae = builders.latents_dir(config), builders.vae_config(config.model)
  if vae.latent_mean and not (Path(folder) / latents.INDEX).exists():
    index = {'latent_mean': vae.latent_mean, 'latent_std': vae.latent_std}
  else:
    index = latents.read_index(folder)
  return builders.model_card(config, index, provenance)


def frozen_networks(config: ConfigDict) -> dict[str, Any]:
  """What a distillation reads and does not train.

  `negative` is what guidance leads away from, `config.sampling.negative_prompt`
  as a batch of one row: `text` `[1, E, Dt]` from the embeddings, or `ids` and
  `mask` `[1, E]`; {} is no text.
  """
  teacher = lazy_teacher(config, frozen=True)
  prompt = config.sampling.get('negative_prompt')
  negative = {} if prompt is None else LazyPrompt(config, prompt)
  return {
    'teacher': teacher['dit'],
    'text': teacher['text'],
    'negative': negative,
  }


def negative_key(config: ConfigDict) -> list[str]:
  """By what embeddings know the negative prompt, if there is one."""
  prompt = config.sampling.get('negative_prompt')
  if not prompt:
    return []
  tokenizer = Tokenizer.from_file(config.latents.tokenizer)
  length = builders.text_config(config.model).length
  ids, mask = tokenizer.encode([prompt], length)
  return [key_of(ids[0], mask[0])]


def check_captions(config: ConfigDict, path: Path) -> None:
  """Refuses embeddings that lack one of the lines of a file."""
  folder = config.latents.embeddings
  lines = files.read_lines(path)
  tokenizer = Tokenizer.from_file(config.latents.tokenizer)
  ids, mask = tokenizer.encode(lines, builders.text_config(config.model).length)
  missing = PromptEmbeddings(folder).missing(ids, mask)
  if missing:
    raise UserError(
      f'{len(missing)} of the {len(lines)} captions of {path} are not in '
      f'{folder}, the first is "{lines[missing[0]][:80]}"; encode that file '
      'together with the other prompts to another folder, "unitemp encode '
      f'PROMPTS {path} --out=DIR", and set config.latents.embeddings to it.'
    )


class LazyPrompt(Lazy):
  """A prompt as a batch of one row, see `frozen_networks`."""

  def __init__(self, config: ConfigDict, prompt: str):
    self._latents, self._prompt = config.latents, prompt
    self._embeddings = config.latents.get('embeddings')
    length = builders.text_config(config.model).length
    width = builders.dit_config(config.model).text_dim
    if self._embeddings:
      shapes = {'text': ((1, length, width), np.float32)}
    else:
      shapes = {'ids': ((1, length), np.int32), 'mask': ((1, length), bool)}
    self._tree = {k: jax.ShapeDtypeStruct(*v) for k, v in shapes.items()}

  @property
  def tree(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of one row."""
    return self._tree

  def check(self) -> None:
    """Raises UserError if it is not among the embeddings."""
    self._read()

  def _read(self) -> dict[str, np.ndarray]:
    tokenizer = Tokenizer.from_file(self._latents.tokenizer)
    length = next(iter(self.tree.values())).shape[1]
    ids, mask = tokenizer.encode(
      [self._prompt], length, allow_empty=not self._prompt
    )
    if not self._embeddings:
      return {'ids': ids, 'mask': mask}
    try:
      found = PromptEmbeddings(self._embeddings)
      return {'text': found.lookup(ids, mask, [self._prompt])}
    except UserError as error:
      raise UserError(
        f'config.sampling.negative_prompt cannot be read ({error}).'
      ) from error

  def load(self, placed: Any = None) -> dict[str, jax.Array]:
    """Reads it; see `Lazy.load`."""
    placed = self.tree if placed is None else placed
    return jax.tree.map(
      lambda row, shape: jax.device_put(
        np.asarray(row, shape.dtype), shape.sharding
      ),
      self._read(),
      placed,
    )
