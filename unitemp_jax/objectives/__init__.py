"""Losses, one file each: loss(params, batch, rng) -> (scalar, metrics)."""
