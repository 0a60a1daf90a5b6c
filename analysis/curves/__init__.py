"""Arrays: reference curves, their forms, and the effective data multiplier with its bootstrap interval; no pandas."""
