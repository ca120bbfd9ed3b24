"""Metrics on finished video and the classifiers of the synthetic data."""
