"""The timeline in a browser."""
