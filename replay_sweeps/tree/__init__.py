"""The idea: runs that do the same for their first steps share them, as a prefix tree; pure, no torch."""
