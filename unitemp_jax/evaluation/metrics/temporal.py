"""Loops, joins, motion, and fidelity to a reference.

Frames are [n, T, H, W, 3], uint8 or floats in [0, 1]; results have one entry
per clip. d(a, b) is the mean absolute difference of two frames. Too few frames,
or a wrong shape or range, are a UserError.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import curves, flicker
from unitemp_jax.evaluation.metrics.flicker import EPSILON
from unitemp_jax.video.frames import check_clips, frame_steps, unit_pixels

# Equal pictures would be infinitely alike; 100 dB is far beyond 8 bits.
_LEAST_MSE = 1e-10


def loop_closure(frames: np.ndarray) -> dict[str, np.ndarray]:
  """How well the end of each clip meets its start, [n] by metric.

  Where the last frame is meant to *be* the first (a loop made by giving frame
  0 again at the end), 'loop closure' should be near 0; pass `frames[:, :-1]`
  for the others of the loop as it plays. 12 frames at least.
  """
  check_clips(frames, at_least=12)
  found = [
    seam_ratios(clip.steps, clip.turns, *clip.seam[:2])
    for clip in map(curves.measure, frames)
  ]
  names = ('loop closure', 'velocity closure', 'BFR of the seam')
  return dict(zip(names, np.transpose(found), strict=True))


def seam_ratios(
  steps: np.ndarray, turns: np.ndarray, seam: float, turn: float
) -> tuple[float, float, float]:
  """The seam of one clip against the rest of it.

  Args:
    steps: [T-1].
    turns: [T-2].
    seam: step from the last frame to the first.
    turn: change of velocity there.

  Returns:
    The step over the median one: 1 = the seam looks like any other, 0 = the
    last frame repeats the first; the change of velocity over the median one;
    the flicker ratio at the old seam after rolling the clip by half.
  """
  around = np.concatenate([steps[-4:], [seam], steps[:4]])[None]
  ratio = flicker.boundary_flicker_ratio(around, [len(steps[-4:])])[0]
  return (
    float(seam / (np.median(steps) + EPSILON)),
    float((turn + EPSILON) / (np.median(turns) + EPSILON)),
    float(ratio),
  )


def join_jump(frames: np.ndarray, joins: Sequence[int]) -> np.ndarray:
  """`join_ratios` of clips [n, T, H, W, 3]."""
  return join_ratios(frame_steps(frames), joins)


def join_ratios(steps: np.ndarray, joins: Sequence[int]) -> np.ndarray:
  """Step at each join with given frames over the median of the other steps.

  Args:
    steps: [n, T-1].
    joins: transitions between a given frame and a generated one.

  Returns:
    [n, len(joins)]; 1 = no jump.

  Raises:
    UserError: a join outside the clip, or no other transition.
  """
  joins = np.asarray(joins, dtype=int)
  inside = np.setdiff1d(np.arange(steps.shape[1]), joins)
  if not inside.size or joins.min() < 0 or joins.max() >= steps.shape[1]:
    raise UserError(
      f'joins must be transitions 0 to {steps.shape[1] - 1} and leave some '
      f'others, but got {joins.tolist()}; check the given frames.'
    )
  usual = np.median(steps[:, inside], axis=1, keepdims=True)
  return (steps[:, joins] + EPSILON) / (usual + EPSILON)


def motion_ratio(frames: np.ndarray, real: np.ndarray) -> np.ndarray:
  """Mean step of each clip over the mean step of the real clips, [n].

  A still picture gives 0, so that no metric can be won by standing still.
  """
  return frame_steps(frames).mean(axis=1) / frame_steps(real).mean()


def cross_fade(
  first: np.ndarray, last: np.ndarray, num_frames: int, cut: bool = False
) -> np.ndarray:
  """Linear blend from one frame to another: what any inbetween must beat.

  Args:
    first: [n, H, W, 3] frame 0.
    last: [n, H, W, 3] frame T-1.
    num_frames: T.
    cut: holds the first frame instead, then from the middle on the last.

  Returns:
    float32 [n, T, H, W, 3] in [0, 1].
  """
  share = np.linspace(0, 1, num_frames, dtype=np.float32)
  if cut:
    share = (share > 0.5).astype(np.float32)
  share = share[None, :, None, None, None]
  first, last = unit_pixels(first)[:, None], unit_pixels(last)[:, None]
  return (1 - share) * first + share * last


def psnr(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """Peak signal-to-noise ratio of each clip in dB, [n].

  From the squared error over the whole clip; tables show the mean of these per-
  clip values. At most 100 dB. UserError if the shapes differ.
  """
  return to_decibel(_squared_error(frames, reference).mean(axis=1))


def ssim(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """Structural similarity of each clip, [n]; 1 = equal.

  Wang et al. 2004: an 11x11 Gaussian window of sigma 1.5 where it lies wholly
  inside the frame, each colour channel by itself, mean over the clip. UserError
  if the shapes differ, or frames are smaller than 11x11.
  """
  _check_pair(frames, reference)
  if min(frames.shape[2:4]) < 11:
    raise UserError(
      f'SSIM needs frames of at least 11x11, but got {frames.shape[2:4]}; '
      'use larger frames.'
    )
  total = np.zeros(len(frames))
  for t in range(frames.shape[1]):
    a, b = unit_pixels(frames[:, t]), unit_pixels(reference[:, t])
    total += _ssim_map(a, b).mean(axis=(1, 2, 3), dtype=np.float64)
  return total / frames.shape[1]


def _ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  mean_a, mean_b = _window(a), _window(b)
  var_a = _window(a * a) - mean_a**2
  var_b = _window(b * b) - mean_b**2
  covar = _window(a * b) - mean_a * mean_b
  c1, c2 = 0.01**2, 0.03**2
  light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
  return light * (2 * covar + c2) / (var_a + var_b + c2)


def _window(image: np.ndarray) -> np.ndarray:
  """Gaussian window over the rows and columns of [n, H, W, C]."""
  smooth = ndimage.gaussian_filter(image, 1.5, radius=5, axes=(1, 2))
  return smooth[:, 5:-5, 5:-5]


def _squared_error(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
  _check_pair(frames, reference)
  error = np.empty(frames.shape[:2])
  for t in range(frames.shape[1]):
    change = unit_pixels(frames[:, t]) - unit_pixels(reference[:, t])
    error[:, t] = np.square(change).mean(axis=(1, 2, 3), dtype=np.float64)
  return error


def to_decibel(squared_error: np.ndarray) -> np.ndarray:
  """PSNR of mean squared errors of pixels in [0, 1]; at most 100 dB."""
  return -10 * np.log10(np.maximum(squared_error, _LEAST_MSE))


def _check_pair(frames: np.ndarray, reference: np.ndarray) -> None:
  check_clips(frames, at_least=1)
  if frames.shape != reference.shape:
    raise UserError(
      f'clips of shape {list(frames.shape)} cannot be compared with a '
      f'reference of shape {list(reference.shape)}; make them equal.'
    )
