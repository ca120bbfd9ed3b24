"""Windows and sinks: the cached rollout equals what the plan says.

The reference knows no cache: one masked pass over the frames of all rows, in
which every row sees the frames of the rows that wrote what it sees. Its mask
keeps it from tiles of keys, which the rollout uses here at its small size.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import DIT, GRID, TOKENS, make_dit, noise

from unitemp_jax import orders, plans
from unitemp_jax.diffusion import flow
from unitemp_jax.errors import UserError
from unitemp_jax.models.attention import dispatch
from unitemp_jax.sampling import sampler
from unitemp_jax.sampling.step import row_noise

BATCH = 2
LEVELS = flow.student_sigmas()
TOLERANCE = 1e-4
CHANNELS = DIT.channels
FRAMES = 128  # of the masked pass


class Networks:
  """Rollout and masked pass of one transformer; counts its compilations."""

  def __init__(self):
    self.dit, self.params = make_dit()
    self.texts = noise(1, 2, BATCH, 5, DIT.text_dim)
    self.keys = sampler.sample_keys([3, 4])
    self.traces = []
    self._roll_out = jax.jit(self._roll_out_fn)
    self._masked = jax.jit(self._masked_fn)

  def _roll_out_fn(self, plan, buffer):
    self.traces.append(plan)
    return sampler.run_plan(
      sampler.cached_denoise(self.dit),
      sampler.committer(TOKENS),
      sampler.make_net(self.dit, self.params, self.texts),
      plan,
      sampler.cache_for(DIT, plan, BATCH, *GRID),
      buffer,
      self.keys,
      LEVELS,
      0,
      place=sampler.placer(DIT, *GRID),
    )

  def roll_out(self, plan):
    """Returns the filled buffer, and every row's anchors."""
    shape = (BATCH, plan.num_latents, *GRID, CHANNELS)
    buffer = jnp.zeros(shape)
    for position, entry in zip(*plan.preloaded(), strict=True):
      given = noise(100 + int(position), BATCH, *GRID, CHANNELS)
      buffer = buffer.at[:, int(entry)].set(given)
    return self._roll_out(jax.tree.map(jnp.asarray, plan), buffer)

  def trace(self, plan):
    """Traces the rollout of a plan without compiling it."""
    shape = (BATCH, plan.num_latents, *GRID, CHANNELS)
    self._roll_out.lower(jax.tree.map(jnp.asarray, plan), jnp.zeros(shape))

  def _masked_fn(self, x, sigma, positions, mask):
    context = self.dit.apply(
      {'params': self.params}, self.texts[0], method='text_context'
    )
    return self.dit.apply(
      {'params': self.params}, x, sigma, positions, context, mask_BFF=mask[None]
    )[0]

  def masked(self, plan, buffer, anchors):
    """x0 of all generated rows by one masked pass, by row."""
    frames = Frames(plan, buffer, anchors, self.keys)
    own = {row: frames.noisy(row) for row in np.flatnonzero(~plan.conditioning)}
    x, sigma, positions, mask = frames.arrays()
    v = self._masked(x, sigma, positions, mask)
    x0 = x - sigma.reshape(*sigma.shape, 1, 1, 1) * np.array(v)
    return {row: x0[:, np.array(indices)] for row, indices in own.items()}


