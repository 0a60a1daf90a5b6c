"""One segment of steps: a parent state becomes a child state."""
