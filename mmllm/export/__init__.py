"""Checkpoint -> bundle -> the files of other runtimes."""
