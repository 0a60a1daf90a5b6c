"""Runs that begin alike share steps: planned runs, their prefix tree, its paths, names of states; no torch."""
