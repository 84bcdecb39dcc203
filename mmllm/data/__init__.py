"""Bytes -> batches."""
