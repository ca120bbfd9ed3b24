"""What `unitemp evaluate` runs on a model."""
