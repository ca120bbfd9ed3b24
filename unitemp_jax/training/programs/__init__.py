"""Objectives as programs for the training loop."""