class Frames:
  """The frames of all rows in one sequence, and who sees whom.

  A sink that a row sees at another place is a copy of it there, and with it of
  the row that wrote it and of all that this row saw: moved as a whole, they
  have the same keys but for the rotation.
  """

  def __init__(self, plan, buffer, anchors, keys):
    self.plan, self.buffer, self.anchors, self.keys = (
      plan, buffer, anchors, keys,
    )  # fmt: skip
    self.frames = []  # (latent [B, h, w, C], sigma, position, sees)
    self.memo = {}
    self.writers = []  # per row: slot -> (row, index) that wrote it
    slots = {}
    for row in range(plan.num_rows):
      self.writers.append(dict(slots))
      for k, slot in enumerate(plan.write[row]):
        if slot >= 0:
          slots[int(slot)] = (row, k)

  def seen(self, row, shift):
    """Indices of what a row sees when all of it is moved by `shift`."""
    indices = []
    for slot in range(int(self.plan.visible[row])):
      writer, k = self.writers[row][slot]
      by = shift
      if slot < self.plan.num_sinks:
        true = self.plan.target[writer, k]
        by = shift + int(self.plan.sinks[row, slot] - true)
      indices.append(self.clean(writer, by)[k])
    return indices

  def add(self, latents, sigmas, first, seen):
    own = list(range(len(self.frames), len(self.frames) + len(sigmas)))
    for k, sigma in enumerate(sigmas):
      self.frames.append((latents[:, k], sigma, first + k, own + seen))
    return own

  def clean(self, row, shift):
    """Indices of a row's clean frames, moved by `shift`."""
    if (row, shift) not in self.memo:
      seen = self.seen(row, shift)
      entries = np.array([entry for _, entry in self.plan.entries(row)])
      first = int(self.plan.target[row, 0]) + shift
      self.memo[row, shift] = self.add(
        self.buffer[:, entries], [0.0] * len(entries), first, seen
      )
    return self.memo[row, shift]

  def noisy(self, row):
    """Indices of a row's anchors and block at the level they start from."""
    plan = self.plan
    number = plan.num_anchors if plan.anchor[row] else 0
    count = number + int(plan.count[row])
    shape = (number + plan.block, *GRID, CHANNELS)
    x = np.array(row_noise(self.keys, row, 0, shape))[:, :count]
    levels = [float(LEVELS[0])] * count
    if plan.start[row]:
      level = float(LEVELS[plan.start[row]])
      levels[number:] = [level] * (count - number)
      latest = max(i for i in range(row) if plan.anchor[i])
      draft = self.anchors[latest]
      x[:, number:] = (1 - level) * draft + level * x[:, number:]
    first = int(plan.target[row, 0]) - number
    return self.add(x, levels, first, self.seen(row, 0))

  def arrays(self):
    """Latents, levels, positions and mask, padded to `FRAMES`."""
    assert len(self.frames) <= FRAMES
    x = np.zeros((BATCH, FRAMES, *GRID, CHANNELS), np.float32)
    sigma = np.zeros((BATCH, FRAMES), np.float32)
    positions = np.zeros(FRAMES, np.int32)
    mask = np.eye(FRAMES, dtype=bool)
    for i, (latent, level, position, seen) in enumerate(self.frames):
      x[:, i], sigma[:, i], positions[i] = latent, level, position
      mask[i, np.array(seen)] = True
    return x, sigma, positions, mask


