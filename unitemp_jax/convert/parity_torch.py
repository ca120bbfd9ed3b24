"""The PyTorch side: diffusers' and transformers' modules, and what they saw.

PyTorch is imported when a function is called, and only here and in the other
modules of `convert`.
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.models.vae3d import VAEConfig

# What diffusers keeps in float32 when it loads a transformer in bfloat16.
_FLOAT32 = {
  *('rope', 'time_embedder', 'scale_shift_table'),
  *('norm1', 'norm2', 'norm3'),
}


def require() -> None:
  """Raises UserError unless PyTorch, diffusers and transformers are there."""
  try:
    import diffusers  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
  except ImportError as error:
    raise UserError(
      f'{error.name} is not installed, and parity runs PyTorch beside JAX; '
      'run: pip install "unitemp_jax[torch]".'
    ) from error


def dit_module(config: DiTConfig):
  """diffusers' transformer of this size, on the meta device."""
  import diffusers
  import torch

  with torch.device('meta'):
    return diffusers.WanTransformer3DModel(
      patch_size=(1, config.patch, config.patch),
      num_attention_heads=config.num_heads,
      attention_head_dim=config.head_dim,
      in_channels=config.channels,
      out_channels=config.channels,
      text_dim=config.text_dim,
      freq_dim=config.freq_dim,
      ffn_dim=config.ffn_dim,
      num_layers=config.num_layers,
    )


def vae_module(config: VAEConfig):
  """diffusers' VAE of this size, on the meta device."""
  import diffusers
  import torch

  with torch.device('meta'):
    return diffusers.AutoencoderKLWan(
      base_dim=config.base_dim,
      z_dim=config.z_dim,
      dim_mult=list(config.dim_mult),
      num_res_blocks=config.num_res_blocks,
      temperal_downsample=list(config.temporal_down),
    )


def umt5_module(config: TextConfig):
  """transformers' UMT5 encoder of this size, on the meta device."""
  import torch
  import transformers

  with torch.device('meta'):
    return transformers.UMT5EncoderModel(
      transformers.UMT5Config(
        vocab_size=config.vocab,
        d_model=config.dim,
        d_kv=config.head_dim,
        d_ff=config.ffn_dim,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        relative_attention_num_buckets=config.buckets,
        relative_attention_max_distance=config.max_distance,
        feed_forward_proj='gated-gelu',
      )
    )


BUILDERS: dict[str, Callable[[Any], Any]] = {
  'dit': dit_module,
  'vae': vae_module,
  'umt5': umt5_module,
}


def torch_shapes(kind: str, config: Any) -> dict[str, tuple[int, ...]]:
  """Names and shapes of the reference's state dict."""
  module = BUILDERS[kind](config)
  return {k: tuple(v.shape) for k, v in module.state_dict().items()}


def build(kind: str, config: Any, state: Mapping[str, np.ndarray], dtype: str):
  """Returns the reference with these weights, ready to run in a dtype.

  Args:
    kind: 'dit', 'vae' or 'umt5'.
    config: its size.
    state: weights in diffusers' (transformers') layout.
    dtype: 'float32' or 'bfloat16'.

  Raises:
    UserError: names or shapes do not fit.
  """
  import torch

  module = BUILDERS[kind](config)
  tensors = {
    k: torch.from_numpy(np.array(v, np.float32)) for k, v in state.items()
  }
  if kind == 'umt5':  # One tensor under two names.
    tensors['encoder.embed_tokens.weight'] = tensors['shared.weight']
  try:
    module.load_state_dict(tensors, strict=True, assign=True)
  except RuntimeError as error:
    raise UserError(
      f"the weights do not fit PyTorch's {kind} of this config: {error}"
    ) from error
  if kind == 'dit':  # Its tables are computed, so they were left on meta.
    module.rope = type(module.rope)(
      config.head_dim, (1, config.patch, config.patch), 1024
    )
  if dtype == 'bfloat16':
    for name, parameter in module.named_parameters():
      if kind != 'dit' or _FLOAT32.isdisjoint(name.split('.')):
        parameter.data = parameter.data.to(torch.bfloat16)
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

  Args:
    module: the network.
    names: of its submodules.
    run: what calls the network.

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
