"""Compares clips of several systems: numbers, pictures, and people's votes."""
