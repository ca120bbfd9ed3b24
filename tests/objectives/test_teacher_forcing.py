"""The cached rollout of any order equals one masked pass over all its rows.

The sampler runs a plan for one denoising pass per row (exit level 0). What it
makes is then put into the training sequence, clean latents beside the noise
they were made from, and one masked pass must make the same.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import DIT, GRID, TOKENS, latents, make_dit, noise

from unitemp_jax import orders, plans
from unitemp_jax.diffusion import flow
from unitemp_jax.objectives.teacher_forcing import Layout, plan_mask
from unitemp_jax.sampling import sampler
from unitemp_jax.sampling.step import row_noise

N, BLOCK, BATCH = 9, 3, 2
LEVELS = flow.student_sigmas()
TOLERANCE = 1e-4
ORDERS = {
  **{name: (name, {}) for name in orders.ORDERS},
  # As they are trained; `test_window_plans` has those that begin otherwise.
  'loop': ('loop', {'side': 'past', 'closed': True, 'overlap': 1}),
  'forward+first': ('forward', {'given_first': 1}),
  'backward+last': ('backward', {'given_last': 1}),
}


def make_plans(anchors, start=0):
  """All orders by name, in one shape; without anchors none from nothing."""
  made = {
    name: orders.ORDERS[order](N, anchors=anchors, start=start, **given)
    for name, (order, given) in ORDERS.items()
    if anchors or name != 'backward'
  }
  aligned = plans.align(*made.values())
  # Slots to spare, so that a plan may be wrong without running out of them.
  slots = aligned[0].num_slots + 2
  return dict(
    zip(made, [plan.pad(num_slots=slots) for plan in aligned], strict=True)
  )


class Passes:
  """Rollout and masked pass of one transformer, compiled once per shape."""

  def __init__(self):
    self.dit, self.params = make_dit()
    self.text = noise(1, BATCH, 5, DIT.text_dim)
    self.keys = sampler.sample_keys([3, 4])
    self.images = latents(7, BATCH, 2)
    self._roll_out = jax.jit(self._roll_out_fn)
    self._masked = jax.jit(self._masked_fn)

  def _roll_out_fn(self, plan, buffer):
    return sampler.run_plan(
      sampler.cached_denoise(self.dit),
      sampler.committer(TOKENS),
      sampler.make_net(self.dit, self.params, self.text[None]),
      plan,
      DIT.new_cache(BATCH, plan.num_slots, *GRID),
      buffer,
      self.keys,
      LEVELS,
      0,
    )

  def _masked_fn(self, x, sigma, positions, mask):
    context = self.dit.apply(
      {'params': self.params}, self.text, method='text_context'
    )
    return self.dit.apply(
      {'params': self.params}, x, sigma, positions, context, mask_BFF=mask[None]
    )[0]

  def roll_out(self, plan):
    """Returns the buffer that the sampler fills, and every row's anchors."""
    buffer = jnp.zeros((BATCH, plan.num_latents, *GRID, DIT.channels))
    for position, entry in zip(*plan.preloaded(), strict=True):
      buffer = buffer.at[:, entry].set(self.images[:, int(position > 0)])
    return self._roll_out(jax.tree.map(jnp.asarray, plan), buffer)

  def masked(self, plan, buffer, anchors, shift=0, mask_of=None):
    """The same by one masked pass: x0 of all blocks, and of their anchors.

    Args:
      plan: says who sees whom, and what every row starts from.
      buffer: clean latents that the rollout made.
      anchors: of every row, from the rollout.
      shift: added to the noisy latents' positions.
      mask_of: another plan that says who sees whom.

    Returns:
      x0 of the noisy part of the sequence and its (row, index) pairs.
    """
    layout = Layout(N, BLOCK, plan.num_anchors)
    last = buffer[:, 0] if plan.loop else self.images[:, 1]
    images = jnp.stack([self.images[:, 0], last], axis=1)
    parts = [buffer[:, :N], images]
    rest = layout.frames - N - 2
    x = jnp.concatenate(
      [*parts, jnp.zeros((BATCH, rest, *GRID, DIT.channels))], axis=1
    )
    sigma = jnp.zeros((BATCH, layout.frames))
    carried, rows = None, {}
    for row in np.flatnonzero(~plan.conditioning):
      own = [layout.noisy(p) for p, _ in plan.entries(row)]
      drawn = 0
      if plan.anchor[row]:
        span = layout.anchor(int(plan.target[row, 0]) // BLOCK)
        own = [*range(span.start, span.stop), *own]
        drawn = plan.num_anchors
      eps = row_noise(self.keys, row, 0, (len(own), *GRID, DIT.channels))
      level = np.full(len(own), LEVELS[0])
      if plan.start[row]:
        level[drawn:] = LEVELS[plan.start[row]]
        kept = 1 - LEVELS[plan.start[row]]
        block = kept * carried + (1 - kept) * eps[:, drawn:]
        eps = eps.at[:, drawn:].set(block)
      x = x.at[:, np.array(own)].set(eps)
      sigma = sigma.at[:, np.array(own)].set(jnp.asarray(level)[None])
      rows[int(row)] = own
      if plan.anchor[row]:
        carried = anchors[row]
    positions = layout.positions()
    positions[N + 2 :] += shift
    mask = plan_mask(mask_of or plan.inner, layout).mask
    v = self._masked(x, sigma, jnp.asarray(positions), jnp.asarray(mask))
    return x - sigma.reshape(*sigma.shape, 1, 1, 1) * v, rows


@dataclasses.dataclass(frozen=True)
class Case:
  """A plan, and whether its last image is a copy of its first latent."""

  inner: plans.Plan
  loop: bool

  def __getattr__(self, name):
    return getattr(self.inner, name)


@pytest.fixture(scope='module')
def passes():
  return Passes()


def error(passes, case, wrong=None, **changes):
  """Largest difference between rollout (of `wrong`, if given) and pass."""
  buffer, anchors = passes.roll_out(case.inner if wrong is None else wrong)
  x0, rows = passes.masked(case, buffer, anchors, **changes)
  worst = 0.0
  for row, own in rows.items():
    wanted = buffer[:, [entry for _, entry in case.entries(row)]]
    if case.anchor[row]:
      wanted = jnp.concatenate([anchors[row], wanted], axis=1)
    worst = max(worst, float(jnp.abs(x0[:, np.array(own)] - wanted).max()))
  return worst


@pytest.mark.parametrize(
  ('anchors', 'start', 'name'),
  [
    (*settings, name)
    for settings in ((3, 0), (3, 3), (0, 0))
    for name in make_plans(*settings)
  ],
)
def test_cached_rollout_equals_one_masked_pass(passes, name, anchors, start):
  plan = make_plans(anchors, start)[name]
  assert error(passes, Case(plan, name == 'loop')) < TOLERANCE


def change(plan, field, row, value):
  array = getattr(plan, field).copy()
  array[row] = value
  return dataclasses.replace(plan, **{field: array})


@pytest.mark.parametrize('name', ['backward', 'inbetween_outside_in'])
def test_a_rollout_that_sees_something_else_differs(passes, name):
  plan = make_plans(3)[name]
  case = Case(plan, False)
  row = int(np.flatnonzero(~plan.conditioning)[1])
  visible = int(plan.visible[row])
  for by in (-1, 1):
    wrong = change(plan, 'visible', row, visible + by)
    assert error(passes, case, wrong) > 100 * TOLERANCE


def test_a_rollout_at_other_positions_differs(passes):
  plan = make_plans(3)['backward']
  case = Case(plan, False)
  wrong = change(plan, 'target', 1, plan.target[1] + 1)
  assert error(passes, case, wrong) > 100 * TOLERANCE
  assert error(passes, case, shift=1) > 100 * TOLERANCE


def test_the_mask_of_another_order_differs(passes):
  made = make_plans(3)
  case = Case(made['inbetween'], False)
  other = made['inbetween_future']
  assert error(passes, case, mask_of=other) > 100 * TOLERANCE


def test_anchors_and_drafts_of_the_blocks():
  layout = Layout(N, BLOCK, 3)
  for name, anchored, drafted in (
    ('forward', [0, 0, 0], [0, 0, 0]),
    ('backward', [0, 1, 1], [1, 1, 0]),
    ('inbetween', [0, 0, 0], [0, 0, 0]),
    ('inbetween_outside_in', [0, 0, 1], [0, 1, 0]),
  ):
    made = plan_mask(make_plans(3, 3)[name], layout)
    np.testing.assert_array_equal(made.anchored, np.array(anchored, bool))
    np.testing.assert_array_equal(made.drafted, np.array(drafted, bool))
  for plan in make_plans(0).values():
    assert not plan_mask(plan, Layout(N, BLOCK, 0)).anchored.any()


def test_positions_of_the_training_sequence():
  layout = Layout(N, BLOCK, 2)
  assert layout.frames == 2 * N + 2 + 2 * 2
  wanted = [*range(9), 0, 8, *range(9), 1, 2, 4, 5]
  np.testing.assert_array_equal(layout.positions(), wanted)
  assert layout.image(True) == 10
  assert layout.anchor(2) == slice(22, 24)
