"""Checkpoint -> bundle: the files that ship."""
