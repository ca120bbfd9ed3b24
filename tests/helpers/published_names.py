"""Names and shapes of PyTorch's weights, written from their modules' structure.

They are listed independently of the tables of the package, from the modules of
Wan-Video/Wan2.1 (`wan/modules`), so that a wrong line there shows.
"""


def dit(layout, *, d, ffn, layers, text=4096, freq=256, channels=16):
  """A transformer: name -> shape."""
  out = {}

  def linear(name, inputs, outputs):
    out[f'{name}.weight'] = (outputs, inputs)
    out[f'{name}.bias'] = (outputs,)

  wan = layout == 'wan'
  out['patch_embedding.weight'] = (d, channels, 1, 2, 2)
  out['patch_embedding.bias'] = (d,)
  embedder = 'condition_embedder.'
  for kind, width in (('text', text), ('time', freq)):
    theirs = f'{embedder}{kind}_embedder.linear_'
    linear(f'{kind}_embedding.0' if wan else f'{theirs}1', width, d)
    linear(f'{kind}_embedding.2' if wan else f'{theirs}2', d, d)
  linear('time_projection.1' if wan else f'{embedder}time_proj', d, 6 * d)
  out['head.modulation' if wan else 'scale_shift_table'] = (1, 2, d)
  linear('head.head' if wan else 'proj_out', d, 4 * channels)
  for n in range(layers):
    block = f'blocks.{n}.'
    name = 'modulation' if wan else 'scale_shift_table'
    out[block + name] = (1, 6, d)
    for attn in ('self_attn', 'cross_attn') if wan else ('attn1', 'attn2'):
      for part in 'qkv':
        linear(f'{block}{attn}.{part if wan else f"to_{part}"}', d, d)
      linear(f'{block}{attn}.{"o" if wan else "to_out.0"}', d, d)
      out[f'{block}{attn}.norm_q.weight'] = (d,)
      out[f'{block}{attn}.norm_k.weight'] = (d,)
    norm = f'{block}{"norm3" if wan else "norm2"}'
    out[f'{norm}.weight'] = out[f'{norm}.bias'] = (d,)
    linear(f'{block}{"ffn.0" if wan else "ffn.net.0.proj"}', d, ffn)
    linear(f'{block}{"ffn.2" if wan else "ffn.net.2"}', ffn, d)
  return out


def vae(layout, *, base=96, mult=(1, 2, 4, 4), z=16, down=(0, 1, 1), blocks=2):
  """A VAE: name -> shape; `down` says which resamplers have a time step."""
  out = {}
  wan = layout == 'wan'

  def conv(name, inputs, outputs, *kernel):
    out[f'{name}.weight'] = (outputs, inputs, *kernel)
    out[f'{name}.bias'] = (outputs,)

  def residual(name, inputs, outputs):
    parts = ('residual.0', 'residual.2', 'residual.3', 'residual.6')
    if not wan:
      parts = ('norm1', 'conv1', 'norm2', 'conv2')
    out[f'{name}.{parts[0]}.gamma'] = (inputs, 1, 1, 1)
    conv(f'{name}.{parts[1]}', inputs, outputs, 3, 3, 3)
    out[f'{name}.{parts[2]}.gamma'] = (outputs, 1, 1, 1)
    conv(f'{name}.{parts[3]}', outputs, outputs, 3, 3, 3)
    if inputs != outputs:
      short = 'shortcut' if wan else 'conv_shortcut'
      conv(f'{name}.{short}', inputs, outputs, 1, 1, 1)

  def middle(half, c):
    names = ('middle.0', 'middle.1', 'middle.2')
    if not wan:
      mid = 'mid_block.'
      names = (f'{mid}resnets.0', f'{mid}attentions.0', f'{mid}resnets.1')
    residual(f'{half}.{names[0]}', c, c)
    out[f'{half}.{names[1]}.norm.gamma'] = (c, 1, 1)
    conv(f'{half}.{names[1]}.to_qkv', c, 3 * c, 1, 1)
    conv(f'{half}.{names[1]}.proj', c, c, 1, 1)
    residual(f'{half}.{names[2]}', c, c)

  def ends(half, first, inside, outside, last):
    conv(f'{half}.{"conv1" if wan else "conv_in"}', first, inside, 3, 3, 3)
    norm = f'{half}.{"head.0" if wan else "norm_out"}'
    out[f'{norm}.gamma'] = (outside, 1, 1, 1)
    conv(f'{half}.{"head.2" if wan else "conv_out"}', outside, last, 3, 3, 3)

  conv('conv1' if wan else 'quant_conv', 2 * z, 2 * z, 1, 1, 1)
  conv('conv2' if wan else 'post_quant_conv', z, z, 1, 1, 1)
  widths = [base * m for m in mult]

  ends('encoder', 3, base, widths[-1], 2 * z)
  middle('encoder', widths[-1])
  at, c = 0, base
  stage = 'downsamples' if wan else 'down_blocks'
  for i, width in enumerate(widths):
    for _ in range(blocks):
      residual(f'encoder.{stage}.{at}', c, width)
      at, c = at + 1, width
    if i < len(down):
      conv(f'encoder.{stage}.{at}.resample.1', c, c, 3, 3)
      if down[i]:
        conv(f'encoder.{stage}.{at}.time_conv', c, c, 3, 1, 1)
      at += 1

  c = widths[-1]
  ends('decoder', z, c, widths[0], 3)
  middle('decoder', c)
  at = 0
  for i, width in enumerate(widths[::-1]):
    for j in range(blocks + 1):
      name = f'upsamples.{at}' if wan else f'up_blocks.{i}.resnets.{j}'
      residual(f'decoder.{name}', c, width)
      at, c = at + 1, width
    if i < len(down):
      name = f'upsamples.{at}' if wan else f'up_blocks.{i}.upsamplers.0'
      conv(f'decoder.{name}.resample.1', c, c // 2, 3, 3)
      if down[::-1][i]:
        conv(f'decoder.{name}.time_conv', c, 2 * c, 3, 1, 1)
      at, c = at + 1, c // 2
  return out


def umt5(layout, *, vocab=256384, d=4096, ffn=10240, layers=24, heads=64, k=64):
  """A text encoder: name -> shape."""
  wan, inner = layout == 'wan', heads * k
  out = {'token_embedding.weight' if wan else 'shared.weight': (vocab, d)}
  out['norm.weight' if wan else 'encoder.final_layer_norm.weight'] = (d,)
  for n in range(layers):
    block = f'blocks.{n}' if wan else f'encoder.block.{n}.layer'
    attn = f'{block}.attn' if wan else f'{block}.0.SelfAttention'
    for part in 'qkv':
      out[f'{attn}.{part}.weight'] = (inner, d)
    out[f'{attn}.o.weight'] = (d, inner)
    bias = f'{attn}.relative_attention_bias'
    if wan:
      bias = f'{block}.pos_embedding.embedding'
    out[f'{bias}.weight'] = (32, heads)
    norms = (f'{block}.norm1', f'{block}.norm2')
    parts = [f'{block}.ffn.{p}' for p in ('gate.0', 'fc1', 'fc2')]
    if not wan:
      norms = (f'{block}.0.layer_norm', f'{block}.1.layer_norm')
      feed = f'{block}.1.DenseReluDense'
      parts = [f'{feed}.{p}' for p in ('wi_0', 'wi_1', 'wo')]
    for norm in norms:
      out[f'{norm}.weight'] = (d,)
    out[f'{parts[0]}.weight'] = out[f'{parts[1]}.weight'] = (ffn, d)
    out[f'{parts[2]}.weight'] = (d, ffn)
  return out
