"""What a timeline's plan costs, and how a page draws it."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from unitemp_jax.evaluation.clips import layout
from unitemp_jax.generate.clips import Job
from unitemp_jax.plans import decoding, drawing
from unitemp_jax.sampling import model_folder, sampler

_NETWORKS = ('vae', 'student', 'text')


def picture(job: Job, card: model_folder.ModelCard) -> dict[str, Any]:
  """The plan of a job: its blocks in the order of generation, and memory."""
  request = job.request
  blocks = layout.read_spans(
    decoding.describe_blocks(request.plan), request.num_frames
  )
  held = [(g.frame, g.frame + len(g.video) - 1) for g in request.conditioning]
  return {
    'frames': request.num_frames,
    'width': request.width,
    'height': request.height,
    'remarks': list(request.remarks),
    'blocks': [
      [low, high, any(a <= low and high <= b for a, b in held)]
      for low, high in blocks
    ],
    'svg': drawing.draw(request.plan),
    'memory': memory(job, card),
  }


def memory(job: Job, card: model_folder.ModelCard) -> dict[str, int]:
  """Bytes of the weights, of the KV cache, and of the frames on the host."""
  request = job.request
  grid = card.latent_grid(request.height, request.width)
  cache = jax.eval_shape(
    lambda: sampler.cache_for(
      card.dit, sampler.bucketed(request.plan), 1, *grid
    )
  )
  shapes = model_folder.inference_shapes(card)
  return {
    'weights': _bytes([shapes[name] for name in _NETWORKS]),
    'cache': _bytes(cache),
    'frames': 3 * request.num_frames * request.height * request.width,
  }


def _bytes(tree: Any) -> int:
  return sum(
    leaf.size * leaf.dtype.itemsize for leaf in jax.tree_util.tree_leaves(tree)
  )


def seconds(blocks: int, made: Iterable[Mapping[str, Any]]) -> float | None:
  """Time for so many blocks by what others took; None if none is known.

  A first block may take longer: then programs are compiled.

  Args:
    blocks: to be made.
    made: facts of finished versions (`Project.about`).
  """
  each = []
  for about in made:
    timings = about.get('timings', {})
    count = len(about.get('block_frames', ()))
    if 'first block' in timings and count > 1:
      rest = timings['generation'] - timings['first block']
      each.append(rest / (count - 1))
  return blocks * statistics.median(each[-5:]) if each else None
