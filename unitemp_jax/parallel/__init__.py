"""Meshes, sharding, hosts and compiled programs."""
