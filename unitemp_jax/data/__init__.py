"""Clips, captions and video files."""
