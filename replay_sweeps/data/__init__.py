"""Text becomes tokens, and tokens become the rows of a step."""
