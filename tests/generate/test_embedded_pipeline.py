"""Generation from text and from embeddings is the same."""

import os
import shutil

import jax
import numpy as np
import pytest
from generation_batch import PROMPTS
from model_fixture import random_model

from unitemp_jax.cli import main as cli
from unitemp_jax.errors import UserError
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.sampling import model_folder


@pytest.fixture(scope='module')
def embedded(tmp_path_factory):
  """A pipeline without text encoder, and the folder of its embeddings."""
  folder = tmp_path_factory.mktemp('embedded')
  prompts = folder / 'prompts.txt'
  prompts.write_text('\n'.join(PROMPTS))
  out = folder / 'out'
  model = f'--model={random_model()}'
  assert cli.main(['encode', str(prompts), model, f'--out={out}']) == 0
  shutil.copytree(random_model(), folder / 'model')
  os.remove(folder / 'model' / 'text.safetensors')
  return Pipeline.load(folder / 'model', embeddings=out), out


def contexts(pipeline):
  text = pipeline._embed([[prompt] for prompt in PROMPTS[:2]])
  return pipeline._context(pipeline._params, text)


def test_the_student_is_given_the_same_text(pipeline, embedded):
  one, two = contexts(pipeline), contexts(embedded[0])
  assert jax.tree.structure(one) == jax.tree.structure(two)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.abs(a[:, 0] - b[:, 1]).max() > 0.01


def test_it_is_another_model_than_with_text(pipeline, embedded):
  assert embedded[0].hash != pipeline.hash
  assert 'text' not in embedded[0]._params


def test_a_prompt_that_was_not_encoded_is_refused(embedded):
  with pytest.raises(UserError, match='is not among the'):
    embedded[0].text({}, ['a green nine never asked for'])


def test_embeddings_of_another_width_are_refused(embedded):
  with pytest.raises(UserError, match='takes 96'):
    Pipeline.load(model_folder.TINY, embeddings=embedded[1])


def test_the_teacher_is_given_the_same_text(pipeline, embedded):
  sampler, params = pipeline._teacher, pipeline._params
  prompts = list(PROMPTS[1:3])
  text = sampler._embed(params, prompts, np.asarray, None)
  read = sampler._embed({}, prompts, np.asarray, embedded[0].text.found)
  np.testing.assert_allclose(text, read, atol=1e-5)
  assert np.abs(text[0] - read[1]).max() > 0.01
  nothing = sampler._embed({}, [None, None], np.asarray, None)
  assert nothing.shape == text.shape
  assert (nothing == 0).all()
