"""The one table that says how the parameters of our models are split.

Patterns end with the parameter's name and are searched in the whole path, so
that optimizer states and running means meet the same rule. The model width D,
the one size that all large kernels share, is split over `fsdp` and `context`;
stacked layers lead with L. Biases, scales and other vectors need no rule.
"""

from jax.sharding import PartitionSpec as P

from unitemp_jax.parallel.mesh import Rules
from unitemp_jax.parallel.mesh_context import TOKEN_AXIS

WIDTH = ('fsdp', TOKEN_AXIS)  # what the width is split over

MODEL_RULES: Rules = (
  # DiT layers: [L, D, ...] in, [L, ..., D] out, modulation [L, 6, D].
  (r'(^|/)blocks/\w+_attn/[qkv]/kernel$', P(None, WIDTH)),
  (r'(^|/)blocks/\w+_attn/o/kernel$', P(None, None, WIDTH)),
  (r'(^|/)blocks/ffn_up/kernel$', P(None, WIDTH)),
  (r'(^|/)blocks/ffn_down/kernel$', P(None, None, WIDTH)),
  (r'(^|/)blocks/modulation$', P()),
  # Around them: into the width, [..., D], and out of it, [D, ...].
  (r'(^|/)(patch_embedding|(text|time)_(in|out))/kernel$', P(None, WIDTH)),
  (r'(^|/)time_projection/kernel$', P(WIDTH)),
  (r'(^|/)head/kernel$', P(WIDTH)),
  (r'(^|/)head_modulation$', P()),
  # Text encoder: [D, ...] in, [..., D] out, one module per layer.
  (r'(^|/)layer\d+/(q|k|v|gate|up)/kernel$', P(WIDTH)),
  (r'(^|/)layer\d+/(o|down)/kernel$', P(None, WIDTH)),
  (r'(^|/)layer\d+/relative_bias$', P()),
  (r'(^|/)token_embedding/embedding$', P(None, WIDTH)),
  # A prompt that guidance leads away from, one row of a batch.
  (r'(^|/)negative/(text|ids|mask)$', P()),
  # The VAE is small and its channels are uneven: every device holds it whole.
  (r'(^|/)(encoder|decoder)/(\w+/)*kernel$', P()),
  (r'(^|/)(to_moments|from_latents)/kernel$', P()),
)
