"""Latents and frames of two systems that started from the same noise.

An npz holds what a run made of its noise: `noise`, and `latents` or `frames` or
both. Systems store their axes in different orders; the noise, which is equal,
tells which order it is.
"""

import dataclasses
from pathlib import Path

import numpy as np

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap, temporal
from unitemp_jax.evaluation.metrics.results import Result, result

# Half precision rounds noise of 5 sigma by 0.02.
TOLERANCE = 0.02
_KINDS = ('latents', 'frames')
# Axis orders of PyTorch systems, as permutations to [F, H, W, C].
_ORDERS = {'FHWC': (0, 1, 2, 3), 'FCHW': (0, 2, 3, 1), 'CFHW': (1, 2, 3, 0)}


@dataclasses.dataclass(frozen=True)
class Gap:
  """How far apart two arrays of one kind are."""

  kind: str  # 'latents' or 'frames'
  largest: float  # largest absolute difference
  rms: float  # root mean square difference
  relative: float  # `rms` over the root mean square of the first
  cosine: float  # of the two as vectors
  course: np.ndarray  # [F] relative difference of each latent or frame
  psnr: float | None  # of frames in dB, None of latents


def read(path: Path) -> dict[str, np.ndarray]:
  """Reads an npz of `noise` and `latents` or `frames`, 4 axes each.

  A leading axis of length 1 is dropped. UserError if the file is missing, or
  lacks one of them.
  """
  mend = 'give an npz with noise and what it made'
  arrays = files.read_arrays(path, mend, ('noise', *_KINDS))
  if 'noise' not in arrays or len(arrays) < 2:
    raise UserError(
      f'{path} must hold "noise" and "latents" or "frames", but has '
      f'{sorted(arrays)}; save them with numpy.savez.'
    )
  for name, values in arrays.items():
    if values.ndim == 5 and len(values) == 1:
      values = values[0]
    good = values.ndim == 4 and values.dtype.kind in 'fiu'
    if not good or not np.isfinite(values).all():
      raise UserError(
        f'{path}: {name} must be finite, [F, H, W, C] in any order of axes, '
        f'but is {list(values.shape)}.'
      )
    arrays[name] = values
  return arrays


def compare(first: Path, second: Path) -> list[Gap]:
  """Compares what two systems made of the same noise.

  Args:
    first: npz with axes [F, H, W, C].
    second: npz with axes in any of the usual orders.

  Raises:
    UserError: a file cannot be read, the noise differs, or shapes do.
  """
  one, two = read(first), read(second)
  order = _order(one['noise'], two['noise'], first, second)
  gaps = []
  for kind in _KINDS:
    if kind not in one or kind not in two:
      continue
    a, b = one[kind], two[kind]
    if kind == 'latents':
      b = b.transpose(_ORDERS[order])
    elif b.shape != a.shape:
      b = next(
        (
          b.transpose(axes)
          for axes in _ORDERS.values()
          if tuple(b.shape[i] for i in axes) == a.shape
        ),
        b,
      )
    if a.shape != b.shape:
      raise UserError(
        f'{kind} of {first} and {second} have the shapes {list(a.shape)} and '
        f'{list(b.shape)}; compare runs of one size and length.'
      )
    gaps.append(_gap(kind, a, b))
  if not gaps:
    raise UserError(
      f'{first} and {second} share neither latents nor frames; save the same.'
    )
  return gaps


def _order(one, two, first: Path, second: Path) -> str:
  """The axis order of the second file, by its noise."""
  apart = {
    name: float(np.abs(one - two.transpose(axes)).max())
    for name, axes in _ORDERS.items()
    if tuple(two.shape[i] for i in axes) == one.shape
  }
  if not apart:
    raise UserError(
      f'the noise of {first} is {list(one.shape)} and that of {second} '
      f'{list(two.shape)}; they did not start alike.'
    )
  name = min(apart, key=lambda key: apart[key])
  if apart[name] > TOLERANCE:
    raise UserError(
      f'{first} and {second} did not start from the same noise: it differs by '
      f'up to {apart[name]:.3g}; nothing else was compared.'
    )
  return name


def _gap(kind: str, a: np.ndarray, b: np.ndarray) -> Gap:
  psnr = None
  if kind == 'frames':
    if a.dtype != np.uint8 or b.dtype != np.uint8:
      raise UserError(
        f'frames must be uint8, but are {a.dtype} and {b.dtype}; store what '
        'the video shows.'
      )
    psnr = float(temporal.psnr(a[None], b[None])[0])
  a, b = a.astype(np.float64), b.astype(np.float64)
  apart = a - b
  size = max(_rms(a), 1e-12)
  norms = np.sqrt(np.square(a).sum() * np.square(b).sum())
  course = np.sqrt(np.square(apart).mean(axis=(1, 2, 3))) / size
  return Gap(
    kind=kind,
    largest=float(np.abs(apart).max()),
    rms=_rms(apart),
    relative=_rms(apart) / size,
    cosine=float((a * b).sum() / max(norms, 1e-12)),
    course=course,
    psnr=psnr,
  )


def _rms(values: np.ndarray) -> float:
  return float(np.sqrt(np.square(values).mean()))


def to_text(gaps: list[Gap]) -> str:
  """Lines that a person reads."""
  lines = []
  for gap in gaps:
    psnr = '' if gap.psnr is None else f', PSNR {gap.psnr:.2f} dB'
    worst = int(gap.course.argmax())
    lines += [
      f'{gap.kind}: relative RMS {gap.relative:.3g}, RMS {gap.rms:.3g}, '
      f'largest {gap.largest:.3g}, cosine {gap.cosine:.6f}{psnr}',
      f'  relative RMS by position (largest at {worst}): '
      + ' '.join(f'{value:.2g}' for value in gap.course[:64]),
    ]
  return '\n'.join(lines)


def to_results(gaps: list[Gap], group: str, how: str) -> list[Result]:
  """Rows of a table; numbers of one run have no interval."""
  rows = []
  for gap in gaps:
    about = f'{gap.kind} made of the same noise; {how}'
    for metric, value, unit in (
      (f'relative RMS of {gap.kind}', gap.relative, 'ratio'),
      (f'largest difference of {gap.kind}', gap.largest, 'ratio'),
      (f'PSNR of {gap.kind}', gap.psnr, 'dB'),
    ):
      if value is not None:
        number = bootstrap.exact(value, 1)
        rows.append(result(metric, group, number, unit=unit, how=about))
  return rows
