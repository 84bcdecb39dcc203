"""What is generated rather than collected: scenes, lines of text, and arrays for smoke runs."""

from mmllm.data.synthetic.arrays import CAPTIONS, TEACHER_WIDTH, training_arrays

__all__ = ["CAPTIONS", "TEACHER_WIDTH", "training_arrays"]
