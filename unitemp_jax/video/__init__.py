"""Video files: reading, writing, decoding and resizing."""
