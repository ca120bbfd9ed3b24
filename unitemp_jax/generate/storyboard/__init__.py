"""Storyboards: files that describe a video scene by scene."""
