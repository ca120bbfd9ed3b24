"""Measures any folder of clips, whoever made them."""
