"""Causal language models: built, read, adapted, and what they compute."""
