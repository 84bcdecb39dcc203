"""Small generated training arrays: for tests and smoke runs, never for a score.

The label of a picture is written into its features, its caption and its answer, so that those
losses can fall; lines and texts are few enough to be learnt by heart.
"""

import numpy as np

from mmllm.common.config import Config
from mmllm.data import pipeline, registry

CAPTIONS = 12
TEACHER_WIDTH = 384


def _ids(rows: list[list[int]], width: int) -> np.ndarray:
    table = np.zeros((len(rows), width), np.int32)
    for row, ids in zip(table, rows, strict=True):
        row[: len(ids)] = ids
    return table


def training_arrays(config: Config, seed: int = 0) -> pipeline.TrainingArrays:
    """Arrays of the shapes a run of `config` reads, a few kilobytes in all."""
    rng = np.random.default_rng(seed)
    model, data = config.model, config.data
    grid, channels = model.feature_grid, model.feature_channels
    basis = rng.standard_normal((CAPTIONS, grid, grid, channels)).astype(np.float16)
    noise = rng.standard_normal((2, CAPTIONS, grid, grid, channels)).astype(np.float16)
    # Two views of a picture stay nearer to each other than to any other picture.
    features = tuple(basis + np.float16(0.3) * view for view in noise)
    words = range(20, 20 + CAPTIONS)  # a token a picture, in its captions and its answer
    captions = _ids(
        [[5 + k, words[i], 3] for i in range(CAPTIONS) for k in range(2)], data.decoder_tokens
    )
    captioned = pipeline.Captioned(
        features, captions, 2 * np.arange(CAPTIONS + 1), np.arange(CAPTIONS), np.ones(CAPTIONS)
    )
    questions = _ids([[7, 40, 8, words[i], 3] for i in range(CAPTIONS)], data.decoder_tokens)
    questioned = pipeline.Questioned(features, questions, np.full(CAPTIONS, 2), np.arange(CAPTIONS))
    columns = rng.integers(0, 255, (CAPTIONS, model.line_height, model.line_width))
    characters = rng.integers(1, model.charset_size + 1, (CAPTIONS, data.line_chars))
    lines = pipeline.Lines(columns.astype(np.uint8), characters.astype(np.int32))
    teacher = rng.standard_normal((2 * CAPTIONS, TEACHER_WIDTH))
    teacher = (teacher / np.linalg.norm(teacher, axis=1, keepdims=True)).astype(np.float16)
    labels = np.where(
        np.arange(2 * CAPTIONS) < CAPTIONS, np.arange(2 * CAPTIONS), pipeline.NO_LABEL
    )
    texts = pipeline.Texts(
        _ids([[9, 20 + i, 3] for i in range(2 * CAPTIONS)], data.text_tokens),
        labels,
        np.ones(2 * CAPTIONS),
        teacher[CAPTIONS:],
        teacher[:CAPTIONS],
    )
    return pipeline.TrainingArrays(
        captioned=dict.fromkeys(registry.of(config, "caption"), captioned),
        questioned=dict.fromkeys(registry.of(config, "question"), questioned),
        lines=dict.fromkeys(registry.of(config, "line"), lines),
        texts=texts,
    )
