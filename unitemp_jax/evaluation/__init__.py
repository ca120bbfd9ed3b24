"""Metrics on finished video and the oracles of the synthetic data."""
