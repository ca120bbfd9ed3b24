"""Flax modules: causal VAE, diffusion transformer, text encoder."""
