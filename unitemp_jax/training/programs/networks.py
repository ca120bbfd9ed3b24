"""Where the networks of a training are, and of what size.

Distillation has a student, a critic of the student's size, and a teacher that
may be larger (`config.teacher_model`), as the published 14B one is.
"""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax.data import latents
from unitemp_jax.data.prompt_embeddings import PromptEmbeddings
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.vae3d import VAEConfig
from unitemp_jax.training.programs import builders, lazy_weights
from unitemp_jax.training.programs.card import model_card
from unitemp_jax.training.programs.lazy_weights import LazyWeights


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


def load_teacher(config: ConfigDict) -> dict[str, Any]:
  """The teacher's weights `{'dit', 'text'}`, whole.

  Raises:
    UserError: they are missing or of another size.
  """
  return lazy_weights.load(lazy_teacher(config), None, ())


def initial_networks(config: ConfigDict) -> dict[str, LazyWeights]:
  """What student and critic of a distillation start from.

  The critic starts from `config.critic_init`, or from the teacher.

  Raises:
    UserError: there is no `critic_init`, and the teacher has another size.
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


def normalised_vae(config: ConfigDict, abstract: bool = False) -> VAEConfig:
  """The VAE with the statistics of the config's latents.

  An `abstract` one has the config's own, so that no file is needed.
  """
  if abstract:
    return builders.vae_config(config.model)
  return model_card(config, latents.read_index(config.latents.dir), {}).vae


def frozen_networks(
  config: ConfigDict, abstract: bool = False
) -> dict[str, Any]:
  """What a distillation reads and does not train.

  Raises:
    UserError: the negative prompt is not among the embeddings.
  """
  teacher = lazy_teacher(config, frozen=True)
  frozen = {'teacher': teacher['dit'], 'text': teacher['text']}
  return {**frozen, 'negative': negative_prompt(config, abstract)}


def negative_prompt(config: ConfigDict, abstract: bool) -> dict[str, Any]:
  """What guidance leads away from, as a batch of one row; {} is no text.

  It is `config.sampling.negative_prompt`, `text` `[1, E, Dt]` from the
  embeddings, or `ids` and `mask` `[1, E]`.

  Raises:
    UserError: it is not among the embeddings.
  """
  prompt = config.sampling.get('negative_prompt')
  if prompt is None:
    return {}
  text = builders.text_config(config.model)
  embeddings = config.latents.get('embeddings')
  if abstract:
    rows = {'ids': np.int32, 'mask': bool}
    shapes = {
      name: jax.ShapeDtypeStruct((1, text.length), dtype)
      for name, dtype in rows.items()
    }
    width = builders.dit_config(config.model).text_dim
    wide = jax.ShapeDtypeStruct((1, text.length, width), np.float32)
    return {'text': wide} if embeddings else shapes
  tokenizer = Tokenizer.from_file(config.latents.tokenizer)
  ids, mask = tokenizer.encode([prompt], text.length, allow_empty=not prompt)
  if embeddings:
    try:
      found = PromptEmbeddings(embeddings).lookup(ids, mask)
    except UserError as error:
      raise UserError(
        f'config.sampling.negative_prompt cannot be read ({error}).'
      ) from error
    return {'text': np.asarray(found, np.float32)}
  return {'ids': np.asarray(ids, np.int32), 'mask': np.asarray(mask, bool)}
