"""Tables of Wan 2.1's networks: our path, PyTorch names, change of layout.

Layouts: `wan` is the original repository's, used by Self-Forcing and CausVid as
well; `diffusers` is that of Hugging Face, for the text encoder of transformers
(huggingface/diffusers, `scripts/convert_wan_to_diffusers.py`).
"""

import re
from collections.abc import Callable, Sequence

from unitemp_jax.convert.keymap import Pattern, Row, Table

KEEP = Pattern(None)
LINEAR = Pattern('o i -> i o')
MODULATION = Pattern('1 k d -> k d')
# The patch is flattened channels first on the way in.
PATCH = Pattern('o c 1 p q -> (c p q) o', (('p', 2), ('q', 2)))
CONV3D = Pattern('o i t h w -> t h w i o')
CONV2D = Pattern('o i h w -> h w i o')
POINT3D = Pattern('o i 1 1 1 -> i o')
POINT2D = Pattern('o i 1 1 -> i o')
TIME_TAPS = Pattern('o i t 1 1 -> (t i) o', (('t', 3),))
GAMMA3D = Pattern('c 1 1 1 -> c')
GAMMA2D = Pattern('c 1 1 -> c')


def _row(path: str, wan: str, diffusers: str, pattern: Pattern) -> Row:
  return Row(path, {'wan': wan, 'diffusers': diffusers}, pattern)


def _pair(path: str, wan: str, diffusers: str, pattern: Pattern) -> list[Row]:
  """Kernel and bias of one layer."""
  return [
    _row(f'{path}/kernel', f'{wan}.weight', f'{diffusers}.weight', pattern),
    _row(f'{path}/bias', f'{wan}.bias', f'{diffusers}.bias', KEEP),
  ]


# q, k, v, o in the diffusers layout.
_ATTENTION = ('to_q', 'to_k', 'to_v', 'to_out.0')


def _dit_rows() -> tuple[Row, ...]:
  text = 'condition_embedder.text_embedder'
  time = 'condition_embedder.time_embedder'
  block = 'blocks.{layer}'
  rows = [
    *_pair('patch_embedding', 'patch_embedding', 'patch_embedding', PATCH),
    *_pair('text_in', 'text_embedding.0', f'{text}.linear_1', LINEAR),
    *_pair('text_out', 'text_embedding.2', f'{text}.linear_2', LINEAR),
    *_pair('time_in', 'time_embedding.0', f'{time}.linear_1', LINEAR),
    *_pair('time_out', 'time_embedding.2', f'{time}.linear_2', LINEAR),
    *_pair(
      'time_projection',
      'time_projection.1',
      'condition_embedder.time_proj',
      LINEAR,
    ),
    *_pair('head', 'head.head', 'proj_out', LINEAR),
    _row('head_modulation', 'head.modulation', 'scale_shift_table', MODULATION),
    _row(
      'blocks/modulation',
      f'{block}.modulation',
      f'{block}.scale_shift_table',
      MODULATION,
    ),
    # The affine norm before cross-attention is number 3 in one layout and
    # number 2 in the other; the remaining norms have no parameters.
    _row(
      'blocks/norm_cross/scale',
      f'{block}.norm3.weight',
      f'{block}.norm2.weight',
      KEEP,
    ),
    _row(
      'blocks/norm_cross/bias',
      f'{block}.norm3.bias',
      f'{block}.norm2.bias',
      KEEP,
    ),
    *_pair(
      'blocks/ffn_up', f'{block}.ffn.0', f'{block}.ffn.net.0.proj', LINEAR
    ),
    *_pair('blocks/ffn_down', f'{block}.ffn.2', f'{block}.ffn.net.2', LINEAR),
  ]
  for ours, theirs in (('self_attn', 'attn1'), ('cross_attn', 'attn2')):
    for part, name in zip('qkvo', _ATTENTION, strict=True):
      rows += _pair(
        f'blocks/{ours}/{part}',
        f'{block}.{ours}.{part}',
        f'{block}.{theirs}.{name}',
        LINEAR,
      )
    rows += [
      _row(
        f'blocks/{ours}/{norm}/scale',
        f'{block}.{ours}.{norm}.weight',
        f'{block}.{theirs}.{norm}.weight',
        KEEP,
      )
      for norm in ('norm_q', 'norm_k')
    ]
  return tuple(rows)


