"""Axis legend and array aliases, in one place for the whole package.

B batch, T pixel frames, F latent frames, H W rows and columns (of pixels or of
latents), C channels; Q query tokens, S key tokens, N heads, K head dimension,
D model width, L layers; J plan rows, P anchor latents, E text length.

A suffix names the axes of an array: `x_BFHWC`, `q_BQNK`, `k_LBSNK`.
"""

from typing import TypeAlias

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

AnyArray: TypeAlias = jax.Array | np.ndarray  # on a device or on the host
Same = Float[AnyArray, '*same']  # all of one shape
Video = Float[AnyArray, 'B T H W 3']  # pixels in [-1, 1]
Latents = Float[AnyArray, 'B F H W C']
Sigmas = Float[AnyArray, 'B F']  # noise level of every latent frame
Schedule = Float[AnyArray, 'n']  # of noise, falling
Positions = Int[AnyArray, 'F']  # temporal position of every latent frame
Text = Float[AnyArray, 'B E Dt']  # embeddings, zero after the end
TokenIds = Int[AnyArray, 'B E']
TokenMask = Bool[AnyArray, 'B E']
# Of arrays, or of what stands for them where only shapes matter.
Queries = Float[AnyArray | jax.ShapeDtypeStruct, 'B Q N K']
Keys = Float[AnyArray | jax.ShapeDtypeStruct, 'B S N K']  # or values
KeyMask = Bool[AnyArray, '#B Fq Fk']  # which queries may attend to which keys
Tokens = Float[AnyArray, 'B T N K']  # queries, keys or values of a pass
Index = Int[ArrayLike, '']  # a number, on the device or not
Slots = Int[AnyArray, 'slots']  # of the cache, one per latent frame
Angles = Float[AnyArray, 'T half_K']  # of rotary embeddings, radians
FrameMask = Bool[AnyArray, '#B F Fk']  # which frame may attend to which
