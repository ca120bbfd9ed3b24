"""What all suites share: a model, held-out clips, and what was generated.

Whatever is expensive is computed when it is first asked for and then kept, so
that a suite costs little after another one. All work runs in batches of one
size, the last one filled up, so that one compiled program serves.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from unitemp_jax import orders, plans
from unitemp_jax.data.falling_digits import FallingDigitsSpec, sample_clips
from unitemp_jax.evaluation.classifiers.arrow_of_time import ArrowOfTime
from unitemp_jax.evaluation.classifiers.digits import DigitClassifier
from unitemp_jax.evaluation.metrics import bootstrap, results, temporal
from unitemp_jax.evaluation.metrics.bootstrap import Interval
from unitemp_jax.generate.pipeline import Generated, Pipeline
from unitemp_jax.plans import Plan
from unitemp_jax.sampling import model_folder

DIGITS = model_folder.TINY / 'oracle.npz'
ARROW = model_folder.TINY / 'arrow.npz'
TEACHER_STEPS = 50

# Clips draw their noise from seeds that no other --seed uses.
_SEED_STRIDE = 100_003

MOTION = 'mean frame difference of a clip over that of the real clips'
MOTION_TAIL = f'{MOTION}, in the last third; 0 = it stands still'

# Plans beside those of `orders.ORDERS`.
LAST_GIVEN = 'backward, last frame given'
START_OFF = f'{LAST_GIVEN}, start off'
NO_ANCHORS = f'{LAST_GIVEN}, P = 0'
HYBRID = 'backward, first block alone anchored'
VOID = 'backward from nothing, P = 0 (void)'
FIRST_GIVEN = 'forward, first frame given'


@dataclasses.dataclass(frozen=True)
class Settings:
  """How much is measured: clips, clips per batch, and the seed."""

  num_clips: int
  batch_size: int
  seed: int


@dataclasses.dataclass(frozen=True)
class Section:
  """Results that are shown as one table under one title."""

  title: str
  rows: tuple[results.Result, ...]


def batched(
  function: Callable, size: int, *arrays, tick: Callable[[int], None]
) -> list:
  """Calls a function on batches of equal size, and cuts what was filled up.

  Args:
    function: of one batch of every array; returns an array `[size, ...]`, or a
      tuple of such.
    size: rows of a batch; the last batch repeats its last row.
    *arrays: sequences of equal length n that can be sliced.
    tick: is told after each batch how many rows are done.

  Returns:
    One array `[n, ...]`, or one for each of the tuple.
  """
  total, pieces = len(arrays[0]), []
  for start in range(0, total, size):
    rows = np.minimum(np.arange(start, start + size), total - 1)
    made = function(*(np.asarray(array)[rows] for array in arrays))
    made = made if isinstance(made, tuple) else (made,)
    pieces.append([part[: total - start] for part in made])
    tick(min(start + size, total))
  return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]


def clip_spec(card: model_folder.ModelCard, frames: int) -> FallingDigitsSpec:
  """The held-out clips that a model is measured on."""
  return FallingDigitsSpec(num_frames=frames, size=card.height, split='test')


def make_plans(card: model_folder.ModelCard) -> dict[str, Plan]:
  """Every plan that is run, by name, all of one shape."""
  latents = 1 + (card.frames - 1) // 4
  sizes = {'block': card.block, 'anchors': card.anchors}
  made = {
    name: order(latents, start=card.start, **sizes)
    for name, order in orders.ORDERS.items()
  }
  made[START_OFF] = orders.backward(latents, given_last=1, **sizes)
  made[FIRST_GIVEN] = orders.forward(
    latents, start=card.start, given_first=1, **sizes
  )
  made[LAST_GIVEN] = orders.backward(
    latents, start=card.start, given_last=1, **sizes
  )
  aligned = plans.align(*made.values())
  made = dict(zip(made, aligned, strict=True))
  made[NO_ANCHORS] = bare(made[LAST_GIVEN])
  made[HYBRID] = bare(made['backward'], kept=1)
  made[VOID] = bare(made['backward'])
  return made


def bare(plan: Plan, kept: int = 0) -> Plan:
  """The same rows without anchors, but for the first `kept` that have some."""
  anchor = plan.anchor & (np.cumsum(plan.anchor) <= kept)
  return dataclasses.replace(plan, anchor=anchor, start=0 * plan.start)


@dataclasses.dataclass(frozen=True)
class Ends:
  """What is given at the ends of the timeline, uint8 `[B, n, H, W, 3]`.

  n is 1 for an image, or 1 + 4k for a clip; None for an open end.
  """

  first: np.ndarray | None = None
  last: np.ndarray | None = None

  def latents(self, encode: Callable) -> np.ndarray | None:
    """Latents of both ends, in the order of `Plan.preloaded`."""
    parts = [encode(c) for c in (self.first, self.last) if c is not None]
    return np.concatenate(parts, axis=1) if parts else None

  def paste(self, video: np.ndarray) -> np.ndarray:
    """The video with the given frames in place, pixel for pixel."""
    video = video.copy()
    if self.first is not None:
      video[:, : self.first.shape[1]] = self.first
    if self.last is not None:
      video[:, video.shape[1] - self.last.shape[1] :] = self.last
    return video


class Bench:
  """Computes once what suites ask for, n clips at a time."""

  def __init__(
    self,
    folder: str | Path,
    settings: Settings,
    report: Callable[[str], None] = print,
  ):
    """Loads the model and the classifiers.

    Args:
      folder: of the model.
      settings: how much to measure.
      report: is given lines about the progress.

    Raises:
      UserError: a file of the model is missing or does not fit.
    """
    self.pipeline = Pipeline.load(folder)
    self.card = self.pipeline.card
    self.settings = settings
    self.plans = make_plans(self.card)
    self.digits = DigitClassifier.load(DIGITS)
    self.arrow = ArrowOfTime.load(ARROW)
    self._report = report
    self._size = min(settings.batch_size, settings.num_clips)
    self._made: dict[str, Generated] = {}
    self._joint: dict[str, np.ndarray] = {}
    self.pictures: dict[str, np.ndarray] = {}  # by the name of their file

  @functools.cached_property
  def clips(self) -> dict:
    """Held-out clips, as `falling_digits.sample_clips` returns them."""
    spec = clip_spec(self.card, self.card.frames)
    return sample_clips(spec, range(self.settings.num_clips))

  @property
  def real(self) -> np.ndarray:
    """The held-out clips, uint8 `[n, T, H, W, 3]`."""
    return self.clips['video']

  @functools.cached_property
  def latents(self) -> np.ndarray:
    """Their encoding, `[n, N, h, w, C]`."""
    return self.encode(self.real)

  @functools.cached_property
  def reconstruction(self) -> np.ndarray:
    """Their decoding, uint8 `[n, T, H, W, 3]`."""
    return self.decode(self.latents)

  @property
  def seeds(self) -> np.ndarray:
    """Of the noise of each clip; clip i keeps its own in any batch."""
    first = self.settings.seed * _SEED_STRIDE
    return (first + np.arange(self.settings.num_clips)) % 2**32

  def encode(self, video: np.ndarray) -> np.ndarray:
    """Clips to latents in batches; shapes as `Pipeline.encode`."""
    return self.run(self.pipeline.encode, video)[0]

  def decode(self, latents: np.ndarray) -> np.ndarray:
    """Latents to clips in batches; shapes as `Pipeline.decode`."""
    return self.run(self.pipeline.decode, latents)[0]

  def run(self, function, *arrays, name: str = '') -> list:
    """Runs a function in the bench's batches, see `batched`.

    Args:
      function: of one batch of every array.
      *arrays: sequences of equal length.
      name: said with the time left after each batch; '' says nothing.
    """
    began, total = time.monotonic(), len(arrays[0])

    def tick(done):
      left = (time.monotonic() - began) / done * (total - done)
      if name:
        self._report(f'  {name}: {done}/{total} clips, {left:.0f} s left')

    return batched(function, self._size, *arrays, tick=tick)

  @functools.cached_property
  def teacher(self) -> np.ndarray:
    """Latents of the teacher for every caption, `[n, N, h, w, C]`."""

    def sample(prompts, seeds):
      return self.pipeline.sample_teacher(prompts.tolist(), seeds)

    captions = self.clips['caption']
    return self.run(sample, captions, self.seeds, name='teacher')[0]

  def given(self, name: str) -> Ends:
    """What a plan is given of the real clips: nothing, one end, or both."""
    if name.startswith('inbetween'):
      return Ends(self.real[:, :1], self.real[:, -1:])
    if name in (LAST_GIVEN, START_OFF, NO_ANCHORS):
      return Ends(last=self.real[:, -1:])
    return Ends(self.real[:, :1] if name == FIRST_GIVEN else None)

  def made(self, name: str) -> Generated:
    """What the student makes of every caption with the plan of that name."""
    if name not in self._made:
      plan = self.plans[name]
      given = self.given(name).latents(self.encode)

      def sample(prompts, seeds, given=None):
        # The void arm is no lawful plan.
        return self.generate(prompts, seeds, plan, given, void=name == VOID)

      arrays = [self.clips['caption'], self.seeds]
      arrays += [] if given is None else [given]
      self._made[name] = self.gather(name, plan, sample, *arrays)
    return self._made[name]

  def generate(self, prompts, seeds, plan: Plan, given=None, **options):
    """Latents and anchors of a batch, the batch leading both."""
    made = self.pipeline.generate(
      prompts.tolist(), seeds, plan, given, **options
    )
    return made.latents, np.moveaxis(made.anchors, 0, 1)

  def gather(self, name: str, plan: Plan, sample, *arrays) -> Generated:
    """Runs a plan in batches; see `run` for the arguments."""
    latents, anchors = self.run(sample, *arrays, name=name)
    return Generated(latents, np.moveaxis(anchors, 1, 0), plan)

  def joint(self, name: str) -> np.ndarray:
    """A plan's videos decoded at once, given frames not pasted in."""
    if name not in self._joint:
      self._joint[name] = self.made(name).decoded(self.decode, 'joint')
    return self._joint[name]

  def read(self, video: np.ndarray) -> dict[str, np.ndarray]:
    """Whether the caption's digit and colour are read, bool `[n]`."""
    digit, colour, _ = self.digits.read(video)
    return {
      'digit read': digit == self.clips['digit'],
      'colour read': colour == self.clips['colour'],
    }

  def row(
    self, metric: str, group: str, measured: Interval, unit: str, how: str
  ) -> results.Result:
    """A row of a table; `how` is completed by seed and model."""
    run = f'seed {self.settings.seed}, model {self.pipeline.hash}'
    how = f'{how}; unitemp evaluate, {run}'
    return results.result(metric, group, measured, unit=unit, how=how)

  def motion(self, group: str, video, real=None) -> list[results.Result]:
    """Rows with the motion of clips, and with that of their last third."""
    real = self.real if real is None else real
    end, real_end = (slice(-(v.shape[1] // 3), None) for v in (video, real))
    whole = temporal.motion_ratio(video, real)
    tail = temporal.motion_ratio(video[:, end], real[:, real_end])
    return [
      self.row('motion to real', group, bootstrap.mean(whole), 'ratio', MOTION),
      self.row(
        'motion of the last third',
        group,
        bootstrap.mean(tail),
        'ratio',
        MOTION_TAIL,
      ),
    ]

  def share(self, metric: str, group: str, values, how: str) -> results.Result:
    """A row with the share of clips of which something is true, bool `[n]`."""
    return self.row(metric, group, bootstrap.mean(values), '%', how)
