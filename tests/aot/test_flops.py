"""Operations counted from sizes, against a hand and against XLA."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax import orders
from unitemp_jax.models import flops, sizes
from unitemp_jax.models.dit import DiT, DiTConfig
from unitemp_jax.models.flops import Flops
from unitemp_jax.models.umt5 import TextConfig, TextEncoder
from unitemp_jax.models.vae3d import VAE, VAEConfig
from unitemp_jax.training import flops as training_flops

# All layers unrolled, because XLA counts the body of a loop once.
DIT = DiTConfig(
  dim=256,
  ffn_dim=512,
  num_heads=2,
  num_layers=2,
  text_dim=64,
  freq_dim=64,
  unroll=2,
)
VAES = [
  VAEConfig(base_dim=16, conv_form='direct'),
  VAEConfig(
    base_dim=16,
    dim_mult=(1, 2, 2),
    num_res_blocks=1,
    temporal_down=(True, True),
    z_dim=8,
    patch=2,
    conv_form='direct',
  ),
]


def by_xla(function, *shapes):
  return jax.jit(function).lower(*shapes).cost_analysis()['flops']


def array(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


def test_one_layer_by_hand():
  config = DiTConfig(
    dim=4, ffn_dim=8, num_heads=1, num_layers=1, channels=1, patch=1, freq_dim=2
  )
  # Two frames of three tokens see nine keys, of a prompt of five tokens.
  found = flops.dit_pass(config, 1, 2, 3, keys=9, text=5)
  layer = 2 * 6 * (4 * 16 + 2 * 16 + 2 * 32)
  ends = 2 * 6 * (4 + 4)
  time = 2 * 2 * (2 * 4 + 16 + 6 * 16)
  assert found == Flops(layer + ends + time, 4 * 6 * 4 * (9 + 5))
  assert flops.trained(Flops(2.0, 4.0), 1) == Flops(8.0, 18.0)


def velocity(config):
  dit = DiT(config)

  def run(params, x, text):
    context = dit.apply({'params': params}, text, method='text_context')
    sigma = jnp.full(x.shape[:2], 0.5)
    positions = jnp.arange(x.shape[1])
    return dit.apply({'params': params}, x, sigma, positions, context)[0]

  shapes = sizes.param_shapes(config), array(2, 3, 16, 16, 16), array(2, 24, 64)
  return run, shapes


def test_the_transformer_as_xla_counts_it():
  run, shapes = velocity(DIT)
  ours = flops.dit_pass(DIT, 2, 3, 64, 192, 24)
  ours += flops.text_context(DIT, 2, 24)
  assert by_xla(run, *shapes) == pytest.approx(ours.total, rel=0.03)
  less = flops.dit_pass(
    dataclasses.replace(DIT, num_layers=1), 2, 3, 64, 192, 24
  )
  assert by_xla(run, *shapes) != pytest.approx(less.total, rel=0.3)


@pytest.mark.parametrize('remat', ['none', 'full'])
def test_its_gradient_too(remat):
  run, shapes = velocity(dataclasses.replace(DIT, remat=remat))

  def gradient(params, *rest):
    return jax.grad(lambda p: run(p, *rest).sum())(params)

  own = flops.dit_pass(DIT, 2, 3, 64, 192, 24) + flops.text_context(DIT, 2, 24)
  ours = flops.trained(own, remat == 'full', backward_attention=2.0)
  assert by_xla(gradient, *shapes) == pytest.approx(ours.total, rel=0.03)


@pytest.mark.parametrize('config', VAES)
@pytest.mark.parametrize('start', [True, False])
def test_the_vae_as_xla_counts_it(config, start):
  """XLA leaves out what is padding, ever less the larger the picture."""
  vae, params = VAE(config), sizes.param_shapes(config)
  side = 24 * config.spatial_stride

  def decode(params, latents, memory):
    return vae.apply({'params': params}, latents, memory, method='decode')

  def encode(params, video, memory):
    return vae.apply({'params': params}, video, memory, method='encode')

  latents, memory = array(1, 2, 24, 24, config.z_dim), None
  if not start:
    memory = jax.eval_shape(decode, params, latents, None)[1]
  ours = flops.vae_decode(config, 2, 24, 24, start).total
  assert by_xla(decode, params, latents, memory) == pytest.approx(
    ours, rel=0.03
  )
  video = array(1, 4 + start, side, side, 3)
  if not start:
    first = array(1, 5, side, side, 3)
    memory = jax.eval_shape(encode, params, first, None)[1]
  ours = flops.vae_encode(config, 4 + start, side, side, start).total
  assert by_xla(encode, params, video, memory) == pytest.approx(ours, rel=0.03)


def test_the_text_encoder_as_xla_counts_it():
  config = TextConfig(
    vocab=50,
    dim=128,
    num_heads=4,
    head_dim=32,
    ffn_dim=256,
    num_layers=2,
    length=64,
  )
  found = by_xla(
    lambda params, *rest: TextEncoder(config).apply({'params': params}, *rest),
    sizes.param_shapes(config),
    array(2, 64, dtype=jnp.int32),
    array(2, 64, dtype=bool),
  )
  assert found == pytest.approx(flops.text_encoder(config, 2).total, rel=0.03)


def test_a_plan_costs_what_its_rows_see():
  """Forward, blocks of three: rows see 3, 6, 9 latents, growing."""
  plan = orders.ORDERS['forward'](9, anchors=3, start=3)
  rows = training_flops.plan_rows(DIT, plan, 10, 5, draft_from=1)
  expected = [flops.dit_pass(DIT, 1, 3, 10, 10 * n, 5) for n in (3, 6, 9)]
  assert [row.write for row in rows] == expected
  assert [row.denoise for row in rows] == expected
  total = training_flops.sample(rows, exit_level=3)
  assert total.total == pytest.approx(5 * sum(e.total for e in expected))
  # Backward, blocks but the first in time have anchors, and cost more.
  back = orders.ORDERS['backward'](9, anchors=3, start=3)
  more = training_flops.plan_rows(DIT, back, 10, 5, draft_from=1)
  assert training_flops.sample(more, 3).total > total.total
  without = training_flops.plan_rows(
    DIT, back, 10, 5, draft_from=1, anchored=False
  )
  # Dropped, but where nothing else says that there is a past.
  assert without[0] == more[0]
  assert [row.denoise for row in without[1:]] == expected[1:]


def test_a_rollout_is_the_mean_of_what_it_draws():
  plan = orders.ORDERS['backward'](9, anchors=3, start=3)
  clip = training_flops.Clip(frames=9, frame=10, text=5)
  settings = {'passes': 2, 'draft_from': 1}
  before, last = training_flops.rollout(
    DIT, [(plan, 2.0)], clip, anchor_drop=0.0, **settings
  )
  rows = training_flops.plan_rows(DIT, plan, 10, 5, draft_from=1)
  mean = np.mean([training_flops.sample(rows, level).total for level in (0, 1)])
  assert (before + last).total == pytest.approx(mean)
  _, dropped = training_flops.rollout(
    DIT, [(plan, 2.0)], clip, anchor_drop=1.0, **settings
  )
  assert dropped.total < last.total
