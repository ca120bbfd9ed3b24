"""PyTorch's side of parity: modules, their recorded calls, error rows.

PyTorch is imported when a function is called, and only in `convert`.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unitemp_jax.convert import foreign_configs
from unitemp_jax.convert.checkpoints import Tensor
from unitemp_jax.errors import UserError, optional

# dtype -> largest relative error of (a module, a whole network). bfloat16 has
# 8 bits, so that one rounding is up to 2^-9 = .002, and both sides round.
TOLERANCES = {'float32': (1e-5, 1e-4), 'bfloat16': (2e-2, 5e-2)}

# What diffusers keeps in float32 when it loads a transformer in bfloat16.
_FLOAT32 = {
  *('rope', 'time_embedder', 'scale_shift_table'),
  *('norm1', 'norm2', 'norm3'),
}


@dataclasses.dataclass(frozen=True)
class Row:
  """The comparison of one module."""

  module: str  # its name in PyTorch, or `network` and what was run
  dtype: str  # that both sides computed in
  max_error: float  # largest absolute difference of two outputs
  relative_error: float  # norm of the difference over norm of PyTorch's output
  tolerance: float  # the largest relative error allowed

  @property
  def passed(self) -> bool:
    """Whether the error is within the tolerance; never for NaN."""
    return self.relative_error <= self.tolerance


def compare(module: str, dtype: str, ours, theirs) -> Row:
  """Compares outputs of equal shape; a name with `network` is a whole one."""
  ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
  if ours.shape != theirs.shape:
    raise ValueError(f'{module}: {ours.shape} here, {theirs.shape} in PyTorch')
  size = max(float(np.linalg.norm(theirs)), 1e-30)
  return Row(
    module,
    dtype,
    float(np.abs(ours - theirs).max()),
    float(np.linalg.norm(ours - theirs)) / size,
    TOLERANCES[dtype][module.startswith('network')],
  )


def require() -> None:
  """Raises UserError unless PyTorch, diffusers and transformers are there."""
  with optional('parity runs PyTorch beside JAX', 'torch'):
    import diffusers  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401


def module_of(kind: str, config: Any):
  """diffusers' or transformers' module of a size, on the meta device."""
  import diffusers
  import torch
  import transformers

  with torch.device('meta'):
    if kind == 'dit':
      return diffusers.WanTransformer3DModel.from_config(
        foreign_configs.dit_diffusers(config)
      )
    if kind == 'vae':
      return diffusers.AutoencoderKLWan.from_config(
        foreign_configs.vae_diffusers(config)
      )
    fields = foreign_configs.umt5_transformers(config)
    return transformers.UMT5EncoderModel(transformers.UMT5Config(**fields))


def torch_shapes(kind: str, config: Any) -> dict[str, tuple[int, ...]]:
  """Names and shapes of the reference's state dict."""
  module = module_of(kind, config)
  return {k: tuple(v.shape) for k, v in module.state_dict().items()}


def _dtype(kind: str, name: str, dtype: str):
  """The type of a weight in a network that runs in a dtype."""
  import torch

  narrow = kind != 'dit' or _FLOAT32.isdisjoint(name.split('.'))
  return getattr(torch, dtype if narrow else 'float32')


def _layers(kind: str, config: Any) -> list[str]:
  """Names of the parts whose weights may come and go, in order."""
  if kind == 'vae':
    return []
  blocks = 'blocks.{}' if kind == 'dit' else 'encoder.block.{}'
  found = [blocks.format(i) for i in range(config.num_layers)]
  return found if kind == 'dit' else ['encoder.embed_tokens', *found]


def build(
  kind: str, config: Any, state: Mapping[str, np.ndarray | Tensor], dtype: str
):
  """Returns the reference with these weights, ready to run in a dtype.

  Args:
    kind: 'dit', 'vae' or 'umt5'.
    config: its size.
    state: weights in diffusers' (transformers') layout. Those of a layer that
      are a checkpoint's `Tensor` are read whenever it runs, and dropped after.
    dtype: a name of `TOLERANCES`.

  Raises:
    UserError: names or shapes do not fit.
  """
  import torch

  module, state = module_of(kind, config), dict(state)
  if kind == 'umt5':  # One tensor under two names.
    state['encoder.embed_tokens.weight'] = state['shared.weight']

  def read(name):
    value = state[name]
    value = value.read() if isinstance(value, Tensor) else value
    # Not copied if it need not be: nothing is written to it.
    value = torch.from_numpy(np.require(value, np.float32, ['W']))
    return value.to(_dtype(kind, name, dtype))

  def fill(part, prefix):
    values = {name: read(prefix + name) for name in part.state_dict()}
    part.load_state_dict(values, strict=True, assign=True)

  def empty(name):
    shape, to = state[name].shape, _dtype(kind, name, dtype)
    return torch.empty(shape, dtype=to, device='meta')

  try:
    module.load_state_dict(
      {name: empty(name) for name in state}, strict=True, assign=True
    )
  except RuntimeError as error:
    raise UserError(
      f"the weights do not fit PyTorch's {kind} of this config: {error}"
    ) from error
  left = set(state)
  if any(isinstance(value, Tensor) for value in state.values()):
    left.discard('shared.weight')
    for name in _layers(kind, config):
      part = module.get_submodule(name)
      left -= {f'{name}.{own}' for own in part.state_dict()}
      part.register_forward_pre_hook(
        lambda part, _, prefix=f'{name}.': fill(part, prefix)
      )
      part.register_forward_hook(lambda part, *_: part.to('meta') and None)
  module.load_state_dict(
    {name: read(name) for name in left}, strict=False, assign=True
  )
  if kind == 'dit':  # Its tables are computed, so they were left on meta.
    module.rope = type(module.rope)(
      config.head_dim, (1, config.patch, config.patch), 1024
    )
  return module.eval().requires_grad_(False)


def to_torch(x: Any, dtype: str = 'float32'):
  """An array as a tensor; only floating point takes the dtype."""
  import torch

  tensor = torch.from_numpy(np.array(x))
  floating = tensor.is_floating_point()
  return tensor.to(getattr(torch, dtype)) if floating else tensor


def to_numpy(tensor: Any) -> np.ndarray:
  """A tensor as float32, copied."""
  return tensor.detach().float().numpy().copy()


@dataclasses.dataclass(frozen=True)
class Call:
  """What one call of a module received first and gave back."""

  input: np.ndarray
  output: np.ndarray


def record(module, names: Sequence[str], run) -> tuple[Any, dict]:
  """Runs `run()` and notes the calls of submodules.

  Returns:
    What `run` returned, and for each name its list of `Call`s, in order.
  """
  import torch

  calls: dict[str, list[Call]] = collections.defaultdict(list)

  def hook(name):
    def note(_, arguments, keywords, output):
      first = arguments[0] if arguments else next(iter(keywords.values()))
      if isinstance(output, tuple):
        output = output[0]
      calls[name].append(Call(to_numpy(first), to_numpy(output)))

    return note

  handles = [
    module.get_submodule(name).register_forward_hook(
      hook(name), with_kwargs=True
    )
    for name in names
  ]
  try:
    with torch.no_grad():
      result = run()
  finally:
    for handle in handles:
      handle.remove()
  return result, dict(calls)


def channels_first(x: np.ndarray) -> np.ndarray:
  """`BFHWC` to `BCFHW`."""
  return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def channels_last(x: np.ndarray) -> np.ndarray:
  """`BCFHW` to `BFHWC`."""
  return np.ascontiguousarray(np.moveaxis(x, 1, -1))
