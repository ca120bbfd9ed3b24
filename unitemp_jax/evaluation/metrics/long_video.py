"""Drift of long videos, in the order of playback and in that of generation.

A video is cut into windows; how each looks is measured in units of the spread
over the windows of real clips, so that the looks can be averaged. As played:
how far is the end from the beginning? Real clips have such a distance too,
since things come to rest. As made: is what was made last further from real
clips *of the same time* than what was made first? There errors show that add
up, whatever the direction, and what real clips do does not.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from unitemp_jax.evaluation.metrics import curves
from unitemp_jax.video.frames import check_clips

LOOKS = curves.COURSES
# Share of the windows at either end that are compared (FramePack's choice).
_END = 0.15


def window_cuts(num_frames: int, windows: int) -> np.ndarray:
  """First frames of the windows, and the end of the last, int [windows + 1]."""
  return np.linspace(0, num_frames, windows + 1).round().astype(int)


def courses(frames: np.ndarray, windows: int) -> np.ndarray:
  """How each window of each clip looks on average, [n, windows, 6].

  Args:
    frames: [n, T, H, W, 3], uint8 or floats in [0, 1]; 3 per window at least.
    windows: into how many windows the frames are cut.

  Returns:
    In the order of LOOKS: the qualities of `curves.Curves.looks` and the mean
    step.
  """
  check_clips(frames, at_least=3 * windows)
  cuts = window_cuts(frames.shape[1], windows)
  sums = [
    np.add.reduceat(curves.measure(clip).course, cuts[:-1]) for clip in frames
  ]
  return np.stack(sums) / np.diff(cuts)[:, None]


@dataclasses.dataclass(frozen=True)
class Reference:
  """Real clips that drift is measured against."""

  mean: np.ndarray  # [windows, 6] at each time
  spread: np.ndarray  # [6], standard deviation over all windows of all clips

  @classmethod
  def of(cls, real: np.ndarray) -> 'Reference':
    """From `courses` of real clips; other ones than are to be measured."""
    spread = real.reshape(-1, real.shape[-1]).std(axis=0)
    return cls(real.mean(axis=0), np.maximum(spread, 1e-6))

  def apart(self, course: np.ndarray) -> np.ndarray:
    """Distance of `courses` from the real clips at each time, in spreads."""
    return np.abs(course - self.mean) / self.spread


def ends_apart(course: np.ndarray, spread: np.ndarray | float) -> np.ndarray:
  """|last 15 % - first 15 %| in units of `spread`, [n, k].

  Args:
    course: [n, windows or frames, k], in the order that is asked about.
    spread: of real clips, [k].
  """
  first, last = _ends(course)
  return np.abs(last - first) / spread


def growth(
  course: np.ndarray, reference: Reference, generated: Sequence[int]
) -> np.ndarray:
  """Distance from real clips, of the last made 15 % minus the first made 15 %.

  Args:
    course: [n, windows, 6] from `courses`, in playback order.
    reference: real clips of the same times.
    generated: the windows in the order in which they were generated.

  Returns:
    [n, 6] in real spreads; positive = errors have added up.
  """
  first, last = _ends(reference.apart(course)[:, np.asarray(generated)])
  return last - first


def window_order(
  num_frames: int, windows: int, spans: Iterable[tuple[int, int]]
) -> list[int]:
  """Returns the windows in the order in which a plan generates them.

  Args:
    num_frames: of the video.
    windows: into how many it is cut.
    spans: first and last frame of every generated block, in that order.
  """
  made = np.zeros(num_frames)
  for step, (first, last) in enumerate(spans):
    made[first : last + 1] = step
  cuts = window_cuts(num_frames, windows)
  when = np.add.reduceat(made, cuts[:-1]) / np.diff(cuts)
  return np.argsort(when, kind='stable').tolist()


def _ends(course: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  count = max(1, round(_END * course.shape[1]))
  return course[:, :count].mean(axis=1), course[:, -count:].mean(axis=1)
