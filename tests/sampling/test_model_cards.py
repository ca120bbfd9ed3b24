"""Cards that describe no model are refused, in a sentence that says why."""

import copy
import dataclasses
import json
import shutil
import warnings

import hypothesis
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

from unitemp_jax.errors import Remark, UserError
from unitemp_jax.generate import workflows
from unitemp_jax.sampling import model_folder

SHIPPED = json.loads((model_folder.TINY / 'model.json').read_text())

# (network or '', field, value, words of the sentence)
WRONG = [
  ('', 'fps', 0, 'fps is 0'),
  ('', 'fps', float('nan'), 'fps is nan'),
  ('', 'frames', 'x', "frames is 'x'"),
  ('', 'frames', '33', "frames is '33'"),
  ('', 'frames', 32, 'not 1 + 4k'),
  ('', 'height', -32, 'height is -32'),
  ('', 'height', 33, 'multiples'),
  ('', 'width', 2**20, 'too large'),
  ('', 'width', 10**30, 'too large'),
  ('', 'fps', 10**9, 'fps is 1000000000, too large'),
  ('', 'fps', 10**6, 'above 1000'),
  ('', 'width', True, 'not a whole number'),
  ('', 'timesteps', [], 'timesteps'),
  ('', 'timesteps', [250, 1000], 'timesteps'),
  ('', 'timesteps', 1000, 'timesteps is no list'),
  ('', 'timesteps', ['a'], "timesteps is 'a'"),
  ('', 'anchors', 9, 'anchors is 9'),
  ('', 'start', 5, 'start is 5'),
  ('', 'anchor_kind', 'x', "anchor_kind is 'x'"),
  ('', 'sinks', 'x', "sinks is 'x'"),
  ('', 'window', 0, 'window is 0'),
  ('', 'orders', [3], 'orders is 3'),
  ('', 'extra', 1, "'extra' is no key of this version"),
  ('dit', 'extra', 1, "'extra' is no key of this version"),
  ('dit', 'num_heads', 7, 'does not divide into 7 heads'),
  ('dit', 'num_heads', 0, 'num_heads is 0'),
  ('dit', 'num_layers', 10**6, 'too many; use up to 1000'),
  ('vae', 'num_res_blocks', 80, 'too many; use up to 16'),
  ('dit', 'dtype', 'float99', 'dtype'),
  ('dit', 'remat', 'x', "remat is 'x'"),
  ('dit', 'channels', 8, 'vae.z_dim'),
  ('vae', 'latent_std', [0.0] * 16, 'latent_std'),
  ('vae', 'latent_mean', [0.0], 'latent_mean'),
  ('vae', 'temporal_down', [True], 'temporal_down'),
  ('vae', 'temporal_down', [True, False], 'a latent of every 2 frames'),
  ('text', 'vocab', None, 'vocab is None'),
]


def write(folder, fields):
  (folder / 'model.json').write_text(json.dumps(fields))


@pytest.mark.parametrize(('network', 'field', 'value', 'words'), WRONG)
def test_what_cannot_run_is_refused(network, field, value, words, tmp_path):
  fields = copy.deepcopy(SHIPPED)
  (fields[network] if network else fields)[field] = value
  write(tmp_path, fields)
  with pytest.raises(UserError) as raised:
    model_folder.read_card(tmp_path)
  assert words in str(raised.value) and 'model.json' in str(raised.value)
  # Negative control: the card as it was is read.
  write(tmp_path, SHIPPED)
  assert model_folder.read_card(tmp_path).fps == SHIPPED['fps']


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('', 'JSON'),
    ('garbage', 'JSON'),
    ('[1]', 'not a table'),
    ('{}', "'vae'"),
    ('{"vae": 3, "dit": 3, "text": 3}', 'does not describe a model'),
    ('[' * 20_000, 'nested too deep'),
    ('\ufeff', 'JSON'),
    ('{"fps": 1, "fps": 2}', "the key 'fps' is there twice"),
  ],
)
def test_what_is_no_card_is_refused(text, words, tmp_path):
  (tmp_path / 'model.json').write_text(text)
  with pytest.raises(UserError, match=words):
    model_folder.read_card(tmp_path)


@pytest.mark.parametrize(
  ('network', 'key', 'words'),
  [
    ('', 'guidance_scale', 'it lacks guidance_scale, formerly guidance'),
    ('', 'fps', 'it lacks fps'),
  ],
)
def test_what_a_card_lacks_is_named(network, key, words, tmp_path):
  fields = copy.deepcopy(SHIPPED)
  del (fields[network] if network else fields)[key]
  write(tmp_path, fields)
  with pytest.raises(UserError, match=words):
    model_folder.read_card(tmp_path)


def test_heads_are_those_of_the_weights(tmp_path):
  """Shapes are the same for any number; the file's own header says it."""
  shutil.copy(model_folder.TINY / 'model.json', tmp_path)
  about = {'config': {'model': {'dit': {'heads': 5}}}}
  arrays = {'a': np.zeros(1, np.float32)}

  def save(about):
    said = {'unitemp': json.dumps(about)}
    path = tmp_path / 'student.safetensors'
    safetensors.numpy.save_file(arrays, path, metadata=said)

  save(about)
  assert model_folder.read_card(tmp_path).dit.num_heads == 5
  for wrong in (
    {'config': {'model': {'dit': {'num_heads': 4}}}},
    {'heads': {'': 4}},
  ):
    save(wrong)
    with pytest.raises(UserError, match='has 4 heads'):
      model_folder.read_card(tmp_path)


VALUES = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
  lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
  max_leaves=5,
)


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(st.data())
def test_any_card_is_read_or_refused(tmp_path_factory, data):
  """Random values in random places: a card that can run, or a UserError."""
  folder = tmp_path_factory.getbasetemp()
  fields = copy.deepcopy(SHIPPED)
  table = fields
  if data.draw(st.booleans()):
    table = fields[data.draw(st.sampled_from(['vae', 'dit', 'text']))]
  table[data.draw(st.sampled_from(sorted(table)))] = data.draw(VALUES)
  write(folder, fields)
  try:
    card = model_folder.read_card(folder)
  except UserError:
    return
  assert model_folder.problem_of(card) is None


def test_a_model_of_one_order_says_so_and_keeps_its_window():
  """Other orders are made, with a remark; long videos have its sinks."""
  shipped = model_folder.read_card(model_folder.TINY)
  card = dataclasses.replace(
    shipped, orders=('forward',), window=2, sinks='none', anchors=0
  )
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    plan = workflows.text_to_video(card, 'a seven').plan
    long = workflows.long_video(card, 'a seven', 121).plan
    workflows.text_to_video(shipped, 'a seven', order='backward')
  assert plan.num_anchors == 0 and long.num_sinks == 0
  assert workflows.long_video(shipped, 'a seven', 121).plan.num_sinks > 0
  seen = [
    r.visible for r in (long, workflows.long_video(shipped, 'a', 121).plan)
  ]
  assert np.max(seen[0]) <= 2 < np.max(seen[1])
  for make in (
    lambda: workflows.text_to_video(card, 'a seven', order='backward'),
    lambda: workflows.long_video(card, 'a', 121, direction='backward'),
    lambda: workflows.loop(card, 'a seven'),
  ):
    with pytest.warns(Remark, match='forward only'):
      assert make().plan.num_anchors == card.block
