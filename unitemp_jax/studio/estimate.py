"""The plan of a timeline, as a page draws it, and what it costs."""

import statistics
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import layout
from unitemp_jax.generate import memory
from unitemp_jax.models import sizes
from unitemp_jax.plans import decoding, drawing
from unitemp_jax.progress import duration
from unitemp_jax.sampling import model_folder
from unitemp_jax.studio.project import Project
from unitemp_jax.studio.timeline import Timeline


def plan(project: Project, line: Timeline) -> dict[str, Any]:
  """Blocks in the order of generation and their cost; or what does not fit."""
  with tempfile.TemporaryDirectory() as scratch:
    try:
      call = project.call(line, Path(scratch))
      request = project.job(call, project.folder, line.decode).request
    except UserError as error:
      return {'error': str(error)}
  card = project.card
  frames, size = request.num_frames, (request.height, request.width)
  spans = layout.read_spans(decoding.describe_blocks(request.plan), frames)
  held = [(g.frame, g.frame + len(g.video) - 1) for g in request.conditioning]
  blocks = [
    (low, high, any(a <= low and high <= b for a, b in held))
    for low, high in spans
  ]
  left = sum(not given for *_, given in blocks)
  made = [project.about(version) for version in project.versions().values()]
  time = seconds(left, made)
  about = 'time known after the first video'
  if time is not None:
    about = f'about {duration(max(time, 1))}, more where programs are compiled'
  shapes = model_folder.inference_shapes(card)
  weights = sizes.num_bytes([shapes[n] for n in ('vae', 'student', 'text')])
  cache = memory.clip_bytes(card, request.plan, size)
  return {
    'frames': frames,
    'blocks': blocks,
    'svg': drawing.draw(request.plan),
    'seconds': time,
    'said': [
      f'{frames} frames of {request.width}×{request.height}, '
      f'{frames / card.fps:.2f} s: {left} block{"s" * (left != 1)}, '
      f'{about}.',
      f'Memory: {_mib(weights + cache)} (model {_mib(weights)}, cache '
      f'{_mib(cache)}), frames {_mib(3 * frames * size[0] * size[1])}.',
      *[f'Of the storyboard: {n} {v}.' for n, v in line.settings().items()],
      *[f'Note: {remark}.' for remark in request.remarks],
    ],
  }


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


def _mib(count: int) -> str:
  return f'{count / 2**20:.{int(count < 2**23)}f} MiB'
