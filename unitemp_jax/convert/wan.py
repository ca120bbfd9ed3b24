"""Tables of Wan 2.1's networks: our path, PyTorch names, change of layout.

Layouts: `wan` is the original repository's (wan/modules/model.py, vae.py,
t5.py), used by Self-Forcing and CausVid as well; `diffusers` is that of Hugging
Face (WanTransformer3DModel, AutoencoderKLWan), for the text encoder that of
transformers (UMT5EncoderModel).
"""

import re
from collections.abc import Callable, Sequence

from unitemp_jax.convert.keymap import Pattern, Row, Table

_PATTERNS = {
  'keep': Pattern(None),
  'linear': Pattern('o i -> i o'),
  'modulation': Pattern('1 k d -> k d'),
  # The patch is flattened channels first on the way in.
  'patch': Pattern('o c 1 p q -> (c p q) o', (('p', 2), ('q', 2))),
  'conv3d': Pattern('o i t h w -> t h w i o'),
  'conv2d': Pattern('o i h w -> h w i o'),
  'point3d': Pattern('o i 1 1 1 -> i o'),
  'point2d': Pattern('o i 1 1 -> i o'),
  'time_taps': Pattern('o i t 1 1 -> (t i) o', (('t', 3),)),
  'gamma3d': Pattern('c 1 1 1 -> c'),
  'gamma2d': Pattern('c 1 1 -> c'),
}


def _rows(text: str, ours='', wan='', diffusers='') -> list[Row]:
  """Rows of lines `ours wan diffusers pattern`, after these prefixes.

  A pattern with `+bias` is a layer: its kernel and its bias.
  """
  out = []
  for line in text.strip().splitlines():
    path, one, other, pattern = line.split()
    path = ours + path
    names = {'wan': wan + one, 'diffusers': diffusers + other}
    name, _, bias = pattern.partition('+')
    if not bias:
      out.append(Row(path, names, _PATTERNS[name]))
      continue
    for leaf, theirs in (('kernel', 'weight'), ('bias', 'bias')):
      found = {layout: f'{name}.{theirs}' for layout, name in names.items()}
      change = _PATTERNS[name if leaf == 'kernel' else 'keep']
      out.append(Row(f'{path}/{leaf}', found, change))
  return out


_DIT = """
patch_embedding patch_embedding patch_embedding patch+bias
text_in text_embedding.0 condition_embedder.text_embedder.linear_1 linear+bias
text_out text_embedding.2 condition_embedder.text_embedder.linear_2 linear+bias
time_in time_embedding.0 condition_embedder.time_embedder.linear_1 linear+bias
time_out time_embedding.2 condition_embedder.time_embedder.linear_2 linear+bias
time_projection time_projection.1 condition_embedder.time_proj linear+bias
head head.head proj_out linear+bias
head_modulation head.modulation scale_shift_table modulation
"""
# The affine norm before cross-attention is number 3 in one layout and number 2
# in the other; the remaining norms have no parameters.
_BLOCK = """
modulation modulation scale_shift_table modulation
norm_cross/scale norm3.weight norm2.weight keep
norm_cross/bias norm3.bias norm2.bias keep
ffn_up ffn.0 ffn.net.0.proj linear+bias
ffn_down ffn.2 ffn.net.2 linear+bias
"""
_ATTENTION = """
q q to_q linear+bias
k k to_k linear+bias
v v to_v linear+bias
o o to_out.0 linear+bias
norm_q/scale norm_q.weight norm_q.weight keep
norm_k/scale norm_k.weight norm_k.weight keep
"""


def _dit_rows() -> tuple[Row, ...]:
  block = 'blocks.{layer}.'
  rows = _rows(_DIT) + _rows(_BLOCK, 'blocks/', block, block)
  for ours, theirs in (('self_attn', 'attn1'), ('cross_attn', 'attn2')):
    prefixes = f'blocks/{ours}/', f'{block}{ours}.', f'{block}{theirs}.'
    rows += _rows(_ATTENTION, *prefixes)
  return tuple(rows)


