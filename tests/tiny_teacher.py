"""A sentence teacher without weights."""

import zlib

import numpy as np

from mmllm.train.text import teacher


class Teacher(teacher.SentenceTeacher):
    """Gives every text a direction of its own."""

    def __init__(self):
        self.width = 384

    def embed(self, texts, batch=128):
        seeds = [zlib.crc32(text.encode()) for text in texts]
        rows = np.array([np.random.default_rng(seed).standard_normal(384) for seed in seeds])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
