"""Pages that show folders of clips."""
