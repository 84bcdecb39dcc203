"""Texts -> packed rows of tokens, and the next-token targets among them.

Used by `data.pipeline`. Each text of a row attends to itself alone (`start`), so that a row of many
short texts costs what one long text would.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Rows(NamedTuple):
    """Rows of packed texts.

    Attributes:
      ids: token ids, padded with 0.
      start: the column where the token's text begins; of padding, its own column.
      first: the column of the token from which on its text has a loss.
    """

    ids: Int[np.ndarray, "n t"]
    start: Int[np.ndarray, "n t"]
    first: Int[np.ndarray, "n t"]


def pack(
    texts: Sequence[Sequence[np.ndarray]], firsts: Sequence[Sequence[int]], width: int
) -> Rows:
    """Lays the texts of each row one behind the other; one that no longer fits is left out.

    So of the texts behind the first of a row, short ones are seen more often than long ones.

    Args:
      texts: per row, token ids of each text, padded with 0, in order of preference.
      firsts: per row and text, the place of the token from which on it has a loss.
      width: tokens of a row.
    """
    ids = np.zeros((len(texts), width), np.int32)
    start = np.tile(np.arange(width, dtype=np.int32), (len(texts), 1))
    first = start.copy()
    for row, (candidates, places) in enumerate(zip(texts, firsts, strict=True)):
        column = 0
        for text, place in zip(candidates, places, strict=True):
            stop = column + np.count_nonzero(text)
            # On to the next: a shorter text behind it may still fit.
            if stop > width:
                continue
            ids[row, column:stop] = text[: stop - column]
            start[row, column:stop] = column
            first[row, column:stop] = column + place
            column = stop
    return Rows(ids, start, first)


def targets(rows: Rows, room: int) -> dict[str, np.ndarray]:
    """The tokens of rows, and the next-token targets among them, flattened over the batch.

    Returns:
      ids and start of `rows`; position (room,): index into the flattened (rows * tokens) hidden
      states; target (room,): the next token; target_weight (room,): 1 for a real target, 0 for
      padding; target_row (room,).

    Raises:
      ValueError: more targets than room.
    """
    ids, start, first = rows
    column = np.arange(ids.shape[1] - 1)[None]
    # No text has to predict the first token of the one behind it, nor a question itself.
    is_target = (column >= first[:, :-1]) & (start[:, 1:] == start[:, :-1]) & (ids[:, 1:] != 0)
    row, place = np.nonzero(is_target)
    if len(row) > room:
        raise ValueError(
            f"data.answer_tokens leaves room for {room} targets a step, got {len(row)}: raise it"
        )
    # Padding points at token 0 with weight 0, so that the shapes are those of every step.
    fill = (0, room - len(row))
    return {
        "ids": ids,
        "start": start,
        "position": np.pad(row * ids.shape[1] + place, fill).astype(np.int32),
        "target": np.pad(ids[row, place + 1], fill).astype(np.int32),
        "target_weight": np.pad(np.ones(len(row), np.float32), fill),
        "target_row": np.pad(row, fill).astype(np.int32),
    }
