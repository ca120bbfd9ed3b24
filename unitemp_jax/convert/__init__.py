"""PyTorch checkpoints to our weights and back."""

from unitemp_jax.convert.incoming import load_torch
