"""Can a seam be told from the rest of a clip, and is a passage a mere blend?

Frames are [n, T, H, W, 3], uint8 or floats in [0, 1]; results have one entry
per clip. Too few frames, or a wrong shape or range, are a UserError.
"""

import dataclasses

import numpy as np

from unitemp_jax.evaluation.metrics.flicker import EPSILON, REACH, log_ratio
from unitemp_jax.video.frames import check_clips, frame_steps, unit_pixels

_DRAWS = 2000


@dataclasses.dataclass(frozen=True)
class SeamTest:
  """How the seam of loops stands out among the other transitions."""

  # [n] share of a clip's other transitions that stand out less than its seam,
  # ties counted half: 0.5 on average if the seam cannot be told.
  rank: np.ndarray
  # [n] whether the seam stands out most of all, that is, whether who picks the
  # most prominent transition picks the seam
  found: np.ndarray
  chance: float  # share that `found` has if seams are like other transitions
  # share of random picks of one transition per clip that stand out as much on
  # average as the seams do
  p_value: float


def rolled_seam(frames: np.ndarray, *, turns: bool = False) -> SeamTest:
  """Rolls playing loops by half, and looks for the old seam in the middle.

  A transition is prominent if its step differs from the median step of its 4
  neighbours on either side by a large factor, up (a jump) or down (a frame
  shown twice). Only transitions with all neighbours take part.

  Args:
    frames: clips as they play, the frame after the last one being the first;
      20 frames at least.
    turns: compare changes of velocity, |f(t+1) - 2 f(t) + f(t-1)|, in place of
      steps; the two turns that the seam takes part in are averaged.
  """
  check_clips(frames, at_least=20)
  half = frames.shape[1] // 2
  rolled = np.roll(frames, half, axis=1)
  prominence = _prominence(_turns(rolled) if turns else frame_steps(rolled))
  # The rolled clip's transition half-1 leads from the last frame to the first.
  seam = half - 1 - REACH
  own = prominence[:, seam : seam + 1]
  others = np.delete(prominence, seam, axis=1)
  rank = (others < own).mean(axis=1) + (others == own).mean(axis=1) / 2
  count = prominence.shape[1]
  # Share of all transitions below each one: what a random pick would get.
  ranks = prominence.argsort(axis=1).argsort(axis=1) / (count - 1)
  rng = np.random.default_rng(0)
  picks = rng.integers(count, size=(_DRAWS, len(frames)))
  null = ranks[np.arange(len(frames))[None], picks].mean(axis=1)
  return SeamTest(
    rank=rank,
    found=(others < own).all(axis=1),
    chance=1 / count,
    p_value=float((1 + np.sum(null >= rank.mean())) / (_DRAWS + 1)),
  )


def _turns(frames: np.ndarray) -> np.ndarray:
  """Change of velocity at each transition, [n, T-1], mean of its two ends."""
  turn = np.empty((len(frames), frames.shape[1] - 2))
  for t in range(turn.shape[1]):
    before, here, after = (unit_pixels(frames[:, t + k]) for k in range(3))
    turn[:, t] = np.abs(after - 2 * here + before).mean(axis=(1, 2, 3))
  # Transition j lies between the turns at frames j and j+1.
  ends = np.concatenate([turn[:, :1], turn, turn[:, -1:]], axis=1)
  return (ends[:, 1:] + ends[:, :-1]) / 2


def _prominence(size: np.ndarray) -> np.ndarray:
  """|log of size over the median of its neighbours|, [n, T - 1 - 2 reach]."""
  around = np.lib.stride_tricks.sliding_window_view(size, 2 * REACH + 1, axis=1)
  usual = np.median(np.delete(around, REACH, axis=2), axis=2)
  return np.abs(log_ratio(size[:, REACH:-REACH], usual))


def largest_jump(frames: np.ndarray) -> np.ndarray:
  """Largest step of each clip over its median one, [n]: finds a hidden cut."""
  steps = frame_steps(frames)
  return (steps.max(axis=1) + EPSILON) / (np.median(steps, axis=1) + EPSILON)


def blend_residual(frames: np.ndarray) -> np.ndarray:
  """How far each clip is from any blend of its two ends, [n].

  Every frame is fitted by `(1 - a) first + a last`, a in 0..1; what the fits
  leave, root mean square over the frames between, over the difference of the
  ends. 0 = a cross-fade, a cut or a still picture, none of which can win here.
  """
  check_clips(frames, at_least=3)
  first, last = unit_pixels(frames[:, 0]), unit_pixels(frames[:, -1])
  across = (last - first).reshape(len(frames), -1)
  size = np.square(across).sum(axis=1)
  left = []
  for t in range(1, frames.shape[1] - 1):
    way = (unit_pixels(frames[:, t]) - first).reshape(len(frames), -1)
    share = (way * across).sum(axis=1) / np.maximum(size, EPSILON)
    rest = way - np.clip(share, 0, 1)[:, None] * across
    left.append(np.square(rest).sum(axis=1))
  floor = EPSILON * across.shape[1]
  return np.sqrt(np.mean(left, axis=0) / np.maximum(size, floor))


def dimmest_frame(frames: np.ndarray) -> np.ndarray:
  """Brightest light of each clip's dimmest frame over that of its median one.

  The light of a frame is the 99.5th percentile of its brightest channel, so
  that colours do not matter. A cross-fade of two bright things on black is dim
  in its middle; 1 = evenly lit. [n].
  """
  check_clips(frames, at_least=3)
  light = unit_pixels(frames.max(axis=-1))
  light = np.percentile(light, 99.5, axis=(2, 3))
  return (light.min(axis=1) + EPSILON) / (np.median(light, axis=1) + EPSILON)
