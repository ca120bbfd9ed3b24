"""Evaluation sets: folders of clips that benchmarks read."""
