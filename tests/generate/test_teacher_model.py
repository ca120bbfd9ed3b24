"""The teacher of a whole model: prompts, negative prompts, settings, files."""

import os
import shutil

import numpy as np
import pytest
from model_fixture import random_model

from unitemp_jax.cli import main as cli
from unitemp_jax.errors import UserError
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.video.read import read_metadata

PROMPTS = ['a red seven falls', 'a blue one slides']
SETTINGS = {'num_steps': 3, 'solver': 'unipc', 'guidance_scale': 3.0}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A model without its student, as one of Wan's own weights is."""
  folder = tmp_path_factory.mktemp('teacher') / 'model'
  shutil.copytree(random_model(), folder)
  os.remove(folder / 'student.safetensors')
  return folder


@pytest.fixture(scope='module')
def model(folder):
  return Pipeline.load(folder, teacher=True)


def test_a_sample_is_its_prompt_and_seed_alone(model):
  both = model.sample_teacher(PROMPTS, [3, 4], **SETTINGS)
  assert both.shape[0] == 2
  again = model.sample_teacher(PROMPTS[::-1], [4, 3], **SETTINGS)
  np.testing.assert_allclose(again[::-1], both, atol=2e-5)
  other = model.sample_teacher([PROMPTS[0]] * 2, [3, 4], **SETTINGS)
  np.testing.assert_allclose(other[0], both[0], atol=2e-5)
  assert np.abs(other[1] - both[1]).max() > 1e-3


def test_the_negative_prompt_matters_only_with_guidance(model):
  def made(negative, **changes):
    settings = {**SETTINGS, **changes, 'negative_prompt': negative}
    return model.sample_teacher(PROMPTS, [3, 4], **settings)

  assert np.abs(made('a green two') - made(None)).max() > 1e-3
  # With the prompt itself there is nothing to lead away from.
  same = made(PROMPTS[0])[0]
  np.testing.assert_allclose(same, made(None, guidance_scale=1.0)[0], atol=2e-5)


def test_the_verb_writes_clips_and_continues(folder, tmp_path, capsys):
  arguments = [
    *('teacher', f'--model={folder}', '--steps=3', '--extra_guidance=2'),
    *(f'--prompt={PROMPTS[0]}', f'--out={tmp_path / "out"}', '--seed=3'),
  ]
  assert cli.main(arguments) == 0
  (path,) = (tmp_path / 'out').iterdir()
  tags = read_metadata(path)
  assert tags['prompt'] == PROMPTS[0]
  assert tags['teacher']['guidance_scale'] == 3.0
  before = path.stat().st_mtime_ns
  assert cli.main(arguments) == 0
  assert path.stat().st_mtime_ns == before
  assert '0 of 1 clips to make' in capsys.readouterr().out
  assert cli.main([*arguments, '--seed=4']) == 2
  assert 'not made by this command' in capsys.readouterr().err
  assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
  ('more', 'words'),
  [
    (
      ['--prompt=a', '--guidance=3', '--extra_guidance=2'],
      'one guidance_scale',
    ),
    (['--prompt= '], 'prompt is empty'),
    ([], '--prompt or --prompts'),
    (
      ['--prompt=a', '--negative_prompt=b', '--wan_negative_prompt'],
      'one of the two',
    ),
    (['--prompt=a', '--steps=0'], '1..1000 steps'),
    (['--prompt=a', '--seed=-1'], 'must lie in 0..4294967295'),
    (['--prompt=a', '--shift=nan'], 'use more than 0'),
    (['--prompt=a', '--guidance_scale=inf'], 'must lie in 0..1000'),
    (['--prompt=a', '--model=nowhere'], 'not a model folder'),
  ],
)
def test_bad_arguments_write_nothing(folder, tmp_path, more, words, capsys):
  out = tmp_path / 'out'
  arguments = ['teacher', f'--model={folder}', f'--out={out}', *more]
  assert cli.main(arguments) == 2
  assert words in capsys.readouterr().err
  assert not out.exists()


def test_a_folder_without_a_teacher_is_refused(folder, tmp_path):
  shutil.copytree(folder, tmp_path / 'model')
  os.remove(tmp_path / 'model' / 'teacher.safetensors')
  with pytest.raises(UserError, match='no teacher'):
    Pipeline.load(tmp_path / 'model', teacher=True)