_RESIDUAL = """
norm1/gamma residual.0.gamma norm1.gamma gamma3d
conv1 residual.2 conv1 conv3d+bias
norm2/gamma residual.3.gamma norm2.gamma gamma3d
conv2 residual.6 conv2 conv3d+bias
"""
_SHORTCUT = 'shortcut shortcut conv_shortcut conv3d+bias'
# What encoder and decoder share.
_HALF = """
conv_in conv1 conv_in conv3d+bias
middle/attention/norm/gamma middle.1.norm.gamma @0.norm.gamma gamma2d
middle/attention/to_qkv middle.1.to_qkv @0.to_qkv point2d+bias
middle/attention/proj middle.1.proj @0.proj point2d+bias
norm_out/gamma head.0.gamma norm_out.gamma gamma3d
conv_out head.2 conv_out conv3d+bias
""".replace('@', 'mid_block.attentions.')
_RESAMPLE = """
resample resample.1 resample.1 conv2d+bias
time_conv time_conv time_conv time_taps+bias
"""


def _vae_rows() -> tuple[Row, ...]:
  rows = _rows('to_moments conv1 quant_conv point3d+bias')
  rows += _rows('from_latents conv2 post_quant_conv point3d+bias')
  for half in ('encoder', 'decoder'):
    rows += _rows(_HALF, f'{half}/', f'{half}.', f'{half}.')
    for i, place in enumerate((0, 2)):
      theirs = f'{half}.middle.{place}.', f'{half}.mid_block.resnets.{i}.'
      rows += _rows(_RESIDUAL, f'{half}/middle/res{i}/', *theirs)
  for ours, wan, block, resampler in (
    (
      *('encoder/stage{i}_', 'encoder.downsamples.{down}.'),
      *('encoder.down_blocks.{down}.', 'encoder.down_blocks.{down}.'),
    ),
    (
      *('decoder/stage{i}_', 'decoder.upsamples.{up}.'),
      'decoder.up_blocks.{i}.resnets.{j}.',
      'decoder.up_blocks.{i}.upsamplers.0.',
    ),
  ):
    rows += _rows(_RESIDUAL + _SHORTCUT, ours + 'res{j}/', wan, block)
    name = 'down/' if 'encoder' in ours else 'up/'
    rows += _rows(_RESAMPLE, ours + name, wan, resampler)
  return tuple(rows)


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


_UMT5_LAYER = """
q/kernel attn.q.weight 0.SelfAttention.q.weight linear
k/kernel attn.k.weight 0.SelfAttention.k.weight linear
v/kernel attn.v.weight 0.SelfAttention.v.weight linear
o/kernel attn.o.weight 0.SelfAttention.o.weight linear
gate/kernel ffn.gate.0.weight 1.DenseReluDense.wi_0.weight linear
up/kernel ffn.fc1.weight 1.DenseReluDense.wi_1.weight linear
down/kernel ffn.fc2.weight 1.DenseReluDense.wo.weight linear
relative_bias pos_embedding.embedding.weight 0.SelfAttention.@.weight keep
norm_attn/scale norm1.weight 0.layer_norm.weight keep
norm_ffn/scale norm2.weight 1.layer_norm.weight keep
""".replace('@', 'relative_attention_bias')


def _umt5_rows() -> tuple[Row, ...]:
  embedding = Row(
    'token_embedding/embedding',
    {'wan': 'token_embedding.weight', 'diffusers': 'shared.weight'},
    _PATTERNS['keep'],
    {'diffusers': 'encoder.embed_tokens.weight'},
  )
  prefixes = 'layer{layer}/', 'blocks.{layer}.', 'encoder.block.{layer}.layer.'
  end = 'norm_out/scale norm.weight encoder.final_layer_norm.weight keep'
  return embedding, *_rows(_UMT5_LAYER, *prefixes), *_rows(end)


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
