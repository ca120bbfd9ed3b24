"""Classifiers trained on real clips."""
