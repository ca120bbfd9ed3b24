"""Flow matching, student initialisation and the VAE's loss, by themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import noise

from unitemp_jax import orders, plans
from unitemp_jax.diffusion import flow
from unitemp_jax.objectives import flow_match, student_init, vae
from unitemp_jax.objectives.teacher_forcing import Layout, plan_mask

SHAPE = (4, 9, 1, 2, 2)
LATENTS = noise(0, *SHAPE)


def knowing(truth):
  """A network that knows the clean latents, and is off by `params`."""

  def denoise(params, x, sigma, *_):
    v = flow.to_velocity(x, truth, jnp.where(sigma > 0, sigma, 1.0))
    return v + params

  return denoise


def test_flow_matching_is_the_squared_error_of_the_velocity():
  def loss(off):
    return flow_match.loss(
      off, LATENTS, jax.random.key(1), denoise=knowing(LATENTS), shift=3.0
    )[0]

  assert loss(0.0) < 1e-6
  assert loss(0.5) == pytest.approx(0.25, rel=1e-3)


def test_levels_are_uniform_before_the_warp():
  sigma = flow_match.draw_sigma(jax.random.key(0), 4000, 5.0)
  assert sigma.shape == (4000, 1)
  # The inverse of the warp: s / (5 - 4 s).
  u = np.sort(np.asarray(sigma / (5 - 4 * sigma))[:, 0])
  np.testing.assert_allclose(u, np.linspace(0, 1, 4000), atol=0.05)
  flat = flow_match.draw_sigma(jax.random.key(0), 4000, 1.0)
  assert float(sigma.mean()) > float(flat.mean()) + 0.2


def test_levels_are_clipped_only_where_they_lie_outside():
  latents, seen = jnp.zeros((512, 1, 1, 1, 1)), []

  def spy(params, x, sigma):
    seen.append(np.asarray(sigma))
    return x

  run = functools.partial(
    flow_match.loss, 0.0, latents, jax.random.key(0), denoise=spy, shift=5.0
  )
  run()
  run(sigma_range=(0.02, 0.98))
  drawn, clipped = seen
  outside = (drawn < 0.02) | (drawn > 0.98)
  # u > .98 / (5 - 4 .98), and the few below: 9.3 % at a shift of 5.
  assert outside.mean() == pytest.approx(0.093, abs=0.03)
  np.testing.assert_array_equal(clipped[~outside], drawn[~outside])
  assert clipped.min() >= np.float32(0.02) and clipped.max() <= np.float32(0.98)


NAMES = ('forward', 'backward', 'inbetween', 'inbetween_future')
LAYOUT = Layout(9, 3, 3)
# Windowed ones are other latents than the clip has in their place.
ANCHORS = noise(2, 4, 2, 3, *SHAPE[2:])


@functools.cache
def table(names=NAMES):
  made = plans.align(
    *(orders.ORDERS[name](9, anchors=3, start=3) for name in names)
  )
  masks = [plan_mask(plan, LAYOUT) for plan in made]
  return student_init.plan_table(masks, [1.0] * len(names))


def init_loss(denoise, off=0.0, seed=0, names=NAMES, **changes):
  settings = {
    'anchor_drop': 0.2,
    'draft_share': 0.5,
    'draft_from': 0,
    **changes,
  }
  batch = {
    'latents': LATENTS,
    'last_image': noise(1, 4, 1, *SHAPE[2:]),
    'anchors': ANCHORS,
  }
  return student_init.loss(
    off,
    batch,
    jax.random.key(seed),
    denoise=denoise,
    layout=LAYOUT,
    table=table(names),
    shift=5.0,
    draft_sigma=float(flow.student_sigmas()[3]),
    **settings,
  )


def sequence():
  last = noise(1, 4, 1, *SHAPE[2:])
  anchors = [ANCHORS[:, 0], ANCHORS[:, 1]]
  parts = [LATENTS, LATENTS[:, :1], last, LATENTS, *anchors]
  return jnp.concatenate(parts, axis=1)


def test_student_init_counts_blocks_and_anchors_in_use():
  denoise = knowing(sequence())
  settings = {'names': ('backward',), 'anchor_drop': 0.0}
  assert init_loss(denoise, **settings)[0] < 1e-5
  loss, metrics = init_loss(denoise, 0.5, **settings)
  assert loss == pytest.approx(0.25, rel=1e-3)
  assert metrics['block'] == pytest.approx(0.25, rel=1e-3)
  assert metrics['anchor'] == pytest.approx(0.25, rel=1e-3)
  # Without anchors in use they cost nothing.
  _, metrics = init_loss(denoise, 0.5, names=('forward',))
  assert metrics['anchor'] == 0


def ask(seed=0, **changes):
  """What the network is shown: noise levels, positions and mask."""
  seen = []

  def spy(params, x, sigma, positions, mask):
    seen.append((x, sigma, positions, mask))
    return jnp.zeros_like(x)

  init_loss(spy, seed=seed, **changes)
  return [np.asarray(part) for part in seen[0]]


def test_clean_context_stays_clean_and_levels_are_per_block():
  x, sigma, positions, _ = ask()
  np.testing.assert_array_equal(x[:, :9], LATENTS)
  assert (sigma[:, :11] == 0).all()
  blocks = sigma[:, 11:20].reshape(4, 3, 3)
  np.testing.assert_array_equal(blocks.min(2), blocks.max(2))
  assert len(np.unique(blocks[:, :, 0])) > 6
  np.testing.assert_array_equal(positions, LAYOUT.positions())


def test_anchors_are_dropped_where_something_else_is_seen():
  backward = {'names': ('backward',)}
  dropped, kept = slice(20, 23), slice(23, 26)  # of blocks 1 and 2
  _, _, _, mask = ask(anchor_drop=1.0, **backward)
  own = np.eye(26, dtype=bool)[:, dropped]
  np.testing.assert_array_equal(
    mask[:, :, dropped], np.broadcast_to(own, (4, 26, 3))
  )
  # The last block is made first: nothing else says that it has a past.
  assert mask[:, 17:20, kept].all()
  _, _, _, mask = ask(anchor_drop=0.0, **backward)
  assert mask[:, 14:17, dropped].all()


def test_drafted_blocks_start_low_and_their_anchors_do_not():
  limit = flow.student_sigmas()[3]
  _, always, _, _ = ask(names=('backward',), draft_share=1.0, anchor_drop=0.0)
  _, never, _, _ = ask(names=('backward',), draft_share=0.0, anchor_drop=0.0)
  # Backward, blocks 0 and 1 are drafted, block 2 starts the video's making.
  assert always[:, 11:17].max() <= limit
  # An image latent is no draft: the latent in its place starts from noise.
  names = {'names': ('backward',), 'draft_share': 1.0, 'anchor_drop': 0.0}
  _, image, _, _ = ask(draft_from=1, **names)
  blocks = image[:, 11:17].reshape(4, 2, 3)
  assert blocks[:, :, 1:].max() <= limit < blocks[:, :, 0].max()
  assert never[:, 11:17].max() > limit
  np.testing.assert_array_equal(always[:, 17:20], never[:, 17:20])
  np.testing.assert_array_equal(always[:, 20:], never[:, 20:])


def test_every_plan_is_drawn():
  masks = [ask(seed)[3] for seed in range(12)]
  drawn = {mask.tobytes() for batch in masks for mask in batch}
  assert len(drawn) >= len(NAMES)
  alone = [ask(s, names=('forward',))[3] for s in range(3)]
  assert len({mask.tobytes() for batch in alone for mask in batch}) == 1


def small_video():
  video = np.zeros((1, 5, 16, 16, 3), np.uint8)
  video[:, :, 8, 8] = 255
  return video


def test_foreground_weighs_more_and_the_mean_is_one():
  video = vae.to_unit(jnp.asarray(small_video()))
  weight = vae.foreground_weight(video, 4.0)
  assert float(weight.mean()) == pytest.approx(1, rel=1e-5)
  near, far = weight[0, 0, 8, 10, 0], weight[0, 0, 8, 11, 0]
  assert float(near / far) == pytest.approx(4, rel=1e-5)
  np.testing.assert_allclose(vae.foreground_weight(video, 1.0), 1, rtol=1e-6)


def test_vae_loss_of_a_perfect_reconstruction_is_its_kl():
  batch = {'video': jnp.asarray(small_video())}
  latents = jnp.full((1, 2, 2, 2, 4), 0.5)

  def loss(off, kl):
    return vae.loss(
      off,
      batch,
      jax.random.key(0),
      reconstruct=lambda off, video, key: (
        video + off,
        latents,
        jnp.zeros_like(latents),
      ),
      l1=0.5,
      kl=kl,
    )

  total, metrics = loss(0.0, 1.0)
  assert float(total) == pytest.approx(0.125)  # mu^2 / 2
  assert float(metrics['psnr']) > 90
  total, metrics = loss(0.1, 0.0)
  assert float(total) == pytest.approx(0.1**2 + 0.5 * 0.1, rel=1e-4)
  # Pixels beyond white are clipped before they are judged.
  assert float(metrics['psnr']) > 10 * np.log10(4 / 0.01)


def test_the_first_frame_weighs_as_told():
  video = jnp.zeros((1, 5, 16, 16, 3))  # All as bright as any other.

  def loss(frame, **options):
    def reconstruct(params, video, key):
      wrong = video.at[:, frame].set(0.5)
      return wrong, jnp.zeros(1), jnp.zeros(1)

    options = {'reconstruct': reconstruct, **options}
    return float(
      vae.loss({}, {'video': video}, jax.random.key(0), **options)[0]
    )

  assert loss(0, first=8.0) == pytest.approx(8 * loss(3, first=8.0))
  # The mean weight stays 1, and without the option all frames are alike.
  total = loss(0, first=8.0) + 4 * loss(3, first=8.0)
  assert total == pytest.approx(5 * loss(3), rel=1e-5)
  assert loss(0) == pytest.approx(loss(3))


def test_pixels_become_minus_one_to_one():
  unit = vae.to_unit(jnp.array([0, 255], jnp.uint8))
  np.testing.assert_allclose(unit, [-1, 1])
  np.testing.assert_array_equal(vae.to_unit(unit), unit)


def test_half_of_the_clips_are_cut_anywhere():
  rows, frames = 400, 9
  numbers = np.arange(12, dtype=np.uint8).reshape(1, 12, 1, 1, 1)
  clips = jnp.asarray(np.tile(numbers, (rows, 1, 1, 1, 3)))
  pieces = np.asarray(vae.cut(clips, jax.random.key(0), frames))[..., 0, 0, 0]
  np.testing.assert_array_equal(pieces - pieces[:, :1], [range(9)] * rows)
  shares = np.bincount(pieces[:, 0]) / rows
  # Starts 0..3 alike in one half, 0 alone in the other.
  np.testing.assert_allclose(shares, [0.625, 0.125, 0.125, 0.125], atol=0.06)
  whole = np.asarray(vae.cut(clips, jax.random.key(0), 12))
  np.testing.assert_array_equal(whole, clips)