def _residual(path: str, wan: str, diffusers: str) -> list[Row]:
  """One residual block of the VAE."""
  rows = []
  for ours, index in (('1', 0), ('2', 3)):
    rows += [
      _row(
        f'{path}/norm{ours}/gamma',
        f'{wan}.residual.{index}.gamma',
        f'{diffusers}.norm{ours}.gamma',
        GAMMA3D,
      ),
      *_pair(
        f'{path}/conv{ours}',
        f'{wan}.residual.{index + (2 if index == 0 else 3)}',
        f'{diffusers}.conv{ours}',
        CONV3D,
      ),
    ]
  return rows


def _vae_half(half: str, stages: list[Row]) -> list[Row]:
  """What encoder and decoder share, around their stages."""
  middle, theirs = f'{half}.middle', f'{half}.mid_block'
  attention = f'{theirs}.attentions.0'
  return [
    *_pair(f'{half}/conv_in', f'{half}.conv1', f'{half}.conv_in', CONV3D),
    *stages,
    *_residual(f'{half}/middle/res0', f'{middle}.0', f'{theirs}.resnets.0'),
    _row(
      f'{half}/middle/attention/norm/gamma',
      f'{middle}.1.norm.gamma',
      f'{attention}.norm.gamma',
      GAMMA2D,
    ),
    *_pair(
      f'{half}/middle/attention/to_qkv',
      f'{middle}.1.to_qkv',
      f'{attention}.to_qkv',
      POINT2D,
    ),
    *_pair(
      f'{half}/middle/attention/proj',
      f'{middle}.1.proj',
      f'{attention}.proj',
      POINT2D,
    ),
    *_residual(f'{half}/middle/res1', f'{middle}.2', f'{theirs}.resnets.1'),
    _row(
      f'{half}/norm_out/gamma',
      f'{half}.head.0.gamma',
      f'{half}.norm_out.gamma',
      GAMMA3D,
    ),
    *_pair(f'{half}/conv_out', f'{half}.head.2', f'{half}.conv_out', CONV3D),
  ]


def _vae_rows() -> tuple[Row, ...]:
  down = 'encoder/stage{i}_res{j}'
  wan_down = 'encoder.downsamples.{down}'
  hf_down = 'encoder.down_blocks.{down}'
  up = 'decoder/stage{i}_res{j}'
  wan_up = 'decoder.upsamples.{up}'
  hf_res = 'decoder.up_blocks.{i}.resnets.{j}'
  hf_up = 'decoder.up_blocks.{i}.upsamplers.0'
  encoder = [
    *_residual(down, wan_down, hf_down),
    *_pair(
      f'{down}/shortcut',
      f'{wan_down}.shortcut',
      f'{hf_down}.conv_shortcut',
      CONV3D,
    ),
    *_pair(
      'encoder/stage{i}_down/resample',
      f'{wan_down}.resample.1',
      f'{hf_down}.resample.1',
      CONV2D,
    ),
    *_pair(
      'encoder/stage{i}_down/time_conv',
      f'{wan_down}.time_conv',
      f'{hf_down}.time_conv',
      TIME_TAPS,
    ),
  ]
  decoder = [
    *_residual(up, wan_up, hf_res),
    *_pair(
      f'{up}/shortcut', f'{wan_up}.shortcut', f'{hf_res}.conv_shortcut', CONV3D
    ),
    *_pair(
      'decoder/stage{i}_up/resample',
      f'{wan_up}.resample.1',
      f'{hf_up}.resample.1',
      CONV2D,
    ),
    *_pair(
      'decoder/stage{i}_up/time_conv',
      f'{wan_up}.time_conv',
      f'{hf_up}.time_conv',
      TIME_TAPS,
    ),
  ]
  return (
    *_pair('to_moments', 'conv1', 'quant_conv', POINT3D),
    *_pair('from_latents', 'conv2', 'post_quant_conv', POINT3D),
    *_vae_half('encoder', encoder),
    *_vae_half('decoder', decoder),
  )


