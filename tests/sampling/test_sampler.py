"""Laws of the sampler with a network that records what it is asked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import latents

from unitemp_jax import orders, plans
from unitemp_jax.diffusion import flow
from unitemp_jax.errors import UserError
from unitemp_jax.models import dit, sizes
from unitemp_jax.sampling import model_folder, sampler
from unitemp_jax.sampling.step import (
  DEFAULTS,
  StepOptions,
  row_noise,
  sigma_table,
)

N, BATCH, ANCHORS = 9, 2, 3
LEVELS = flow.student_sigmas()
PASSES = len(LEVELS) - 1
# Position p is denoised to the value p, whatever the noise.
GRID = latents(0, BATCH, 1).shape[2:]


@dataclasses.dataclass
class Calls:
  """What the network was asked, in order: positions, levels, visible."""

  made: list = dataclasses.field(default_factory=list)

  def add(self, positions, sigma, slot, visible, prompt):
    self.made.append(
      (positions.tolist(), sigma.tolist(), int(slot), int(visible), int(prompt))
    )

  def take(self):
    jax.effects_barrier()
    made, self.made = self.made, []
    return made


CALLS = Calls()


def denoise(net, x, sigma, positions, prompt, cache, slot, visible):
  jax.debug.callback(
    CALLS.add, positions, sigma[0], slot, visible, prompt, ordered=True
  )
  truth = jnp.broadcast_to(
    positions.astype(jnp.float32).reshape(1, -1, 1, 1, 1), x.shape
  )
  # The clean pass asks at level 0, where there is no velocity to tell.
  safe = jnp.where(sigma > 0, sigma, 1.0)
  return net * flow.to_velocity(x, truth, safe), cache


def make_run(traces):
  """A jitted sampler that appends to `traces` whenever it is traced."""

  @jax.jit
  def run(plan, buffer, keys, exit_level):
    traces.append(plan)
    return sampler.run_plan(
      denoise,
      lambda cache, start, write: cache,
      jnp.ones(()),
      plan,
      jnp.zeros(()),
      buffer,
      keys,
      LEVELS,
      exit_level,
    )

  return run


RUN = make_run([])


def sample(plan, exit_level=PASSES - 1, run=RUN):
  """Returns (latents, anchors, calls) of a plan."""
  CALLS.take()
  buffer = jnp.full((BATCH, plan.num_latents, *GRID), -7.0)
  out = run(
    jax.tree.map(jnp.asarray, plan),
    buffer,
    sampler.sample_keys([1, 2]),
    exit_level,
  )
  return *jax.block_until_ready(out), CALLS.take()


def all_orders(**settings):
  return plans.align(*(f(N, **settings) for f in orders.ORDERS.values()))


def rows_of(plan, calls):
  """Splits calls by plan row: a row ends with its clean pass at level 0."""
  rows, row = [], []
  for call in calls:
    row.append(call)
    if not any(call[1]):
      rows.append(row)
      row = []
  assert not row
  used = [i for i in range(plan.num_rows) if plan.count[i]]
  return dict(zip(used, rows, strict=True))


def test_all_orders_share_one_compilation():
  traces = []
  run = make_run(traces)
  for plan in all_orders(anchors=ANCHORS, start=3):
    sample(plan, run=run)
  assert len(traces) == 1
  # The control: a plan of another shape is another program.
  sample(orders.forward(N, anchors=ANCHORS, rows=12), run=run)
  assert len(traces) == 2


@pytest.mark.parametrize('start', [0, 3])
def test_anchor_tokens_run_in_anchored_rows_only(start):
  seen = set()
  for plan in all_orders(anchors=ANCHORS, start=start):
    _, _, calls = sample(plan)
    rows = rows_of(plan, calls)
    assert len(rows) == sum(plan.count > 0)  # Inert rows run no pass.
    for i, passes in rows.items():
      anchored = bool(plan.anchor[i])
      frames = [len(positions) for positions, *_ in passes]
      skipped = 0 if anchored else int(plan.start[i])
      wanted = 0 if plan.conditioning[i] else PASSES - skipped
      length = plan.block + ANCHORS * anchored
      assert frames == [length] * wanted + [plan.block]
      seen.add((anchored, wanted))
  # The controls: rows of every kind were met, some without anchors.
  skipping = {(False, PASSES - start)} if start else set()
  assert seen == {(True, PASSES), (False, PASSES), (False, 0)} | skipping


def test_plan_without_anchors_runs_none():
  tokens = {}
  for anchors in (0, ANCHORS):
    plan = orders.backward(N, anchors=anchors, given_last=1)
    _, _, calls = sample(plan)
    tokens[anchors] = sum(len(positions) for positions, *_ in calls)
  # Three blocks, and the clean pass of what is given.
  assert tokens[0] == 3 * 3 * (PASSES + 1) + 3
  assert tokens[ANCHORS] == tokens[0] + 2 * ANCHORS * PASSES


def test_network_is_told_positions_levels_and_visible_prefix():
  for plan in all_orders(anchors=ANCHORS, start=3):
    _, _, calls = sample(plan)
    for i, passes in rows_of(plan, calls).items():
      target, visible = plan.target[i].tolist(), int(plan.visible[i])
      count, anchored = int(plan.count[i]), bool(plan.anchor[i])
      *denoising, clean = passes
      wanted = [0.0] * plan.block
      assert clean == (target, wanted, visible, visible + count, 0)
      start = 0 if anchored else int(plan.start[i])
      first = target[0] - ANCHORS if anchored else target[0]
      for level, call in enumerate(denoising, start=start):
        positions, sigma, slot, seen, _ = call
        assert positions == list(range(first, target[-1] + 1))
        assert (slot, seen) == (visible, visible + count + ANCHORS * anchored)
        cap = LEVELS[plan.start[i]] if plan.start[i] else 1.0
        own = min(LEVELS[level], cap)
        wanted = [LEVELS[level]] * (len(positions) - 3) + [own] * 3
        np.testing.assert_allclose(sigma, wanted, rtol=1e-6)


def test_results_land_where_the_plan_says():
  for plan in all_orders(anchors=ANCHORS, start=3):
    buffer, anchors, _ = sample(plan)
    positions, entries = plan.timeline()
    np.testing.assert_allclose(
      buffer[0, entries, 0, 0, 0], positions, atol=1e-4
    )
    assert (positions == np.arange(N - plan.loops)).all()
    # What was given is left alone.
    _, given = plan.preloaded()
    assert (buffer[:, given] == -7).all()
    for i in np.flatnonzero(plan.anchor):
      np.testing.assert_allclose(
        anchors[i, 0, :, 0, 0, 0],
        plan.target[i, 0] - ANCHORS + np.arange(ANCHORS),
        atol=1e-4,
      )


def test_short_blocks_leave_the_padding_alone():
  plan = orders.forward(8, anchors=ANCHORS).pad(num_latents=10)
  buffer, _, _ = sample(plan)
  np.testing.assert_allclose(
    buffer[0, :, 0, 0, 0], [*range(8), -7, -7], atol=1e-4
  )


@pytest.mark.parametrize('exit_level', range(PASSES))
def test_all_rows_exit_at_the_same_level(exit_level):
  plan = orders.backward(N, anchors=ANCHORS)
  _, _, calls = sample(plan, exit_level)
  for passes in rows_of(plan, calls).values():
    levels = [max(sigma) for _, sigma, *_ in passes[:-1]]
    np.testing.assert_allclose(levels, LEVELS[: exit_level + 1])


def test_last_exit_level_is_the_default():
  plan = orders.backward(N, anchors=ANCHORS, start=3)
  keys = sampler.sample_keys([1, 2])
  buffer = jnp.zeros((BATCH, plan.num_latents, *GRID))

  def ask(*exit_level):
    # A network that is not perfect, so that the number of passes matters.
    return sampler.run_plan(
      denoise,
      lambda cache, start, write: cache,
      jnp.full((), 0.5),
      plan,
      jnp.zeros(()),
      buffer,
      keys,
      LEVELS,
      *exit_level,
    )[0]

  default = ask()
  np.testing.assert_array_equal(ask(PASSES - 1), default)
  assert jnp.abs(ask(PASSES - 2) - default).max() > 1e-2


def test_no_setting_of_jax_changes_a_draw():
  draw = lambda key: jax.random.normal(key, (3,))  # noqa: E731
  usual = draw(sampler.sample_keys([5])[0])
  with jax.default_prng_impl('rbg'):
    np.testing.assert_array_equal(draw(sampler.sample_keys([5])[0]), usual)
    assert (draw(jax.random.key(5)) != usual).all()
  with jax.threefry_partitionable(False):
    assert (draw(jax.random.key(5)) != usual).any()
    with pytest.raises(UserError, match=r'partitionable=False.*set it to True'):
      sampler.sample_keys([5])


def test_noise_depends_on_sample_row_and_level_only():
  keys = sampler.sample_keys([5, 6, 7])
  shape = (4, 2, 3, 1)
  base = row_noise(keys, 2, 1, shape)
  alone = row_noise(keys[1:2], 2, 1, shape)
  np.testing.assert_array_equal(alone[0], base[1])
  again = row_noise(sampler.sample_keys([7, 5, 6]), 2, 1, shape)
  np.testing.assert_array_equal(again[jnp.array([1, 2, 0])], base)
  different = [
    base[1],
    base[0],
    row_noise(keys, 3, 1, shape)[1],
    row_noise(keys, 2, 2, shape)[1],
    row_noise(keys, 1, 2, shape)[1],
  ]
  for i, one in enumerate(different):
    for other in different[:i]:
      assert jnp.abs(one - other).min() > 0
  assert abs(float(base.mean())) < 0.5
  assert 0.7 < float(base.std()) < 1.3


def test_levels_of_a_block_that_starts_from_anchors():
  table = sigma_table(jnp.asarray(LEVELS), jnp.asarray(3), 2, 3)
  np.testing.assert_allclose(table[:, :2], np.stack([LEVELS] * 2, 1))
  capped = np.minimum(LEVELS, LEVELS[3])
  np.testing.assert_allclose(table[:, 2:], np.stack([capped] * 3, 1))
  from_noise = sigma_table(jnp.asarray(LEVELS), jnp.asarray(0), 2, 3)
  np.testing.assert_allclose(from_noise, np.stack([LEVELS] * 5, 1))


def test_a_latent_in_the_place_of_an_image_latent_starts_from_noise():
  table = sigma_table(
    jnp.asarray(LEVELS), jnp.asarray(3), 2, 3, StepOptions(draft_from=1)
  )
  np.testing.assert_allclose(table[:, :3], np.stack([LEVELS] * 3, 1))
  capped = np.minimum(LEVELS, LEVELS[3])
  np.testing.assert_allclose(table[:, 3:], np.stack([capped] * 2, 1))


def inputs(plan, options=DEFAULTS):
  """What goes into every pass: noisy latents, sigmas, positions."""
  seen = []

  def spy(net, x, sigma, positions, prompt, cache, slot, visible):
    jax.debug.callback(
      lambda *a: seen.append([np.asarray(v) for v in a]),
      x,
      sigma,
      positions,
      ordered=True,
    )
    return denoise(net, x, sigma, positions, prompt, cache, slot, visible)

  sampler.run_plan(
    spy,
    lambda cache, start, write: cache,
    jnp.ones(()),
    plan,
    jnp.zeros(()),
    jnp.zeros((BATCH, N, *GRID)),
    sampler.sample_keys([1, 2]),
    LEVELS,
    options=options,
  )
  jax.effects_barrier()
  return seen


def test_a_block_starts_from_the_carried_anchors():
  plan = orders.backward(N, anchors=ANCHORS, start=3)
  assert plan.start.tolist() == [0, 3, 3]
  seen, keys = inputs(plan), sampler.sample_keys([1, 2])
  # Row 2 is not anchored: one pass at level 3, from positions 0..2 re-noised.
  x, sigma, positions = seen[-2]
  assert positions.tolist() == [0, 1, 2]
  np.testing.assert_allclose(sigma, LEVELS[3])
  noise = row_noise(keys, 2, 3, (3, *GRID))
  draft = np.broadcast_to(np.arange(3.0).reshape(1, 3, 1, 1, 1), x.shape)
  wanted = (1 - LEVELS[3]) * draft + LEVELS[3] * noise
  np.testing.assert_allclose(x, wanted, atol=1e-4)
  # Row 0 starts from noise alone.
  np.testing.assert_allclose(
    seen[0][0], row_noise(keys, 0, 0, (6, *GRID)), atol=1e-6
  )


def test_a_held_draft_is_the_same_in_every_pass():
  plan = orders.backward(N, anchors=ANCHORS, start=3)
  options = StepOptions(draft_from=1, draft_sigma=0.05)
  held = inputs(plan, options)[5:9]  # the passes of row 1
  assert all(call[2].tolist() == list(range(6)) for call in held)
  keys = sampler.sample_keys([1, 2])
  noise = row_noise(keys, 1, 0, (6, *GRID))[:, 4:]
  draft = np.arange(4.0, 6.0).reshape(1, 2, 1, 1, 1)
  for x, sigma, _ in held:
    np.testing.assert_allclose(sigma[:, 4:], 0.05)
    np.testing.assert_allclose(x[:, 4:], 0.95 * draft + 0.05 * noise, atol=1e-4)
  # Anchors, and what has the place of an image latent, follow the schedule.
  np.testing.assert_allclose(
    [s[0, :4] for _, s, _ in held], LEVELS[:4, None] + np.zeros((4, 4))
  )
  # The control: else it is drawn anew in every pass.
  anew = inputs(plan, StepOptions(draft_from=1))[5:9]
  assert np.abs(anew[0][0][:, 4:] - anew[1][0][:, 4:]).max() > 0.1


def test_a_layer_is_traced_once_for_each_number_of_frames(monkeypatch):
  card = model_folder.read_card(model_folder.TINY)
  net, params = dit.DiT(card.dit), sizes.param_shapes(card.dit)
  seen = []
  monkeypatch.setattr(dit, 'mark_input', lambda x: seen.append(x.shape) or x)
  plan = orders.ORDERS['forward'](N, block=card.block, anchors=card.anchors)

  def run(params, text, buffer):
    made = sampler.make_net(net, params, text)
    return sampler.sample_plan(card, made, plan, buffer, jnp.arange(1))

  text = jnp.zeros((1, 1, card.text.length, card.dit.text_dim))
  buffer = jnp.zeros((1, N, 4, 4, card.dit.channels))
  jax.eval_shape(run, params, text, buffer)
  # Every pass of a block and its write are one; with anchors it is longer.
  assert [shape[1] for shape in seen] == [card.block, card.block + card.anchors]
