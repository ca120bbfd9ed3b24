"""Normalised attention guidance against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.models import nag, sizes
from unitemp_jax.models.dit import DiT, DiTConfig
from unitemp_jax.models.nag import Nag

SHAPE = (1, 6, 2, 4)  # BTNK


def arrays(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def softmax_attention(q, k, v):
  logits = np.einsum('btnk,bsnk->bnts', q, k) / np.sqrt(q.shape[-1])
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  return np.einsum('bnts,bsnk->btnk', weights, v)


@pytest.mark.parametrize('scale, tau, alpha', [(5, 2.5, 0.25), (9, 1.2, 1.0)])
def test_the_formula(scale, tau, alpha):
  q, k, v = (arrays(i, *SHAPE) for i in range(3))
  k2, v2 = (arrays(i, 1, 5, 2, 4) for i in (3, 4))
  made = nag.attend(q, k, v, k2, v2, jnp.float32([scale, tau, alpha]))
  plus, minus = softmax_attention(q, k, v), softmax_attention(q, k2, v2)
  wanted = np.empty_like(plus)
  cut = 0
  for t in range(SHAPE[1]):
    guidance = scale * plus[0, t] - (scale - 1) * minus[0, t]
    ratio = np.abs(guidance).sum() / np.abs(plus[0, t]).sum()
    if ratio > tau:
      guidance, cut = guidance / ratio * tau, cut + 1
    wanted[0, t] = alpha * guidance + (1 - alpha) * plus[0, t]
  assert cut  # The norm is not idle.
  np.testing.assert_allclose(made, wanted, atol=1e-5)


CONFIG = DiTConfig(
  dim=16, ffn_dim=32, num_heads=2, num_layers=2, channels=4, text_dim=8,
  freq_dim=8,
)  # fmt: skip


def test_in_the_network():
  """Scale 1, and a negative prompt that is the prompt, change nothing."""
  dit = DiT(CONFIG)
  x = jnp.asarray(arrays(0, 1, 2, 4, 4, 4))
  text, other = (jnp.asarray(arrays(i, 1, 5, 8)) for i in (1, 2))
  positions, sigma = jnp.arange(2), jnp.full((1, 2), 0.5)
  params = jax.tree.map(
    lambda leaf: jnp.asarray(arrays(leaf.size, *leaf.shape) / 2),
    sizes.param_shapes(CONFIG),
  )

  def context(text):
    made = dit.apply({'params': params}, text, method='text_context')
    return jax.tree.map(lambda leaf: leaf[None], made)

  def velocity(context):
    context = jax.tree.map(lambda leaf: leaf[0], context)
    return dit.apply({'params': params}, x, sigma, positions, context)[0]

  base = velocity(context(text))
  for negative, strength, same in (
    (other, Nag('b', scale=1.0), True),
    (text, Nag('b'), True),
    (other, Nag('b', alpha=0.0), True),
    (other, Nag('b'), False),
  ):
    found = velocity(nag.guided(context(text), context(negative), strength))
    assert (abs(found - base).max() < 1e-5) == same


@pytest.mark.parametrize(
  'fields', [{'scale': 0.5}, {'tau': 0}, {'alpha': 2}, {'prompt': ' '}]
)
def test_strengths_out_of_range(fields):
  with pytest.raises(UserError):
    Nag(**{'prompt': 'x', **fields})
