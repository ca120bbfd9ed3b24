"""Meshes, sharding, hosts, locks of folders, and compiled programs."""
