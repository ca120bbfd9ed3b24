"""Connects an evaluation set to the model: plans, keys, batches of clips."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files, orders, plans
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import clips as set_clips
from unitemp_jax.evaluation_sets.clips import Clip
from unitemp_jax.evaluation_sets.produce import Maker
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.generate.request import Given, places
from unitemp_jax.plans import Plan
from unitemp_jax.plans import text as plan_text
from unitemp_jax.sampling.model_folder import ModelCard


def order_plans(
  card: ModelCard,
  names: Sequence[str],
  frames: int,
  given: str,
  anchors: int | None = None,
  start: int | None = None,
  window: int | None = None,
  sinks: str = 'none',
) -> dict[str, Plan]:
  """The plan of each order.

  Args:
    card: of the model.
    names: of `orders.ORDERS`.
    frames: of a clip, 1 + 4k.
    given: as `Suite.given`: what there is for the orders that want it.
    anchors: anchor latents; None = as the model was trained.
    start: level at which carried anchors start; None = as above.
    window: most latents that a row sees; None = all.
    sinks: of `orders.SINKS`, for forward and backward: ends that stay in view.

  Raises:
    UserError: an unknown order, or one that wants other given frames.
  """
  if frames < 5 or frames % 4 != 1:
    raise UserError(f'--frames={frames} must be 1 + 4k, such as {card.frames}.')
  settings: dict[str, Any] = {
    'block': card.block,
    'anchors': card.anchors if anchors is None else anchors,
    'start': card.start if start is None else start,
    'window': window,
  }
  made = {}
  for name in names:
    if name not in orders.ORDERS:
      raise UserError(
        f'--order names {name!r}; use some of {", ".join(orders.ORDERS)}.'
      )
    order, more = orders.ORDERS[name], dict(settings)
    if sinks != 'none':
      if name not in orders.DIRECTIONS:
        raise UserError(f'--sinks has no meaning for the order {name}.')
      span = 1 + (card.frames - 1) // 4
      order = orders.long
      more |= {'direction': name, 'sinks': sinks, 'span': span}
    first, last = given_counts(name, given)
    made[name] = order(
      1 + (frames - 1) // 4, given_first=first, given_last=last, **more
    )
  return made


def given_counts(order: str, given: str) -> tuple[int, int]:
  """Latents that an order is given at either end.

  An image starts every order. Of a real clip, its ends are given to the orders
  that fill between two; the others make what they can from its caption.
  """
  if given == 'clip':
    return (1, 1) if order.startswith('inbetween') else (0, 0)
  return int(given == 'image'), 0


def order_names(text: str, given: str) -> list[str]:
  """Names with commas, or 'all' for every order that has what it wants."""
  if text != 'all':
    return text.split(',')
  return [
    name
    for name in orders.ORDERS
    if given == 'clip' or not name.startswith('inbetween')
  ]


def with_keys(
  listed: Sequence[Clip],
  order_of: dict[str, Plan],
  model: str,
  decode: str,
) -> list[Clip]:
  """Clips with the hash of all that decides their content.

  Raises:
    UserError: an image or a real clip cannot be read.
  """
  tables = {name: plan_text.to_json(plan) for name, plan in order_of.items()}
  digests: dict[Path, str] = {}
  found = []
  for clip in listed:
    source = clip.prompt.image or clip.prompt.clip
    if source is not None and source not in digests:
      digests[source] = _digest(source)
    key = set_clips.content_key(
      *(model, decode, tables[clip.order], clip.prompt.text, clip.seed),
      digests[source] if source is not None else '',
    )
    found.append(dataclasses.replace(clip, key=key))
  return found


def _digest(path: Path) -> str:
  try:
    return files.file_sha256(path)
  except OSError as error:
    raise UserError(f'{path} cannot be read ({error.strerror}).') from error


def model_maker(
  pipeline: Pipeline,
  order_of: dict[str, Plan],
  given: Callable[[Clip], tuple[Given, ...]],
  size: int,
  decode: str,
) -> Maker:
  """How a model makes clips.

  All plans get one shape, so that they share one compiled program, and every
  batch is filled up to `size` with repetitions of its last clip, so that none
  is left out.
  """
  order_of = dict(zip(order_of, plans.align(*order_of.values()), strict=True))

  def generate(group: Sequence[Clip]):
    full = [*group, *[group[-1]] * (size - len(group))]
    plan = order_of[group[0].order]
    parts = [given(clip) for clip in full]
    latents = [
      pipeline.encode(np.stack(videos))
      for videos in zip(
        *([own.video for own in part] for part in parts), strict=True
      )
    ]
    wanted = [latents[i][:, k] for i, k in places(plan, parts[0])]
    made = pipeline.generate(
      [clip.prompt.text for clip in full],
      [clip.seed for clip in full],
      plan,
      np.stack(wanted, axis=1) if wanted else None,
    )
    return made, parts

  def pixels(group: Sequence[Clip], result):
    made, parts = result
    videos = np.array(pipeline.pixels(made, decode)[: len(group)])
    for video, part in zip(videos, parts, strict=False):
      for own in part:
        video[own.frame : own.frame + len(own.video)] = own.video
    return videos

  return Maker(lambda clip: clip.order, generate, pixels, size)
