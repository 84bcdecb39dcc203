"""Leaf modules every other folder may use."""
