"""Axis legend and array aliases, in one place for the whole package.

B batch, T pixel frames, F latent frames, H W rows and columns (of pixels or of
latents), C channels; Q query tokens, S key tokens, N heads, K head dimension,
D model width, L layers; J plan rows, P anchor latents, E text length.

A suffix names the axes of an array: `x_BFHWC`, `q_BQNK`, `k_LBSNK`.
"""

from jaxtyping import Array, Bool, Float, Int

Video = Float[Array, 'B T H W 3']  # pixels in [-1, 1]
Latents = Float[Array, 'B F H W C']
Sigmas = Float[Array, 'B F']  # noise level of every latent frame
Positions = Int[Array, 'F']  # temporal position of every latent frame
Text = Float[Array, 'B E Dt']  # embeddings, zero after the end
TokenIds = Int[Array, 'B E']
TokenMask = Bool[Array, 'B E']
FrameMask = Bool[Array, '#B F Fk']  # which frame may attend to which
