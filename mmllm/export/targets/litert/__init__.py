"""LiteRT: one .tflite file of packed weights for phones and for the runtime of this package."""
