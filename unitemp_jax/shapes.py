"""Axis legend and array aliases, in one place for the whole package.

B batch, T pixel frames, F latent frames, H W rows and columns (of pixels or of
latents), C channels; Q query tokens, S key tokens, N heads, K head dimension,
D model width, L layers; J plan rows, P anchor latents, E text length.

A suffix names the axes of an array: `x_BFHWC`, `q_BQNK`, `k_LBSNK`.
"""

from jaxtyping import Array, Bool, Float, Int

Video = Float[Array, 'B T H W 3']
Latents = Float[Array, 'B F H W C']
Sigmas = Float[Array, 'B F']
Positions = Int[Array, 'F']
Text = Float[Array, 'B E Dt']
TokenIds = Int[Array, 'B E']
TokenMask = Bool[Array, 'B E']
FrameMask = Bool[Array, 'F Fk']
