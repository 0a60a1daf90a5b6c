"""What a run does at each step, as pure functions of the step; no torch."""
