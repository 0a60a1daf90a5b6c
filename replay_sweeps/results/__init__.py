"""What a study leaves for its reader: the run table, its record, and experiment tracking."""
