"""Generation from text and from embeddings is the same."""

import os
import shlex
import shutil

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


def test_the_student_is_given_the_same_text(pipeline, embedded):
  one = pipeline.text(pipeline.params['text'], PROMPTS[:2])
  two = embedded[0].text(None, PROMPTS[:2])
  np.testing.assert_allclose(one, two, atol=1e-5)
  assert np.abs(one[0] - two[1]).max() > 0.01


def test_it_is_another_model_than_with_text(pipeline, embedded):
  assert embedded[0].hash != pipeline.hash
  assert 'text' not in embedded[0].params


def test_a_prompt_that_was_not_encoded_is_refused(embedded):
  with pytest.raises(UserError, match='is not among the'):
    embedded[0].text({}, ['a green nine never asked for'])


@pytest.mark.parametrize(
  'command, code',
  [
    (f'generate --prompt="{PROMPTS[0]}"', 0),
    ('generate --prompt="a green nine"', 2),
    (f'generate --prompt="{PROMPTS[0]}" --negative_prompt=blurry', 2),
    (f'teacher --prompt="{PROMPTS[0]}"', 0),
    ('teacher --prompt="a green nine"', 2),
    (f'teacher --prompt="{PROMPTS[0]}" --negative_prompt=""', 2),
  ],
)
def test_a_dry_run_looks_for_the_prompts(
  embedded, tmp_path, capsys, command, code
):
  words = [*shlex.split(command), '--dry_run', f'--out={tmp_path}/o']
  words += [f'--model={random_model()}', f'--embeddings={embedded[1]}']
  assert cli.main(words) == code
  assert ('is not among the' in capsys.readouterr().err) == bool(code)


def test_embeddings_of_another_width_are_refused(embedded):
  with pytest.raises(UserError, match='takes 96'):
    Pipeline.load(model_folder.TINY, embeddings=embedded[1])


def test_the_teacher_is_given_the_same_text(pipeline, embedded):
  """Whichever prompt guidance leads away from."""
  for negative in (None, PROMPTS[0]):
    one, two = (
      model.sample_teacher(PROMPTS[1:2], [0], 1, negative_prompt=negative)
      for model in (pipeline, embedded[0])
    )
    np.testing.assert_allclose(one, two, atol=1e-4)
  other = embedded[0].sample_teacher(PROMPTS[1:2], [0], 1)
  assert np.abs(one - other).max() > 1e-3
