"""A bench whose student knows the held-out clips, and compiles nothing.

Its latents are the pixels themselves, so that suites of workflows can be tested
by what they must say of a student that makes no mistake.
"""

import dataclasses

import numpy as np

from unitemp_jax.data.falling_digits import sample_clips
from unitemp_jax.evaluation.suites import bench
from unitemp_jax.evaluation.suites.bench import Bench, Settings
from unitemp_jax.generate.pipeline import Generated
from unitemp_jax.generate.request import given_latents
from unitemp_jax.sampling import model_folder


@dataclasses.dataclass
class PerfectPipeline:
  """Makes the held-out clip that a caption belongs to, in any order."""

  card: model_folder.ModelCard
  num_clips: int
  hash: str = 'perfect'

  def __post_init__(self):
    """Learns every caption of every kind of scene."""
    self.known, self.params = {}, {}
    for shares in ({}, {'hop_share': 1.0}, {'turn_share': 1.0}):
      spec = self.spec(self.card.frames, shares)
      captions = sample_clips(spec, range(self.num_clips))['caption']
      for index, caption in enumerate(captions):
        assert caption not in self.known
        self.known[caption] = shares, index

  def spec(self, frames, shares):
    return dataclasses.replace(bench.clip_spec(self.card, frames), **shares)

  def encode(self, video):
    """Latent k holds frames 4k-3..4k, latent 0 frame 0 four times."""
    video = np.concatenate([np.repeat(video[:, :1], 3, 1), video], axis=1)
    size = video.shape
    return video.reshape(size[0], -1, 4, *size[2:])

  def decode(self, latents):
    frames = latents.reshape(len(latents), -1, *latents.shape[3:])
    return np.clip(np.rint(frames[:, 3:]), 0, 255).astype(np.uint8)

  def decode_chunk(self, latents, memory):
    frames = latents.reshape(len(latents), -1, *latents.shape[3:])
    return (frames if memory else frames[:, 3:]), True

  def batch(self, requests):
    prompts = [request.prompts for request in requests]
    given = given_latents(requests, self.encode)
    return self.generate(prompts, [], requests[0].plan, given)

  def sample_teacher(self, prompts, seeds, steps):
    """The same clips, whatever the number of steps."""
    clips = [self.clip(text, self.card.frames) for text in prompts]
    return np.concatenate(clips)

  def clip(self, text, frames):
    """Latents of the held-out clip of a caption."""
    shares, index = self.known[text]
    spec = self.spec(frames, shares)
    return self.encode(sample_clips(spec, [index])['video'])

  def generate(self, prompts, seeds, plan, given=None, **options):
    """The clips of the first prompts, over the timeline of the plan."""
    first = [text if isinstance(text, str) else text[0] for text in prompts]
    positions, entries = plan.timeline()
    frames = plan.num_frames
    latents = np.concatenate([self.clip(text, frames) for text in first])
    buffer = np.zeros((len(first), plan.num_latents, *latents.shape[2:]))
    buffer = buffer.astype(np.uint8)
    if given is not None:
      buffer[:, plan.preloaded()[1]] = given
    index = positions - plan.begin
    if plan.loops and plan.opening is not None:
      index[0] = frames // 4  # the end of the loop is in its first latent
    buffer[:, entries] = latents[:, index]
    # Of the anchors only the last frame can be of the video.
    before = np.repeat(latents[None, :, :1], plan.num_anchors, axis=2)
    anchors = np.repeat(before, plan.num_rows, axis=0)
    return Generated(buffer, anchors, plan)


def perfect_bench(num_clips):
  """Clips with captions of their own, read by the shipped classifier."""
  card = model_folder.read_card(model_folder.TINY)
  pipeline = PerfectPipeline(card, num_clips)
  return Bench(pipeline, Settings(num_clips, batch_size=4, seed=0))
