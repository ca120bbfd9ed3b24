"""Ahead of time: what a config needs of a TPU topology, without a TPU."""
