"""How the suites of workflows run a plan of their own for many clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from unitemp_jax.data.falling_digits import sample_clips
from unitemp_jax.evaluation.metrics.bootstrap import Interval
from unitemp_jax.evaluation.metrics.results import Result
from unitemp_jax.evaluation.suites.bench import Bench, Section, clip_spec
from unitemp_jax.generate.pipeline import Generated
from unitemp_jax.generate.request import Given, places
from unitemp_jax.plans import Plan, decoding
from unitemp_jax.sampling import decode


@dataclasses.dataclass(frozen=True)
class Runs:
  """The first clips of a bench, run with any plan.

  Attributes:
    bench: what all suites share.
    count: so many of its clips; long videos are measured on fewer.
  """

  bench: Bench
  count: int

  @classmethod
  def of(cls, bench: Bench, most: int | None = None) -> Runs:
    """All clips of the bench, or at most so many."""
    count = bench.settings.num_clips
    return cls(bench, count if most is None else min(count, most))

  @property
  def captions(self) -> list[str]:
    """One per clip."""
    return list(self.bench.clips['caption'][: self.count])

  @property
  def real(self) -> np.ndarray:
    """The held-out clips, uint8 `[count, T, H, W, 3]`."""
    return self.bench.real[: self.count]

  def scene(self, kind: str, frames: int, first: int = 0) -> dict:
    """Held-out clips of one kind of scene alone.

    Args:
      kind: 'hop', which goes on for ever and closes after every 16 frames, or
        'turn', in which one digit becomes another.
      frames: of each.
      first: number of the first one.

    Returns:
      As `falling_digits.sample_clips`, `count` clips.
    """
    spec = clip_spec(self.bench.card, frames)
    spec = dataclasses.replace(
      spec, hop_share=float(kind == 'hop'), turn_share=float(kind == 'turn')
    )
    return sample_clips(spec, range(first, first + self.count))

  def longer(self, frames: int) -> np.ndarray:
    """The clips of the bench with another number of frames."""
    spec = clip_spec(self.bench.card, frames)
    return sample_clips(spec, range(self.count))['video']

  def settings(self, **changes) -> dict:
    """Arguments that all orders take, the model's own unless changed."""
    card = self.bench.card
    own = {'block': card.block, 'anchors': card.anchors, 'start': card.start}
    return {**own, **changes}

  def generate(
    self,
    name: str,
    plan: Plan,
    prompts: Sequence[str | Sequence[str]],
    given: Mapping[int, np.ndarray] | None = None,
  ) -> Generated:
    """Runs a plan for every clip.

    Args:
      name: said in the progress.
      plan: checked rows.
      prompts: one per clip, or one per clip and prompt of the plan.
      given: frames `[count, n, H, W, 3]` that the plan reads, by the frame of
        the finished video at which they begin; each is encoded by itself.
    """
    bench = self.bench
    arrays = [np.asarray(prompts), bench.seeds[: self.count]]
    if given:
      clips = [Given(frame, video[0]) for frame, video in given.items()]
      parts = [bench.encode(video) for video in given.values()]
      order = places(plan, clips)
      arrays.append(np.stack([parts[i][:, k] for i, k in order], axis=1))

    def sample(texts, seeds, latents=None):
      return bench.generate(texts, seeds, plan, latents)

    return bench.gather(name, plan, sample, *arrays)

  def make(self, name: str, plan: Plan, prompts, given=None) -> np.ndarray:
    """Runs a plan and decodes it jointly, nothing pasted; see `generate`.

    Returns:
      uint8 `[count, T, H, W, 3]`, T of the plan's timeline.
    """
    made = self.generate(name, plan, prompts, given)
    # Piece by piece, so that videos of all lengths share two programs.
    schedule = decoding.joint(plan, clips=False)

    def shown(latents, anchors):
      chunk, anchors = self.bench.pipeline.decode_chunk, anchors.swapaxes(0, 1)
      return decode.compose(decode.run(chunk, plan, schedule, latents, anchors))

    return self.bench.run(shown, made.latents, made.anchors.swapaxes(0, 1))[0]

  def reads(
    self, video: np.ndarray, digit: np.ndarray, colour: np.ndarray
  ) -> dict[str, np.ndarray]:
    """Whether the classifier reads this digit and this colour, bool `[n]`."""
    digit_read, colour_read, _ = self.bench.digits.read(video)
    return {'digit': digit_read == digit, 'colour': colour_read == colour}


def section(title: str, prefix: str, rows: Sequence[Result]) -> Section:
  """A table whose metrics are told from those of other suites by a prefix."""
  named = [
    dataclasses.replace(row, metric=f'{prefix}: {row.metric}') for row in rows
  ]
  return Section(title, tuple(named))


def exact(value: float, count: int) -> Interval:
  """A number without an interval, over so many clips."""
  return Interval(value, value, value, count)


def paste(video: np.ndarray, given: Mapping[int, np.ndarray]) -> np.ndarray:
  """The video `[n, T, H, W, 3]` with given frames in place, by first frame."""
  video = video.copy()
  for first, frames in given.items():
    video[:, first : first + frames.shape[1]] = frames
  return video
