"""The `config.json` that PyTorch tools read beside the weights."""

from typing import Any

from unitemp_jax.models import rope
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.models.vae3d import VAEConfig

_EPS = 1e-6


def dit_diffusers(config: DiTConfig) -> dict[str, Any]:
  """Of diffusers' WanTransformer3DModel."""
  return {
    '_class_name': 'WanTransformer3DModel',
    'added_kv_proj_dim': None,
    'attention_head_dim': config.head_dim,
    'cross_attn_norm': True,
    'eps': _EPS,
    'ffn_dim': config.ffn_dim,
    'freq_dim': config.freq_dim,
    'image_dim': None,
    'in_channels': config.channels,
    'num_attention_heads': config.num_heads,
    'num_layers': config.num_layers,
    'out_channels': config.channels,
    'patch_size': [1, config.patch, config.patch],
    'qk_norm': 'rms_norm_across_heads',
    'rope_max_seq_len': 1024,
    'text_dim': config.text_dim,
  }


def dit_wan(config: DiTConfig) -> dict[str, Any]:
  """Of the original repository's WanModel."""
  return {
    '_class_name': 'WanModel',
    'dim': config.dim,
    'eps': _EPS,
    'ffn_dim': config.ffn_dim,
    'freq_dim': config.freq_dim,
    'in_dim': config.channels,
    'model_type': 't2v',
    'num_heads': config.num_heads,
    'num_layers': config.num_layers,
    'out_dim': config.channels,
    'patch_size': [1, config.patch, config.patch],
    'text_dim': config.text_dim,
    'text_len': 512,
  }


def vae_diffusers(config: VAEConfig) -> dict[str, Any]:
  """Of diffusers' AutoencoderKLWan."""
  fields = {
    '_class_name': 'AutoencoderKLWan',
    'attn_scales': [],
    'base_dim': config.base_dim,
    'dim_mult': list(config.dim_mult),
    'dropout': 0.0,
    'latents_mean': list(config.latent_mean or (0.0,) * config.z_dim),
    'latents_std': list(config.latent_std or (1.0,) * config.z_dim),
    'num_res_blocks': config.num_res_blocks,
    'temperal_downsample': list(config.temporal_down),  # spelt so there
    'z_dim': config.z_dim,
  }
  if config.patch != 1:
    channels = 3 * config.patch**2
    fields |= {
      'patch_size': config.patch,
      'in_channels': channels,
      'out_channels': channels,
    }
  return fields


def umt5_transformers(config: TextConfig) -> dict[str, Any]:
  """Of transformers' UMT5EncoderModel."""
  return {
    'architectures': ['UMT5EncoderModel'],
    'model_type': 'umt5',
    'd_ff': config.ffn_dim,
    'd_kv': config.head_dim,
    'd_model': config.dim,
    'dropout_rate': 0.0,
    'feed_forward_proj': 'gated-gelu',
    'is_encoder_decoder': True,
    'layer_norm_epsilon': _EPS,
    'num_decoder_layers': config.num_layers,
    'num_heads': config.num_heads,
    'num_layers': config.num_layers,
    'relative_attention_max_distance': config.max_distance,
    'relative_attention_num_buckets': config.buckets,
    'vocab_size': config.vocab,
  }


def what_differs(config: DiTConfig | VAEConfig | TextConfig) -> str | None:
  """What PyTorch tools cannot express of a size; None if they can all."""
  if isinstance(config, DiTConfig) and config.rope_theta != rope.THETA:
    return (
      f'rotary base {config.rope_theta:g}: PyTorch tools use {rope.THETA:g}; '
      'they load these weights and compute something else'
    )
  return None
