"""One clip over several devices: the same as on one, up to rounding."""

import dataclasses

import jax
import numpy as np
import pytest
from model_fixture import random_model

from unitemp_jax.cli.main import main
from unitemp_jax.errors import UserError
from unitemp_jax.generate import memory, workflows
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.sampling import model_folder

pytestmark = pytest.mark.devices(8)

# Sums over heads and widths are taken in another order; see `test_pipeline`.
TOLERANCE = 1e-4
# By heads; and by queries, since two heads do not go over four devices.
MESHES = (
  {'data': 4, 'context': 2},
  pytest.param({'data': 1, 'fsdp': 2, 'context': 4}, marks=pytest.mark.slow),
)


def made(mesh):
  pipeline = Pipeline.load(random_model(), mesh=mesh)
  request = workflows.text_to_video(
    pipeline, 'a red seven falls', 21, 'backward', seed=3
  )
  rows = [row.latents for row in pipeline.rows(request)]
  batch = pipeline.batch([request] * 4).latents
  return pipeline, request, np.concatenate(rows, axis=1), batch


@pytest.fixture(scope='module')
def alone():
  return made({'data': 1})


@pytest.mark.parametrize('mesh', MESHES)
def test_a_mesh_makes_the_same_clip(alone, mesh):
  one, request, rows, batch = alone
  many, _, split_rows, split_batch = made(mesh)
  parts = mesh.get('fsdp', 1) * mesh['context']
  largest = max(
    leaf.nbytes / leaf.addressable_shards[0].data.nbytes
    for leaf in jax.tree.leaves(many.params['student'])
  )
  assert largest == parts  # Weights lie on devices in parts.
  np.testing.assert_allclose(split_rows, rows, atol=TOLERANCE)
  np.testing.assert_allclose(split_batch, batch, atol=TOLERANCE)
  frames = [p.decode(batch[:1]).astype(int) for p in (one, many)]
  assert np.abs(frames[0] - frames[1]).max() <= 1
  # Control: another seed is farther away than any rounding.
  other = workflows.text_to_video(
    one, 'a red seven falls', 21, 'backward', seed=4
  )
  assert np.abs(one.batch([other] * 4).latents - batch).max() > 0.1
  assert request.num_frames == 21


@pytest.mark.parametrize(
  ('mesh', 'words'),
  [
    ({'context': 3}, 'does not fit the 8'),
    ({'data': 16}, 'does not fit the 8'),
  ],
)
def test_a_mesh_that_does_not_fit_is_refused(mesh, words):
  with pytest.raises(UserError, match=words):
    Pipeline.load(random_model(), mesh={'data': -1, **mesh})


def test_weights_that_a_mesh_cannot_split_are_refused():
  card = model_folder.read_card(random_model())
  assert memory.mesh_of(card, {'context': 8}).size == 8
  narrow = dataclasses.replace(card.text, dim=12)
  narrow = dataclasses.replace(card, text=narrow)
  with pytest.raises(UserError, match='a number that divides 4'):
    memory.mesh_of(narrow, {'context': 8})


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('context', 'such as context=4'),
    ('model=2', 'axes are data, fsdp, context'),
    ('context=2,context=4', 'is no mesh'),
    ('context=-1', 'is no mesh'),
  ],
)
def test_bad_meshes_are_one_sentence(text, words, tmp_path, capsys):
  argv = ['generate', '--prompt=x', f'--out={tmp_path / "o"}']
  assert main([*argv, f'--mesh={text}', '--dry_run']) == 2
  error = capsys.readouterr().err.strip()
  assert words in error and '\n' not in error
