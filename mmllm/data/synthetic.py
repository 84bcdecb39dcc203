"""Small generated training arrays: for tests and smoke runs, never for a score.

The label of a picture is written into its cells, its caption and its answer, so that those losses
can fall; lines and texts are few enough to be learnt by heart.
"""

import numpy as np

from mmllm.common.config import Config
from mmllm.data import pipeline

BANK = 12
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
    grid, channels = model.stem_grid, model.stem_channels
    basis = rng.standard_normal((BANK, grid, grid, channels)).astype(np.float16)
    noise = rng.standard_normal((2, BANK, grid, grid, channels)).astype(np.float16)
    cells = tuple(basis + np.float16(0.3) * view for view in noise)
    words = range(20, 20 + BANK)
    captions = _ids(
        [[5 + k, words[i], 3] for i in range(BANK) for k in range(2)], data.decoder_tokens
    )
    captioned = pipeline.Captioned(
        cells, captions, 2 * np.arange(BANK + 1), np.arange(BANK), np.ones(BANK)
    )
    questions = _ids([[7, 40, 8, words[i], 3] for i in range(BANK)], data.decoder_tokens)
    questioned = pipeline.Questioned(cells, questions, np.full(BANK, 2), np.arange(BANK))
    columns = rng.integers(0, 255, (BANK, model.line_height, model.line_width))
    characters = rng.integers(1, model.charset_size + 1, (BANK, data.line_chars))
    lines = pipeline.Lines(columns.astype(np.uint8), characters.astype(np.int32))
    teacher = rng.standard_normal((2 * BANK, TEACHER_WIDTH))
    teacher = (teacher / np.linalg.norm(teacher, axis=1, keepdims=True)).astype(np.float16)
    labels = np.where(np.arange(2 * BANK) < BANK, np.arange(2 * BANK), pipeline.NO_LABEL)
    texts = pipeline.Texts(
        _ids([[9, 20 + i, 3] for i in range(2 * BANK)], data.text_tokens),
        labels,
        np.ones(2 * BANK),
        teacher * (labels < 0)[:, None],
        teacher[:BANK],
    )
    return pipeline.TrainingArrays(
        captioned, captioned, captioned, questioned, questioned, lines, texts
    )
