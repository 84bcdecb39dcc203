"""Recall@k where several candidates may be right, and what chance gives.

Similarities come from the runtime's embeddings; `mmllm.evaluate.tasks` calls these in both
directions.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

RECALL_AT = (1, 5, 10)


def best_rank(
    similarity: Float[np.ndarray, "q c"], relevant: Bool[np.ndarray, "q c"]
) -> Int[np.ndarray, "q"]:
    """Rank of the best relevant candidate of each query, from 1.

    A tie counts against the model: wrong candidates that score as high come first, so that equal
    embeddings earn nothing.

    Args:
      similarity: score of every candidate for every query; the larger the better.
      relevant: which candidates are right for which query; at least one a query.

    Raises:
      ValueError: shapes that differ, a query without relevant candidate, or a score that is NaN.
    """
    if similarity.shape != relevant.shape:
        raise ValueError(
            f"similarity and relevant must have one shape, got {similarity.shape} and "
            f"{relevant.shape}"
        )
    if np.isnan(similarity).any():
        # It would compare as False everywhere and so rank first.
        raise ValueError("similarity holds NaN: look at the embeddings for zero or infinite ones")
    if not relevant.any(axis=1).all():
        query = int(np.argmin(relevant.any(axis=1)))
        raise ValueError(f"query {query} has no relevant candidate: recall is not defined for it")
    # Any of the right ones will do, so the best of them counts.
    best = np.where(relevant, similarity, -np.inf).max(axis=1, keepdims=True)
    return 1 + ((similarity >= best) & ~relevant).sum(axis=1)


def hits(
    similarity: Float[np.ndarray, "q c"],
    relevant: Bool[np.ndarray, "q c"],
    ks: Sequence[int] = RECALL_AT,
) -> dict[int, Float[np.ndarray, "q"]]:
    """1 for each query with a relevant candidate among its first k, else 0; recall is the mean."""
    rank = best_rank(similarity, relevant)
    return {k: (rank <= k).astype(np.float64) for k in ks}


def chance(
    relevant: Bool[np.ndarray, "q c"], ks: Sequence[int] = RECALL_AT
) -> dict[int, Float[np.ndarray, "q"]]:
    """Chance of a hit among the first k of a random order, by query (hypergeometric)."""
    candidates = relevant.shape[1]
    right = relevant.sum(axis=1)
    return {
        k: np.array(
            [
                1 - math.comb(candidates - int(r), k) / math.comb(candidates, k)
                if k <= candidates
                else 1.0
                for r in right
            ]
        )
        for k in ks
    }
