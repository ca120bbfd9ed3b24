"""One thin file per verb of the unitemp command."""
