"""Writes one clip of a set: mp4, poster, and last its record."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

import unitemp_jax
from unitemp_jax import files
from unitemp_jax.evaluation_sets.clips import Clip
from unitemp_jax.evaluation_sets.store import Store
from unitemp_jax.plans import Plan, decoding, text
from unitemp_jax.video import frames
from unitemp_jax.video.write import write_image, write_video

_POSTER = 160  # pixels, the longer side


@dataclasses.dataclass(frozen=True)
class Form:
  """How the clips of a set are written.

  Attributes:
    fps: frames per second.
    scale: whole number by which pixels are repeated in the file.
    decode: how latents became pixels.
    checkpoint: hash of the model.
  """

  fps: float
  scale: int
  decode: str
  checkpoint: str


def order_facts(plan: Plan) -> dict[str, Any]:
  """What a clip's record says of its order.

  Returns:
    `generation_order`: temporal positions of each generated row, in order;
    `boundary_frames`: transitions, counted from the first frame, from latents
    of one row to those of another, or of a given clip.
  """
  made = [
    [position for position, _ in plan.entries(row)]
    for row in np.flatnonzero(~plan.given & (plan.count > 0))
  ]
  blocks = decoding.with_ends(plan, made)
  owner = {position: k for k, own in enumerate(blocks) for position in own}
  last = plan.num_frames // 4
  owners = [owner.get(plan.begin + k, -1) for k in range(last + 1)]
  seams = [4 * k for k in range(last) if owners[k] != owners[k + 1]]
  return {'generation_order': blocks, 'boundary_frames': seams}


def write_clip(
  store: Store,
  clip: Clip,
  video: np.ndarray,
  form: Form,
  facts: dict[str, Any],
) -> None:
  """Writes a clip so that it is there as a whole or not at all.

  Args:
    store: of the set.
    clip: what it is.
    video: uint8 `[T, H, W, 3]`.
    form: how to write it.
    facts: `order_facts` of its plan, and what else belongs in its record.
  """
  about = {
    'prompt': clip.prompt.text,
    'name': clip.prompt.name,
    'id': clip.prompt.id,
    'sample': clip.sample,
    'seed': clip.seed,
    'order': clip.order,
    'decode': form.decode,
    'frames': len(video),
    'fps': form.fps,
    **facts,
    'checkpoint': form.checkpoint,
    'version': unitemp_jax.__version__,
    'key': clip.key,
  }
  path = store.video(clip)
  with store.writing(path) as temporary:
    write_video(temporary, video, form.fps, about, scale=form.scale)
    size, digest = temporary.stat().st_size, files.file_sha256(temporary)
  with store.writing(store.poster(clip)) as temporary:
    step = max(1, max(video.shape[1:3]) // _POSTER)
    write_image(temporary, video[len(video) // 2, ::step, ::step])
  steps = frames.frame_steps(video[None])[0]
  store.write_json(
    store.record(clip),
    {
      **about,
      'dimension': list(clip.prompt.dimensions),
      'height': video.shape[1] * form.scale,
      'width': video.shape[2] * form.scale,
      'scale': form.scale,
      'frame_difference': [round(float(step), 6) for step in steps],
      'bytes': size,
      'sha256': digest,
    },
    indent=None,
  )


def write_truth(store: Store, name: str, video: np.ndarray, form: Form) -> Path:
  """Writes a real clip as its generated ones are written; returns its path."""
  path = store.root / 'real' / f'{name}.mp4'
  if not path.exists():
    with store.writing(path) as temporary:
      write_video(temporary, video, form.fps, scale=form.scale)
  return path


def write_plan(store: Store, order: str, plan: Plan) -> None:
  """Writes the table of rows that an order runs."""
  table = json.loads(text.to_json(plan))
  store.write_json(store.root / 'plans' / f'{order}.json', table)
