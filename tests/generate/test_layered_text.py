"""A text encoder that is read layer by layer computes what a whole one does."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_networks import random_params

from unitemp_jax import TINY
from unitemp_jax.data import prompt_embeddings
from unitemp_jax.generate import encode_prompts, pipeline, text
from unitemp_jax.models import weights
from unitemp_jax.models.umt5 import TextConfig, TextEncoder
from unitemp_jax.sampling import model_folder

PROMPTS = ['a red seven falls', 'a cyan two hops up and down']
CONFIG = TextConfig(40, 16, 2, 8, 32, 3, length=12)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_layer_by_layer_is_the_whole(dtype):
  config = dataclasses.replace(CONFIG, dtype=dtype)
  ids = np.array([[5, 6, 7, 1, *[0] * 8], [9, 1, *[0] * 10]], np.int32)
  mask = ids > 0
  encoder, read = TextEncoder(config), []
  params = random_params(encoder.init, ids, mask)

  def load(name):
    read.append(name)
    return params[name]

  made = text.LayeredEncoder(config, load).encode(ids, mask)
  whole = jax.jit(encoder.apply)({'params': params}, ids, mask)
  np.testing.assert_allclose(
    made.astype(np.float32),
    np.asarray(whole, np.float32),
    atol=1e-5 if dtype == 'float32' else 0.05,
  )
  assert read == ['token_embedding', 'layer0', 'layer1', 'layer2', 'norm_out']
  params['layer1'] = params['layer2']  # Negative control.
  other = text.LayeredEncoder(config, load).encode(ids, mask)
  assert np.abs(np.asarray(other - made, np.float32)).max() > 0.1


def test_a_large_one_is_not_held_beside_the_student(monkeypatch):
  held = pipeline.Pipeline.load()
  monkeypatch.setattr(text, '_SMALL_BYTES', 0)
  read, load = [], weights.load

  def note(path, shapes, part=None):
    read.append((path.name, part))
    return load(path, shapes, part)

  monkeypatch.setattr(weights, 'load', note)
  lean = pipeline.Pipeline.load()
  assert 'text' in held.params and 'text' not in lean.params
  assert not [name for name, _ in read if name == 'text.safetensors']
  np.testing.assert_allclose(
    lean.text({}, PROMPTS), held.text(held.params['text'], PROMPTS), atol=1e-5
  )
  # Those of a set are encoded together: read once, and held no more.
  read.clear()
  wanted = [*PROMPTS, 'a green one', 'a blue six', PROMPTS[0]]
  text.read_ahead(lean.text, lean.params, wanted)
  once = [part for name, part in read if name == 'text.safetensors']
  assert once and len(set(once)) == len(once)
  together = lean.text({}, ['a green one', 'a blue six'])
  assert len(once) == len(read)  # Nothing is read again.
  alone = held.text(held.params['text'], ['a green one', 'a blue six'])
  np.testing.assert_allclose(together, alone, atol=1e-5)
  card = model_folder.read_card(TINY)
  assert text.memory_report(card, False) is None
  monkeypatch.setattr(text, '_TOLD_BYTES', 0)
  assert 'read layer by layer' in text.memory_report(card, False)
  assert 'layer' not in text.memory_report(card, True)


def test_prompts_are_encoded_alike(tmp_path, monkeypatch):
  encoder = encode_prompts.model_encoder(TINY)
  tokenizer = TINY / 'tokenizer.json'
  encode_prompts.encode(encoder, tokenizer, PROMPTS, tmp_path / 'whole')
  monkeypatch.setattr(text, '_SMALL_BYTES', 0)
  encode_prompts.encode(encoder, tokenizer, PROMPTS, tmp_path / 'layered')
  whole, layered = (
    prompt_embeddings.PromptEmbeddings(tmp_path / name)
    for name in ('whole', 'layered')
  )
  for i in range(2):
    np.testing.assert_allclose(whole[i], layered[i], atol=1e-5)
