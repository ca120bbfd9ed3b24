"""Flicker at block boundaries: is the seam between two blocks visible?

Transition j leads from frame j to frame j+1. Latent 0 codes frame 0 and latent
k >= 1 codes frames 4k-3..4k, so a block that ends with latent k ends with frame
4k, and the seam to the next block is transition 4k. Every ratio here is 1
where a boundary looks like the rest of the clip. Read them beside the same
numbers of real clips, and beside a swapped block (suites/flicker.py): in joint
decoding the narrow ratio is nearly blind, the wide one and the latent step are
not.

Steps are `frames.frame_steps` [n, T-1], and `at` boundary transitions; a
UserError is raised where there is none, or one outside the clip.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from unitemp_jax import timeline
from unitemp_jax.errors import UserError

# Keeps ratios of still clips finite, a still one at 1; of the range [0, 1].
EPSILON = 1e-4
# Transitions on each side that a boundary is compared with.
REACH = 4


def log_ratio(steps: np.ndarray, level: np.ndarray) -> np.ndarray:
  """log(steps + e) - log(level + e), e = 1e-4."""
  return np.log(steps + EPSILON) - np.log(level + EPSILON)


def boundary_flicker_ratio(steps: np.ndarray, at: Sequence[int]) -> np.ndarray:
  """Boundary flicker ratio (BFR) of each clip, [n]; 1 = no seam.

  `exp mean_j [log(d_j + e) - log(median{d_k : |k-j| <= 4, k not in J} + e)]`
  over the boundaries j in J, e = 1e-4.
  """
  at = _checked(at, steps.shape[1])
  return np.exp(_log_ratios(steps, at).mean(axis=1))


def wide_ratio(steps: np.ndarray, at: Sequence[int]) -> np.ndarray:
  """The wide difference (wide4), [n]: sees content that morphs after a seam.

  Mean step over the 4 transitions from the boundary, over the mean step of the
  4 transitions before and the 4 after those, as far as they are in the clip;
  geometric mean over the boundaries.
  """
  logs = []
  for j in _checked(at, steps.shape[1]):
    middle = steps[:, j : j + REACH]
    before = steps[:, max(j - REACH, 0) : j]
    sides = np.append(before, steps[:, j + REACH : j + 2 * REACH], axis=1)
    logs.append(log_ratio(middle.mean(axis=1), sides.mean(axis=1)))
  return np.exp(np.mean(logs, axis=0))


def latent_step_ratio(latents: np.ndarray, at: Sequence[int]) -> np.ndarray:
  """Latent step across each boundary over the steps on its two sides, [n].

  A step is the root mean square change from one latent frame to the next;
  geometric mean over the boundaries.

  Args:
    latents: [n, N, h, w, C], as the sampler makes them (normalised).
    at: boundaries of the decoded frames, with latent steps on both sides.
  """
  change = np.diff(np.asarray(latents, np.float64), axis=1)
  steps = np.sqrt(np.square(change).mean(axis=(2, 3, 4)))
  at = np.asarray(at, dtype=int) // timeline.STRIDE
  if not at.size or at.min() < 1 or at.max() > steps.shape[1] - 2:
    raise UserError(
      f'the latent step needs boundaries with a step on both sides, but got '
      f'latents {at.tolist()} of {steps.shape[1] + 1}; use longer clips.'
    )
  sides = (steps[:, at - 1] + steps[:, at + 1]) / 2
  return np.exp(log_ratio(steps[:, at], sides).mean(axis=1))


@dataclasses.dataclass(frozen=True)
class PhaseTest:
  """How a pool of clips stands out at the true phase of its blocks."""

  # [period] geometric mean BFR over the clips if the blocks began at each other
  # phase; entry 0 is the true one
  ratios: np.ndarray
  # share of the phases with a ratio at least the true one; its least value is
  # 1/period, however many clips there are
  share: float
  # the same test with a phase of its own drawn for every clip, so that it gains
  # power with the number of clips
  p_value: float


def phase_logs(
  steps: np.ndarray, at: Sequence[int], *, period: int = 12
) -> np.ndarray:
  """Log ratio of each clip if its blocks began at each phase, [n, period].

  Only transitions with 4 neighbours on both sides are compared, so that no
  phase gains from the clip's ends. Entry 0 is the true phase. UserError if the
  boundaries are not `period` frames apart, or the clip is too short to hold
  every phase.
  """
  at = _checked(at, steps.shape[1])
  if np.unique(at % period).size != 1:
    raise UserError(
      f'the phase test needs boundaries {period} frames apart, but got '
      f'{at.tolist()}; pass the period of these blocks.'
    )
  inner = np.arange(REACH, steps.shape[1] - REACH)
  if inner.size < period:
    raise UserError(
      f'the phase test needs at least {period + 2 * REACH + 1} frames, but '
      f'got {steps.shape[1] + 1}; use longer clips.'
    )
  logs = []
  for shift in range(period):
    combed = inner[(inner - at[0] - shift) % period == 0]
    logs.append(_log_ratios(steps, combed).mean(axis=1))
  return np.stack(logs, axis=1)


def pool_phases(logs: np.ndarray) -> PhaseTest:
  """Tests whether the true block phase flickers more than the other phases.

  Args:
    logs: of `phase_logs`, [n, period]; clips of several lengths can be pooled.
  """
  pooled, draws = logs.mean(axis=0), 2000
  rng = np.random.default_rng(0)
  null, clips = np.empty(draws), np.arange(len(logs))
  for draw in range(draws):  # One by one: there may be many clips.
    phases = rng.integers(logs.shape[1], size=len(logs))
    null[draw] = logs[clips, phases].mean()
  # The true assignment counts as one draw, so that p is never 0.
  p_value = (1 + np.sum(null >= pooled[0])) / (draws + 1)
  share = np.mean(pooled >= pooled[0])
  return PhaseTest(np.exp(pooled), float(share), float(p_value))


def comb_power(
  steps: np.ndarray, period: int = 12
) -> tuple[np.ndarray, np.ndarray]:
  """Share of the variation of log steps that repeats with the blocks.

  Log steps lose a cubic trend and are folded modulo the period. White noise
  already gives about period / (T-1), so compare with real clips of the same
  length.

  Returns:
    power [n] in [0, 1], and phase int [n]: the transition modulo the period
    with the largest folded mean.

  Raises:
    UserError: fewer than two periods.
  """
  length = steps.shape[1]
  if length < 2 * period:
    raise UserError(
      f'comb power needs two periods of {period} frames, but got {length + 1} '
      'frames; use longer clips.'
    )
  logs = np.log(steps + EPSILON).T
  time = np.linspace(-1, 1, length)
  trend = np.polynomial.polynomial.polyfit(time, logs, 3)
  rest = logs - np.polynomial.polynomial.polyval(time, trend).T
  phase = np.arange(length) % period
  folded = np.stack([rest[phase == p].mean(axis=0) for p in range(period)])
  total = np.square(rest).sum(axis=0)
  power = np.square(folded[phase]).sum(axis=0) / np.maximum(total, 1e-12)
  return power, folded.argmax(axis=0)


def vbench_temporal_flickering(steps: np.ndarray) -> np.ndarray:
  """VBench's temporal flickering score of each clip, [n] in [0, 1].

  `(255 - mean_t mean|f_t - f_{t+1}|) / 255` on uint8 frames. A frozen clip
  scores 1, and a clear seam moves the score by 0.002 only.
  """
  return 1 - steps.mean(axis=1)


def _log_ratios(steps: np.ndarray, at: np.ndarray) -> np.ndarray:
  """Log of steps over the median of neighbours not in `at`, [n, len(at)]."""
  levels = []
  for j in at:
    near = np.arange(max(j - REACH, 0), min(j + REACH + 1, steps.shape[1]))
    near = near[~np.isin(near, at)]
    levels.append(np.median(steps[:, near], axis=1))
  return log_ratio(steps[:, at], np.stack(levels, axis=1))


def _checked(at: Sequence[int], num_steps: int) -> np.ndarray:
  at = np.asarray(at, dtype=int)
  if not at.size or at.min() < 1 or at.max() > num_steps - 2:
    raise UserError(
      f'boundaries must lie inside the clip, transitions 1 to {num_steps - 2}, '
      f'but got {at.tolist()}; use longer clips or other boundaries.'
    )
  return at
