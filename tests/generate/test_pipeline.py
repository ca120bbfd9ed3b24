"""Laws of whole rollouts: who depends on whom, and on what the batch is."""

import dataclasses

import jax
import numpy as np
import pytest
from generation_batch import PROMPTS, SEEDS

from unitemp_jax.errors import UserError

pytestmark = pytest.mark.devices(8)

# Programs for other batches may sum in another order. Float32 carries 7 digits,
# and 15 passes, each of which feeds the next, may lose two. Measured: 1e-6
# between batches of 1 and 4, nothing between 1 and 8 devices, at latents of
# standard deviation 1.6.
TOLERANCE = 1e-4


def change(plan, field, row, value):
  array = getattr(plan, field).copy()
  array[row] = value
  return dataclasses.replace(plan, **{field: array})


def test_all_orders_are_one_compiled_program(pipeline, made_plans, generate):
  first, *others = made_plans.values()
  generate(first)
  with jax.no_tracing():  # Nothing new is compiled.
    for plan in others:
      assert np.isfinite(generate(plan).latents).all()
    # Control: another batch is another program.
    with pytest.raises(RuntimeError, match='no_tracing'):
      pipeline.generate(PROMPTS[:3], SEEDS[:3], first)


def test_orders_make_different_videos(made_plans, generate):
  forward = generate(made_plans['forward']).timeline
  backward = generate(made_plans['backward']).timeline
  assert np.abs(forward - backward).max() > 0.1
  assert forward.shape == backward.shape


def test_earlier_rows_do_not_depend_on_later_ones(made_plans, generate):
  plan = made_plans['inbetween']
  rows = np.flatnonzero(~plan.conditioning)
  base = generate(plan)
  # The last row from another context: what was made before is the same, bit
  # for bit, and the row itself is not.
  narrow = int(plan.visible[rows[2]]) - 1
  other = generate(change(plan, 'visible', rows[2], narrow))
  np.testing.assert_array_equal(other.latents[:, :6], base.latents[:, :6])
  assert np.abs(other.latents[:, 6:9] - base.latents[:, 6:9]).max() > 1e-3
  # The control: a change of the first row is seen in all later ones.
  made = generate(change(plan, 'anchor', rows[0], True)).latents
  for block in (slice(0, 3), slice(3, 6), slice(6, 9)):
    assert np.abs(made[:, block] - base.latents[:, block]).max() > 1e-3


def test_rows_and_their_anchors_see_visible_slots_only(made_plans, generate):
  plan = made_plans['inbetween_future']
  positions, _ = plan.preloaded()
  assert positions.tolist() == [0, 8]
  # No row sees more than slot 0, the first image.
  for row in np.flatnonzero(~plan.conditioning):
    plan = change(plan, 'visible', row, 1)
    plan = change(plan, 'write', row, -1)
  plan = change(plan, 'anchor', 2, True)
  plan = change(plan, 'anchor', 3, True)
  plan = change(plan, 'start', slice(None), 0)
  shape = (4, 2, *generate(made_plans['forward']).latents.shape[2:])
  given = np.random.default_rng(0).standard_normal(shape, np.float32)

  def outputs(plan, entry):
    changed = given.copy()
    changed[:, entry] *= -1
    before, after = generate(plan, given=given), generate(plan, given=changed)
    _, made = plan.timeline()
    latents = np.abs(after.latents - before.latents)[:, made].max()
    return latents, np.abs(after.anchors - before.anchors).max()

  assert outputs(plan, 1) == (0, 0)  # The last image is hidden.
  assert min(outputs(plan, 0)) > 1e-3
  row = int(np.flatnonzero(~plan.conditioning)[0])
  assert min(outputs(change(plan, 'visible', row, 2), 1)) > 1e-3


@pytest.mark.parametrize('name', ['backward'])
def test_batch_and_devices_do_not_change_a_clip(
  pipeline, made_plans, generate, name
):
  plan = made_plans[name]
  of_four = generate(plan)
  alone = pipeline.generate(PROMPTS[1:2], SEEDS[1:2], plan)
  assert jax.device_count() == 8
  on_eight = pipeline.generate(PROMPTS * 2, SEEDS * 2, plan)
  buffer = np.zeros((8, 1), np.float32)
  assert len(pipeline.put(buffer).sharding.device_set) == 8
  assert len(pipeline.put(buffer[:4]).sharding.device_set) == 1
  wanted = alone.latents[0]
  for other in (of_four.latents[1], on_eight.latents[1], on_eight.latents[5]):
    np.testing.assert_allclose(other, wanted, atol=TOLERANCE)
  # Neighbours in the batch do not matter at all.
  mixed = generate(plan, PROMPTS[::-1], SEEDS[::-1])
  np.testing.assert_array_equal(mixed.latents[2], of_four.latents[1])


def test_another_seed_or_prompt_makes_another_clip(made_plans, generate):
  plan = made_plans['forward']
  base = generate(plan).latents
  reseeded = generate(plan, seeds=(SEEDS[0], 99, *SEEDS[2:])).latents
  np.testing.assert_array_equal(reseeded[[0, 2, 3]], base[[0, 2, 3]])
  assert np.abs(reseeded[1] - base[1]).mean() > 0.1
  prompts = (PROMPTS[0], 'a red three falls', *PROMPTS[2:])
  reworded = generate(plan, prompts=prompts).latents
  np.testing.assert_array_equal(reworded[[0, 2, 3]], base[[0, 2, 3]])
  assert np.abs(reworded[1] - base[1]).max() > 100 * TOLERANCE


def test_a_plan_without_its_given_latents_is_refused(pipeline, made_plans):
  plan = made_plans['inbetween']
  with pytest.raises(UserError, match=r'conditioned on 2 latents .*\[0, 8\]'):
    pipeline.generate(PROMPTS, SEEDS, plan)
  with pytest.raises(UserError, match='conditioned on 2 latents'):
    pipeline.generate(
      PROMPTS, SEEDS, plan, np.zeros((4, 1, *pipeline.noise_shape[1:]))
    )


def test_an_unlawful_plan_is_refused(pipeline, made_plans):
  plan = change(made_plans['forward'], 'visible', 1, 7)
  with pytest.raises(UserError, match='plan row 1'):
    pipeline.generate(PROMPTS, SEEDS, plan)


def test_empty_prompts_are_refused(pipeline, made_plans):
  with pytest.raises(UserError, match='empty'):
    pipeline.generate(['a red one', ' '], [0, 1], made_plans['forward'])


def test_clips_that_do_not_fit_the_vae_are_refused(pipeline):
  height, width = pipeline.card.height, pipeline.card.width
  for shape in ((1, 4, height, width, 3), (1, 1, height + 1, width, 3)):
    with pytest.raises(UserError, match=r'fit the VAE|a multiple'):
      pipeline.encode(np.zeros(shape, np.uint8))
