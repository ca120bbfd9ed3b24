import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import noise

from unitemp_jax.models import vae_blocks
from unitemp_jax.models.vae_blocks import CausalConv, ConvCache, valid_time_conv

SHAPES = [((3, 3, 3), 5), ((3, 1, 1), 3), ((1, 3, 3), 2), ((1, 1, 1), 1)]


def naive(x, kernel):
  """The sum over taps, written out."""
  kt, kh, kw, _, _ = kernel.shape
  pad = ((0, 0), (0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0))
  x = np.pad(np.asarray(x), pad)
  _, t, h, w, _ = x.shape
  out = 0.0
  for i in range(kt):
    for j in range(kh):
      for k in range(kw):
        part = x[:, i : t - kt + 1 + i, j : h - kh + 1 + j, k : w - kw + 1 + k]
        out = out + part @ np.asarray(kernel)[i, j, k]
  return out


@pytest.mark.parametrize('size, frames', SHAPES)
def test_forms_agree_with_the_written_out_sum(size, frames):
  x, kernel = noise(0, 2, frames, 4, 3, 3), noise(1, *size, 3, 5)
  wanted = naive(x, kernel)
  for form in ('folded', 'direct'):
    y = valid_time_conv(x, kernel, form)
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)
  if size[0] > 1:  # The control: time runs one way.
    reverse = valid_time_conv(x, kernel[::-1], 'folded')
    assert np.abs(reverse - wanted).max() > 0.1


def test_gradients_of_the_forms_agree():
  x, kernel, weight = noise(0, 1, 5, 4, 4, 3), noise(1, 3, 3, 3, 3, 2), None

  def gradients(form, weight):
    def loss(x, kernel):
      y = valid_time_conv(x, kernel, form)
      return (y * weight).sum()

    return jax.grad(loss, argnums=(0, 1))(x, kernel)

  weight = noise(2, 1, 3, 4, 4, 2)
  pairs = zip(
    gradients('folded', weight), gradients('direct', weight), strict=True
  )
  for folded, direct in pairs:
    np.testing.assert_allclose(folded, direct, rtol=1e-4, atol=1e-4)
  other = gradients('direct', -weight)
  assert jnp.abs(other[1] - gradients('folded', weight)[1]).max() > 0.1


def test_form_is_chosen_per_backend(monkeypatch):
  assert vae_blocks.conv_form('auto') == 'folded'  # Tests run on CPU.
  monkeypatch.setattr(vae_blocks.jax, 'default_backend', lambda: 'tpu')
  assert vae_blocks.conv_form('auto') == 'direct'
  assert vae_blocks.conv_form('folded') == 'folded'


def test_chunks_of_any_size_equal_the_whole():
  conv = CausalConv(4, (3, 3, 3))
  x = noise(0, 1, 7, 3, 3, 2)
  params = conv.init(jax.random.key(0), x, ConvCache(None))
  whole = conv.apply(params, x, ConvCache(None))
  for sizes in ([1, 1, 5], [2, 5], [4, 3]):
    cache, parts, first = None, [], 0
    for size in sizes:
      conv_cache = ConvCache(cache)
      parts.append(conv.apply(params, x[:, first : first + size], conv_cache))
      cache, first = conv_cache.arrays(), first + size
    np.testing.assert_allclose(
      jnp.concatenate(parts, 1), whole, rtol=1e-4, atol=1e-5
    )
  alone = conv.apply(params, x[:, 3:], ConvCache(None))
  assert jnp.abs(alone - whole[:, 3:]).max() > 0.1


def test_a_tape_that_is_not_read_to_its_end_is_an_error():
  conv_cache = ConvCache((jnp.zeros((1, 2, 1, 1, 1)),) * 2)
  conv = CausalConv(1, (3, 1, 1))
  x = jnp.zeros((1, 4, 1, 1, 1))
  conv.init_with_output(jax.random.key(0), x, conv_cache)
  with pytest.raises(ValueError, match='2 caches given, 1 layers read'):
    conv_cache.arrays()
