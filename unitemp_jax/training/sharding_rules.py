"""The one table that says how the parameters of our models are split.

Patterns end with the parameter's name and are searched in the whole path, so
that optimizer states and running means meet the same rule. The `fsdp` axis
splits the model width D wherever there is one; stacked layers lead with L.
"""

from jax.sharding import PartitionSpec as P

from unitemp_jax.training.mesh import Rules

# Transformer layers, [L, D, ...] in and [L, ..., D] out. Heads may be kept as
# an axis of their own; axes that a rule does not name are not split.
_IN_NAMES = r'(q|k|v|up|gate)'
_OUT_NAMES = r'(o|down)'

MODEL_RULES: Rules = (
  (rf'(^|/)blocks/\w+/{_IN_NAMES}/kernel$', P(None, 'fsdp')),
  (rf'(^|/)blocks/\w+/{_OUT_NAMES}/kernel$', P(None, None, 'fsdp')),
  # Small tables of a layer: modulation [L, 6, D], relative positions.
  (r'(^|/)blocks/(\w+/)?(modulation|relative_bias)(/embedding)?$', P()),
  # Around the layers of the DiT and of the text encoder.
  (r'(^|/)(patch|time|text)_\w+/(\w+/)*kernel$', P(None, 'fsdp')),
  (r'(^|/)token_embed/embedding$', P(None, 'fsdp')),
  (r'(^|/)head/(\w+/)*kernel$', P('fsdp')),
  (r'(^|/)head/modulation$', P()),
  # The VAE is small and its channels are uneven: every device holds it whole.
  (r'(^|/)(encoder|decoder)/(\w+/)*kernel$', P()),
  (r'(^|/)(quant|post_quant)\w*/(\w+/)*kernel$', P()),
)