@pytest.fixture(scope='module')
def networks():
  """Its rollouts attend over tiles of 8 keys, as large ones do over 256."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(dispatch, 'STREAMED', {'cpu': (1, 8)})
    yield Networks()


def error(networks, plan, wrong=None):
  """Largest difference between rollout (of `wrong`, if given) and pass."""
  buffer, anchors = map(np.array, networks.roll_out(wrong or plan))
  worst = 0.0
  for row, x0 in networks.masked(plan, buffer, anchors).items():
    made = buffer[:, np.array([entry for _, entry in plan.entries(row)])]
    if plan.anchor[row]:
      made = np.concatenate([anchors[row], made], axis=1)
    worst = max(worst, float(np.abs(x0 - made).max()))
  return worst


def change(plan, field, row, value):
  array = getattr(plan, field).copy()
  array[row] = value
  return dataclasses.replace(plan, **{field: array})


WINDOWED = {
  'forward': functools.partial(orders.forward, 15),
  'backward': functools.partial(orders.backward, 15),
  'outside in': functools.partial(
    orders.inbetween, 15, side='outside_in', given_last=4
  ),
  'extend': functools.partial(orders.extend, 4, before=6, after=5),
  'keyframes': functools.partial(orders.keyframes, 15, ((4, 1), (9, 3))),
  'loop': functools.partial(orders.loop, 15),
  'regenerate': functools.partial(orders.regenerate, 15, 6, 4),
  'story': functools.partial(
    orders.story, [orders.Scene(6), orders.Scene(5)], 2, loop=True
  ),
}


def windowed(name, **settings):
  """Plans of all workflows in one shape, with a window of 6 latents."""
  plan = WINDOWED[name](window=6, start=3, **settings)
  return plan.pad(rows=24, num_latents=20)


@pytest.mark.parametrize('name', WINDOWED)
def test_a_windowed_rollout_equals_one_masked_pass(networks, name):
  plan = windowed(name)
  assert plan.num_slots == 6 + 3 + 3
  assert error(networks, plan) < TOLERANCE


def test_a_windowed_rollout_that_sees_something_else_differs(networks):
  plan = windowed('forward')
  (row,) = np.flatnonzero(plan.target[:, 0] == 9)
  assert plan.write[row].tolist() == [3, 4, 5]  # over positions 3..5
  for wrong in (
    change(plan, 'write', row, [0, 1, 2]),
    change(plan, 'visible', row, 5),
    change(plan, 'target', row, plan.target[row] + 1),
  ):
    assert error(networks, plan, wrong) > 100 * TOLERANCE


def test_all_workflows_share_one_compilation(networks):
  for name in WINDOWED:
    networks.roll_out(windowed(name))
  traced = len(networks.traces)
  for name in sorted(set(WINDOWED) - {'story'}):
    networks.roll_out(windowed(name, prompts=((3, 1),)))
  assert len(networks.traces) == traced
  # The control: another window is another program.
  wider = orders.forward(15, window=7).pad(rows=24, num_latents=20)
  networks.trace(wider)
  assert len(networks.traces) == traced + 1


def test_only_differences_of_positions_matter(networks):
  plan = windowed('forward')
  far = dataclasses.replace(plan, target=plan.target + 400)
  base, moved = networks.roll_out(plan)[0], networks.roll_out(far)[0]
  assert jnp.abs(moved - base).max() < TOLERANCE
  # So a window that slides stays in range: no row spans more than this.
  for length in (30, 300):
    plans.check(orders.forward(length, window=6), span=9)
    plans.check(orders.backward(length, window=6), span=12)
  # The control: rows that see more meet positions farther apart.
  with pytest.raises(UserError, match='trained on 9 latents'):
    plans.check(orders.forward(30, window=7), span=9)


SINKS = {
  'forward both': {'direction': 'forward', 'sinks': 'both'},
  'backward both': {'direction': 'backward', 'sinks': 'both'},
  'forward images': {'sinks': 'both', 'given_first': 1, 'given_last': 1},
}


def with_sinks(name, span=14):
  """Plans in one shape: 2 sinks, a window of 4."""
  plan = orders.long(18, window=4, span=span, sink_latents=1, **SINKS[name])
  return plan.pad(rows=12, num_latents=20)


@pytest.mark.parametrize('name', SINKS)
def test_a_rollout_with_sinks_equals_one_masked_pass(networks, name):
  plan = with_sinks(name)
  moved = [
    (row, slot)
    for row in range(plan.num_rows)
    for slot in range(min(2, int(plan.visible[row])))
    if plan.sinks[row, slot] not in (0, 17)
  ]
  assert len({slot for _, slot in moved}) == 2  # both sinks leave their place
  assert error(networks, plan) < TOLERANCE


def test_sinks_at_their_own_positions_are_ordinary_context(networks):
  plan = with_sinks('forward both', span=99)
  assert set(plan.sinks[:7].ravel().tolist()) == {0, 17}
  assert error(networks, plan) < TOLERANCE


def test_a_rollout_with_sinks_elsewhere_differs(networks):
  plan = with_sinks('forward both')
  row, slot = 5, 1
  assert plan.visible[row] == 6 and not plan.conditioning[row]
  sinks = plan.sinks[row].copy()
  sinks[slot] += 1
  wrong = change(plan, 'sinks', row, sinks)
  assert error(networks, plan, wrong) > 10 * TOLERANCE


def test_placing_a_sink_again_does_not_add_up():
  cache = DIT.new_cache(1, 4, *GRID, sinks=2, block=2)
  cache = cache.replace(
    raw_LBSNK=jnp.resize(noise(5, 64), cache.raw_LBSNK.shape)
  )
  place = jax.jit(sampler.placer(DIT, *GRID))
  there = place(cache, jnp.array([7, -3]))
  elsewhere = there
  for position in range(20):
    elsewhere = place(elsewhere, jnp.array([position, 2 * position]))
  back = place(elsewhere, jnp.array([7, -3]))
  np.testing.assert_array_equal(back.k_LBSNK, there.k_LBSNK)
  assert jnp.abs(elsewhere.k_LBSNK - there.k_LBSNK).max() > 0.1


def test_a_plan_without_sinks_has_no_trace_of_them(networks):
  plan = windowed('forward')

  def program(place):
    def run(plan, buffer):
      return sampler.run_plan(
        lambda net, x, *rest: (net * x, rest[3]),
        lambda cache, start, write: cache,
        jnp.ones(()),
        plan,
        jnp.zeros(()),
        buffer,
        networks.keys,
        LEVELS,
        place=place,
      )

    buffer = jnp.zeros((BATCH, plan.num_latents, *GRID, CHANNELS))
    return str(jax.make_jaxpr(run)(plan, buffer))

  assert program(None) == program(sampler.placer(DIT, *GRID))
  cache = sampler.cache_for(DIT, plan, BATCH, *GRID)
  assert len(jax.tree.leaves(cache)) == 2
  with pytest.raises(ValueError, match='needs `place`'):
    plan = with_sinks('forward both')
    program(None)


def test_the_cache_of_a_window_does_not_grow():
  def shapes(plan):
    cache = jax.eval_shape(lambda: sampler.cache_for(DIT, plan, 1, *GRID))
    return [leaf.shape for leaf in jax.tree.leaves(cache)]

  short, long = (
    orders.long(n, window=6, span=21, sinks='both') for n in (24, 480)
  )
  assert shapes(short) == shapes(long)
  # The control: without a window it does.
  assert shapes(orders.forward(24)) != shapes(orders.forward(48))
