"""Metrics: plain functions of strings and numpy arrays that know neither model nor corpus."""
