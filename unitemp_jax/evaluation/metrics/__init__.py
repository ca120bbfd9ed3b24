"""Metrics on finished video, and their intervals."""
