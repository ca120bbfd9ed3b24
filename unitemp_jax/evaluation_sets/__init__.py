"""Evaluation sets: prompts in, folders that a benchmark can read out."""
