"""fp8 weights, plain and scaled, as weights that are not quantised.

A scaled weight is its fp8 values times a scale: one for the whole (ComfyUI's
`scale_weight` and `weight_scale`), one per output (compressed-tensors), or one
per tile (`weight_scale_inv`, as in DeepSeek-V3, arXiv 2412.19437, section 3.3).
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

from unitemp_jax.convert.checkpoints import FP8, Tensor
from unitemp_jax.errors import UserError

_SCALES = ('scale_weight', 'weight_scale', 'weight_scale_inv')
# Scales of activations, and marks.
_UNUSED = re.compile(r'(.*\.)?(scale_input|input_scale|comfy_quant|scaled_fp8)')
# What only other formats have -> their name.
_OTHERS = {
  r'qweight$|qzeros$': 'integers of 4 bits (GPTQ, AWQ or SVDQuant)',
  r'absmax$|quant_map$|bitsandbytes': 'NF4 or FP4 (bitsandbytes)',
  r'weight_scale_2$': 'NVFP4',
  r'\.SCB$': 'integers of 8 bits (bitsandbytes)',
}
_KINDS = {
  r'F8_E8M0': 'MXFP8 or MXFP4',
  r'^F(4|6_)': 'floats of 4 or 6 bits',
  r'^[IU](nt)?8$|u?int8|qint': 'integers of 8 bits',
  r'F8|float8': 'fp8 that is not E4M3 or E5M2',
}


def dequantise(where: str, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """Returns the tensors of a checkpoint with fp8 weights times their scales.

  They count as bfloat16, which holds every fp8 number.
  """
  out, used = {}, set()
  for name, tensor in names.items():
    if tensor.kind not in FP8:
      continue
    layer = name.removesuffix('weight')
    scale = next((layer + s for s in _SCALES if layer + s in names), None)
    if scale is not None and tensor.shape:
      used.add(scale)
      out[name] = _scaled(where, name, tensor, names[scale])
    else:
      out[name] = Tensor(tensor.shape, 'BF16', _plain(tensor))
  passed = used | {n for n in names if _UNUSED.fullmatch(n)} if out else used
  rest = {n: t for n, t in names.items() if n not in out and n not in passed}
  format_ = next(
    (f for p, f in _OTHERS.items() if any(re.search(p, n) for n in rest)), None
  ) or next(
    (
      f
      for p, f in _KINDS.items()
      if any(re.search(p, t.kind) for t in rest.values())
    ),
    None,
  )
  if format_:
    raise UserError(
      f'{where} holds quantised weights that are not read: {format_}; use the '
      'fp8, bfloat16 or float16 file of the same model.'
    )
  return {n: out.get(n, t) for n, t in names.items() if n not in passed}


def _plain(tensor: Tensor) -> Callable[[slice | None], np.ndarray]:
  return lambda rows: tensor.read(rows).astype(np.float32)


def _scaled(where: str, name: str, tensor: Tensor, scale: Tensor) -> Tensor:
  shape, tiles = tensor.shape, scale.shape
  if scale.dtype is None or not (
    tiles in ((), (1,), shape[:1])
    or (
      len(tiles) == len(shape)
      and all(t and not n % t for n, t in zip(shape, tiles, strict=True))
    )
  ):
    raise UserError(
      f'{where}: the scale of {name} is {list(tiles)} in {scale.kind}, which '
      'is not read; use the bfloat16 or float16 file of the same model.'
    )

  def load(rows: slice | None) -> np.ndarray:
    factor = scale.read().astype(np.float32)
    if len(tiles) < 2:
      factor = factor.reshape(-1, *(1,) * (len(shape) - 1))
    for axis, (n, t) in enumerate(zip(shape, factor.shape, strict=True)):
      if t > 1:
        factor = np.repeat(factor, n // t, axis)
    if rows is not None and len(factor) > 1:
      factor = factor[rows]
    return tensor.read(rows).astype(np.float32) * factor

  return Tensor(shape, 'BF16', load)
