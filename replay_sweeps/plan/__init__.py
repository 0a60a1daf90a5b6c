"""What a study would take: memory, time, disk, and what fits into a budget; no torch."""
