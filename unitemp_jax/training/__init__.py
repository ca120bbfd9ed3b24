"""Mesh, optimizer, state, checkpoints and the one training loop."""
