"""Noise from a file and latents to one, to compare with another program.

A file is an .npz with `noise`, float `[level, time, height, width, channel]`
for latents of the whole video, or with its `axes` named in another order; see
`unitemp_jax/generate/README.md` (The same noise as a PyTorch program).
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unitemp_jax import files, timeline
from unitemp_jax.errors import UserError
from unitemp_jax.generate.request import Request
from unitemp_jax.sampling.model_folder import ModelCard

AXES = ('level', 'time', 'height', 'width', 'channel')


def read(path: str | os.PathLike[str]) -> np.ndarray:
  """Reads noise as float32 `[level, time, height, width, channel]`."""
  held = files.read_arrays(path, 'write noise as the guide says')
  noise = held.get('noise')
  if noise is None or noise.ndim != len(AXES) or noise.dtype.kind != 'f':
    raise UserError(
      f'{path} holds no noise; it must have an array of that name with the '
      f'axes {", ".join(AXES)}.'
    )
  axes = [str(name) for name in held.get('axes', np.array(AXES)).reshape(-1)]
  if sorted(axes) != sorted(AXES):
    raise UserError(
      f'{path} names its axes {", ".join(axes)}; they must be '
      f'{", ".join(AXES)}, in any order.'
    )
  noise = noise.transpose([axes.index(name) for name in AXES])
  if not np.isfinite(noise).all():
    raise UserError(f'{path} has noise that is not finite; record it again.')
  return np.ascontiguousarray(noise, np.float32)


def check(noise: np.ndarray, wanted: tuple[int, ...], path: object) -> None:
  """Refuses noise of another size than a video needs."""
  wrong = [
    f'{n} along {axis} and not {m}'
    for axis, n, m in zip(AXES, noise.shape, wanted, strict=True)
    if n != m
  ]
  if wrong:
    raise UserError(
      f'{path} does not fit the video: it has {", ".join(wrong)} (4 frames are '
      'one step of time but for the first, 8 pixels one of height or width, '
      'and there is a level for each pass of the model).'
    )


def save_latents(path: Path, latents: np.ndarray) -> None:
  """Writes latents `[time, height, width, channel]` with their axes named."""
  with files.writing(path) as temporary, temporary.open('r+b') as file:
    np.savez(file, latents=latents, axes=np.array(AXES[1:]))


def given_to(
  requests: Sequence[Request], path: str, card: ModelCard
) -> list[Request]:
  """The same requests, from the noise of a file.

  Raises:
    UserError: it cannot be read, or does not fit a video.
  """
  drawn, out = read(path), []
  for request in requests:
    grid = card.latent_grid(request.height, request.width)
    count = timeline.num_latents(request.num_frames)
    check(drawn, (len(card.timesteps), count, *grid, card.dit.channels), path)
    remark = f'the noise is that of {path}'
    if request.plan.anchor.any():
      remark += '; that of anchors follows the seed'
    remarks = (*request.remarks, remark)
    out.append(dataclasses.replace(request, noise=drawn, remarks=remarks))
  return out
