"""What all suites share: a model, held-out clips, and what was generated.

Whatever is expensive is computed when it is first asked for and then kept, so
that a suite costs little after another one. All work runs in batches of one
size, the last one filled up, so that one compiled program serves.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import orders, plans, progress, timeline
from unitemp_jax.data.falling_digits import FallingDigitsSpec, sample_clips
from unitemp_jax.evaluation.classifiers.arrow_of_time import ArrowOfTime
from unitemp_jax.evaluation.classifiers.digits import DigitClassifier
from unitemp_jax.evaluation.metrics import results, temporal
from unitemp_jax.evaluation.metrics.registry import REAL as REAL
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.generate.pipeline import Generated, Pipeline
from unitemp_jax.generate.request import Conditioning, Request
from unitemp_jax.models import weights
from unitemp_jax.plans import Plan, decoding
from unitemp_jax.sampling import decode, model_folder

DIGITS = model_folder.TINY / 'oracle.npz'
ARROW = model_folder.TINY / 'arrow.npz'
TEACHER_STEPS = 50

# Clips draw their noise from seeds that no other --seed uses.
_SEED_STRIDE = 100_003

RECONSTRUCTION = 'VAE reconstruction'
TEACHER = f'teacher, {TEACHER_STEPS} steps'

# Plans beside those of `orders.ORDERS`.
LAST_GIVEN = 'backward, last frame given'
START_OFF = f'{LAST_GIVEN}, start off'
NO_ANCHORS = f'{LAST_GIVEN}, P = 0'
HYBRID = 'backward, first block alone anchored'
VOID = 'backward from nothing, P = 0 (void)'
FIRST_GIVEN = 'forward, first frame given'

Frames = Mapping[int, np.ndarray]  # [n, k, H, W, 3] by where they begin
# [n] per clip; a pair of such, to be compared clip by clip; or an interval.
Values = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
  """How much is measured: clips, clips per batch, and the seed."""

  num_clips: int
  batch_size: int
  seed: int


def batched(function: Callable, size: int, *arrays, name: str = '') -> list:
  """Calls a function on batches of equal size, and cuts what was filled up.

  Args:
    function: of one batch of every array; returns an array `[size, ...]`, or a
      tuple of such.
    size: rows of a batch; the last batch repeats its last row.
    *arrays: sequences of equal length n that can be sliced.
    name: said with the time left after each batch; '' says nothing.

  Returns:
    One array `[n, ...]`, or one for each of the tuple.
  """
  total, pieces = len(arrays[0]), []
  starts: Any = range(0, total, size)
  for start in progress.track(starts, f'{name}: batch') if name else starts:
    rows = np.minimum(np.arange(start, start + size), total - 1)
    made = function(*(np.asarray(array)[rows] for array in arrays))
    made = made if isinstance(made, tuple) else (made,)
    pieces.append([part[: total - start] for part in made])
  return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]


def clip_spec(card: model_folder.ModelCard, frames: int) -> FallingDigitsSpec:
  """The held-out clips that a model is measured on."""
  return FallingDigitsSpec(num_frames=frames, size=card.height, split='test')


def make_plans(card: model_folder.ModelCard) -> dict[str, Plan]:
  """Every plan that is run, by name, all of one shape."""
  latents = timeline.num_latents(card.frames)
  sizes = {'block': card.block, 'anchors': card.anchors}
  usual: dict[str, Any] = {**sizes, 'start': card.start}
  made = {n: order(latents, **usual) for n, order in orders.ORDERS.items()}
  made[START_OFF] = orders.backward(latents, given_last=1, **sizes)
  made[FIRST_GIVEN] = orders.forward(latents, given_first=1, **usual)
  made[LAST_GIVEN] = orders.backward(latents, given_last=1, **usual)
  made = aligned(made)
  made[NO_ANCHORS] = bare(made[LAST_GIVEN])
  made[HYBRID] = bare(made['backward'], kept=1)
  made[VOID] = bare(made['backward'])
  return made


def aligned(made: Mapping[str, Plan]) -> dict[str, Plan]:
  """The same plans in one shape, so that they share their programs."""
  return dict(zip(made, plans.align(*made.values()), strict=True))


def bare(plan: Plan, kept: int = 0) -> Plan:
  """The same rows without anchors, but for the first `kept` that have some."""
  anchor = plan.anchor & (np.cumsum(plan.anchor) <= kept)
  return dataclasses.replace(plan, anchor=anchor, start=0 * plan.start)


def paste(video: np.ndarray, given: Frames) -> np.ndarray:
  """The video `[n, T, H, W, 3]` with given frames in place."""
  video = video.copy()
  for first, frames in given.items():
    video[:, first : first + frames.shape[1]] = frames
  return video


def differences(
  table: Mapping[str, Values], pairs: Iterable[tuple[str, str]]
) -> dict[str, Values]:
  """What is to be compared clip by clip: every metric of pairs of groups."""
  return {
    f'{one} - {other}': {
      f'{metric}, difference': (values, table[other][metric])
      for metric, values in table[one].items()
    }
    for one, other in pairs
  }


def thirds(num_frames: int) -> list[slice]:
  """The first, middle and last third of the frames of a clip."""
  cuts = [round(num_frames * k / 3) for k in range(4)]
  return [slice(*pair) for pair in itertools.pairwise(cuts)]


def motion(video: np.ndarray, real: np.ndarray) -> Values:
  """Motion of clips beside that of real ones, and of their last third."""
  end, real_end = (slice(-(v.shape[1] // 3), None) for v in (video, real))
  return {
    'motion to real': temporal.motion_ratio(video, real),
    'motion of the last third': temporal.motion_ratio(
      video[:, end], real[:, real_end]
    ),
  }


def resampled(pipeline: Pipeline, passes: int = 0, **changes: Any) -> Pipeline:
  """The same weights, sampled otherwise.

  Args:
    pipeline: of the model.
    passes: of every row, at the first of every few noise levels; 0 keeps all.
    **changes: of the model's card, such as `anchors`.
  """
  card = pipeline.card
  if passes:
    levels = card.timesteps
    changes['timesteps'] = levels[:: len(levels) // passes]
    changes['start'] = min(card.start, passes - 1)
  card = dataclasses.replace(card, **changes)
  same = pipeline.params, pipeline.tokenizer, pipeline.hash, pipeline.mesh
  return Pipeline(card, *same, pipeline.text)


class Bench:
  """Computes once what suites ask for, n clips at a time."""

  def __init__(
    self,
    pipeline: Pipeline,
    settings: Settings,
    initial: Pipeline | None = None,
  ):
    """Measures a model, beside the same with its student's initialisation."""
    self.pipeline, self.card = pipeline, pipeline.card
    self.initial = initial
    self.settings = settings
    self.num_latents = timeline.num_latents(self.card.frames)
    self.plans = make_plans(self.card)
    self._made: dict[str, Generated] = {}
    self._joint: dict[str, np.ndarray] = {}
    self.pictures: dict[str, np.ndarray] = {}  # by the name of their file

  @classmethod
  def load(
    cls,
    folder: str | Path,
    settings: Settings,
    teacher: Path | None = None,
    initial: Path | None = None,
  ) -> 'Bench':
    """Measures the model in a folder.

    Args:
      folder: of the model.
      settings: how much to measure.
      teacher: its weights, in place of those in the folder.
      initial: weights that the student's distillation began with.

    Raises:
      UserError: a file of the model is missing or does not fit.
    """
    pipeline, first = Pipeline.load(folder), None
    shapes = model_folder.inference_shapes(pipeline.card)
    if teacher is not None:
      tree = weights.load(teacher, shapes['teacher'])
      pipeline = pipeline.replaced(teacher=tree)
    if initial is not None:
      tree = weights.load(initial, shapes['student'])
      first = pipeline.replaced(student=tree)
    return cls(pipeline, settings, first)

  @functools.cached_property
  def digits(self) -> DigitClassifier:
    """Reads digits and colours."""
    return DigitClassifier.load(DIGITS)

  @functools.cached_property
  def arrow(self) -> ArrowOfTime:
    """Reads the direction of play."""
    return ArrowOfTime.load(ARROW)

  def scene(
    self, kind: str, frames: int, first: int = 0, most: int | None = None
  ) -> dict:
    """Held-out clips of one kind of scene, as `falling_digits.sample_clips`.

    Args:
      kind: 'fall'; 'hop', which goes on for ever and closes after every 16
        frames; or 'turn', in which one digit becomes another.
      frames: of each.
      first: number of the first one.
      most: clips at most; long videos are measured on fewer.
    """
    spec = dataclasses.replace(
      clip_spec(self.card, frames),
      hop_share=float(kind == 'hop'),
      turn_share=float(kind == 'turn'),
    )
    count = min(self.settings.num_clips, most or self.settings.num_clips)
    return sample_clips(spec, range(first, first + count))

  @functools.cached_property
  def clips(self) -> dict:
    """Held-out falls of the model's length."""
    return self.scene('fall', self.card.frames)

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
    return self._run(self.pipeline.encode, video)[0]

  def decode(self, latents: np.ndarray) -> np.ndarray:
    """Latents to clips in batches; shapes as `Pipeline.decode`."""
    return self._run(self.pipeline.decode, latents)[0]

  def _run(self, function, *arrays, name: str = '') -> list:
    size = min(self.settings.batch_size, self.settings.num_clips)
    return batched(function, size, *arrays, name=name)

  def sample_teacher(self, steps: int = TEACHER_STEPS) -> np.ndarray:
    """Latents of the teacher for every caption, `[n, N, h, w, C]`."""

    def sample(prompts, seeds):
      return self.pipeline.sample_teacher(prompts.tolist(), seeds, steps)

    name = f'teacher, {steps} steps'
    return self._run(sample, self.clips['caption'], self.seeds, name=name)[0]

  @functools.cached_property
  def teacher_latents(self) -> np.ndarray:
    """What the teacher makes, `[n, N, h, w, C]`."""
    return self.sample_teacher()

  @functools.cached_property
  def teacher(self) -> np.ndarray:
    """The same as it shows, uint8 `[n, T, H, W, 3]`."""
    return self.decode(self.teacher_latents)

  def options(self, **changes) -> dict:
    """Arguments that all orders take, the model's own unless changed."""
    card = self.card
    own = {'block': card.block, 'anchors': card.anchors, 'start': card.start}
    return {**own, **changes}

  def make(
    self,
    name: str,
    plan: Plan,
    prompts: Sequence[str | Sequence[str]],
    given: Frames | None = None,
  ) -> Generated:
    """What the student makes with a plan, for every clip.

    Args:
      name: of what is done.
      plan: rows; those of VOID make no lawful plan, so no request holds them.
      prompts: one per clip, or one per clip and prompt of the plan.
      given: frames that the plan reads; each is encoded by itself.
    """

    def request(i: int) -> Request:
      own = prompts[i]
      return Request(
        name,
        plan,
        (own,) if isinstance(own, str) else tuple(own),
        int(self.seeds[i]),
        self.card.height,
        self.card.width,
        tuple(
          Conditioning(at, clips[i]) for at, clips in (given or {}).items()
        ),
      )

    def sample(rows):
      if name == VOID:
        texts = [prompts[i] for i in rows]
        made = self.pipeline.generate(texts, self.seeds[rows], plan, void=True)
      else:
        made = self.pipeline.batch([request(i) for i in rows])
      return made.latents, made.anchors.swapaxes(0, 1)

    rows = np.arange(len(prompts))
    latents, anchors = self._run(sample, rows, name=name)
    return Generated(latents, anchors.swapaxes(0, 1), plan)

  def video(self, name: str, plan: Plan, prompts, given=None) -> np.ndarray:
    """Runs a plan and decodes it jointly, nothing pasted; see `make`.

    Returns:
      uint8 `[n, T, H, W, 3]`, T of the plan's timeline.
    """
    made = self.make(name, plan, prompts, given)
    # Piece by piece, so that videos of all lengths share two programs.
    schedule = decoding.joint(plan, clips=False)

    def shown(latents, anchors):
      chunk, anchors = self.pipeline.decode_chunk, anchors.swapaxes(0, 1)
      return decode.compose(decode.run(chunk, plan, schedule, latents, anchors))

    return self._run(shown, made.latents, made.anchors.swapaxes(0, 1))[0]

  def videos(
    self, made: Mapping[str, Plan], prompts, given=None
  ) -> Iterator[tuple[str, np.ndarray]]:
    """Names and videos of plans, which run in one shape; see `video`."""
    for name, plan in aligned(made).items():
      yield name, self.video(name, plan, prompts, given)

  def given(self, name: str) -> Frames:
    """What a plan is given of the real clips: nothing, one end, or both."""
    first, last = {0: self.real[:, :1]}, self.real[:, -1:]
    if name.startswith('inbetween'):
      return {**first, self.card.frames - 1: last}
    if name in (LAST_GIVEN, START_OFF, NO_ANCHORS):
      return {self.card.frames - 1: last}
    return first if name == FIRST_GIVEN else {}

  def made(self, name: str) -> Generated:
    """What the student makes of every caption with the plan of that name."""
    if name not in self._made:
      plan, captions = self.plans[name], self.clips['caption']
      self._made[name] = self.make(name, plan, captions, self.given(name))
    return self._made[name]

  def joint(self, name: str) -> np.ndarray:
    """A plan's videos decoded at once, given frames not pasted in."""
    if name not in self._joint:
      self._joint[name] = self.made(name).decoded(self.decode, 'joint')
    return self._joint[name]

  def read(self, video: np.ndarray, clips: dict | None = None) -> Values:
    """Whether a clip's digit and colour are read, bool `[n]`."""
    clips = clips or self.clips
    digit, colour, _ = self.digits.read(video)
    return {
      'digit read': digit == clips['digit'],
      'colour read': colour == clips['colour'],
    }

  def section(
    self, title: str, table: Mapping[str, Values], prefix: str = ''
  ) -> Section:
    """A table; `prefix` tells its metrics from those of other suites."""
    run = f'seed {self.settings.seed}, model {self.pipeline.hash}'
    prefix = prefix and f'{prefix}: '
    return results.section(title, table, f'unitemp evaluate, {run}', prefix)