def _vae_numbering(
  paths: Sequence[str],
) -> Callable[[dict[str, int]], dict[str, int]]:
  """The original counts the modules of all stages through, resamplers too."""
  found = [re.match(r'encoder/stage\d+_res(\d+)/', path) for path in paths]
  blocks = 1 + max(int(match[1]) for match in found if match)

  def extend(fields: dict[str, int]) -> dict[str, int]:
    if 'i' not in fields:
      return fields
    i = fields['i']
    return fields | {
      'down': i * (blocks + 1) + fields.get('j', blocks),
      'up': i * (blocks + 2) + fields.get('j', blocks + 1),
    }

  return extend


def _umt5_rows() -> tuple[Row, ...]:
  ours, wan, hf = (
    'layer{layer}',
    'blocks.{layer}',
    'encoder.block.{layer}.layer',
  )
  feed = f'{hf}.1.DenseReluDense'
  embedding = Row(
    'token_embedding/embedding',
    {'wan': 'token_embedding.weight', 'diffusers': 'shared.weight'},
    KEEP,
    {'diffusers': 'encoder.embed_tokens.weight'},
  )
  linear = [
    *((n, f'attn.{n}', f'{hf}.0.SelfAttention.{n}') for n in 'qkvo'),
    ('gate', 'ffn.gate.0', f'{feed}.wi_0'),
    ('up', 'ffn.fc1', f'{feed}.wi_1'),
    ('down', 'ffn.fc2', f'{feed}.wo'),
  ]
  bias = 'relative_attention_bias'
  return (
    embedding,
    *(
      _row(
        f'{ours}/{name}/kernel',
        f'{wan}.{theirs}.weight',
        f'{other}.weight',
        LINEAR,
      )
      for name, theirs, other in linear
    ),
    _row(
      f'{ours}/relative_bias',
      f'{wan}.pos_embedding.embedding.weight',
      f'{hf}.0.SelfAttention.{bias}.weight',
      KEEP,
    ),
    _row(
      f'{ours}/norm_attn/scale',
      f'{wan}.norm1.weight',
      f'{hf}.0.layer_norm.weight',
      KEEP,
    ),
    _row(
      f'{ours}/norm_ffn/scale',
      f'{wan}.norm2.weight',
      f'{hf}.1.layer_norm.weight',
      KEEP,
    ),
    _row(
      'norm_out/scale', 'norm.weight', 'encoder.final_layer_norm.weight', KEEP
    ),
  )


TABLES = {
  'dit': Table(
    'dit',
    _dit_rows(),
    {
      'wan': 'time_projection.1.weight',
      'diffusers': 'condition_embedder.time_proj.weight',
    },
  ),
  'vae': Table(
    'vae',
    _vae_rows(),
    {
      'wan': 'encoder.downsamples.0.residual.0.gamma',
      'diffusers': 'encoder.down_blocks.0.norm1.gamma',
    },
    numbering=_vae_numbering,
  ),
  'umt5': Table(
    'umt5',
    _umt5_rows(),
    {
      'wan': 'blocks.0.pos_embedding.embedding.weight',
      'diffusers': 'encoder.block.0.layer.0.SelfAttention.q.weight',
    },
    # A file of the whole translation model holds its decoder as well.
    ignored=(r'decoder\..*', r'lm_head\..*'),
  ),
}
