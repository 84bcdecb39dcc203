"""Quantization: arithmetic only. Nothing here knows a model, a file or a training run."""
