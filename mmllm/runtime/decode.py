"""Turns an engine's logits into tokens and text: greedy, beam and CTC decoding, in numpy.

The loop runs on the host, one decoder step at a time, so that every engine shares it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mmllm.runtime.engines.base import Engine

PADDED_LENGTHS = (4, 16, 32, 64, 128)
"""Token rows are padded to one of these widths, so that engines compile for few shapes."""

LENGTH_POWER = 0.6
"""Beams are compared by log-probability / tokens**LENGTH_POWER.

Source: Wu et al., 2016, Google's neural machine translation system, equation 14, simplified.
"""

MAX_BEAM = 8


class Decoded(NamedTuple):
    """Generated tokens, end token left out, and their mean log-probability (end token included)."""

    ids: list[int]
    score: float


class Prompts(NamedTuple):
    """Prompt tokens padded on the right with 0, and the real length of each row."""

    ids: Int[np.ndarray, "b t"]
    lengths: Int[np.ndarray, "b"]


def pad_prompts(prompts: Sequence[Sequence[int]], max_text: int) -> Prompts:
    """Puts prompts of different lengths into one array.

    Raises:
      ValueError: an empty prompt, or one that leaves no room for an answer.
    """
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    if lengths.min(initial=max_text) < 1 or lengths.max(initial=1) >= max_text:
        raise ValueError(
            f"prompts must hold 1 to {max_text - 1} tokens, got {sorted(set(lengths.tolist()))}"
        )
    return Prompts(pad_rows(prompts, max_text), lengths)


def pad_rows(rows: Sequence[Sequence[int]], max_text: int) -> Int[np.ndarray, "b t"]:
    """Token rows padded with 0 to a common width of PADDED_LENGTHS, at most `max_text`."""
    longest = max(len(row) for row in rows)
    width = min(max_text, next((n for n in PADDED_LENGTHS if n >= longest), longest))
    ids = np.zeros((len(rows), width), np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids


def log_softmax(logits: Float[np.ndarray, "*b v"]) -> Float[np.ndarray, "*b v"]:
    """Log-probabilities along the last axis."""
    # The largest becomes 0, so that no exponential overflows.
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class Step(NamedTuple):
    """One generated token a row.

    Attributes:
      token: what came; the end token in rows that are not active.
      log_probability: of the token; 0 in rows that are not active.
      active: rows whose answer was not finished before this step.
    """

    token: Int[np.ndarray, "b"]
    log_probability: Float[np.ndarray, "b"]
    active: Bool[np.ndarray, "b"]


def steps(
    engine: Engine,
    prefix: Float[np.ndarray, "b n d"],
    prompts: Prompts,
    *,
    end: int,
    banned: Sequence[int] = (),
    limit: int | None = None,
) -> Iterator[Step]:
    """Greedy decoding, yielded token by token.

    Args:
      engine: the model.
      prefix: image tokens; at most MAX_ROWS rows.
      prompts: what stands before the answer.
      end: the token that ends an answer; it never comes first.
      banned: tokens that are never generated.
      limit: most tokens of an answer; by default what `max_text` leaves to each row.
    """
    lengths, max_text = prompts.lengths, engine.config.max_text
    # By each row's own prompt: an answer must not be shorter because of its batch mates.
    limits = max_text - lengths if limit is None else np.minimum(limit, max_text - lengths)
    allowed = _allowed(engine.config.vocab_size, banned)
    all_logits, cache = engine.prefill(prefix, prompts.ids)
    # Right of a prompt there is padding, so its next token stands at its last own position.
    logits = all_logits[np.arange(len(lengths)), lengths - 1]
    active = np.ones(len(lengths), bool)
    held = np.arange(len(lengths))  # the row of each row of logits
    for count in range(int(limits.max())):
        log_probs = log_softmax(np.where(allowed[None], logits, -np.inf))
        if count == 0:
            log_probs[:, end] = -np.inf
        best = log_probs.argmax(axis=-1)
        token, value = np.full(len(lengths), end, np.int32), np.zeros(len(lengths), log_probs.dtype)
        token[held] = np.where(active[held], best, end)
        value[held] = np.where(active[held], log_probs[np.arange(len(held)), best], 0.0)
        yield Step(token, value, active)
        active = active & (token != end) & (count + 1 < limits)
        if not active.any():
            return
        going = np.flatnonzero(active[held]).astype(np.int32)
        if engine.row_by_row and len(going) < len(held):
            held, cache = held[going], engine.take_rows(cache, going)
        # A full row that is carried along must not write behind the end of its cache.
        place = np.minimum(lengths + count, max_text - 1)
        position = (prefix.shape[1] + place).astype(np.int32)
        logits, cache = engine.decode_step(token[held], position[held], cache)


def greedy(
    engine: Engine,
    prefix: Float[np.ndarray, "b n d"],
    prompts: Prompts,
    *,
    end: int,
    banned: Sequence[int] = (),
    limit: int | None = None,
) -> list[Decoded]:
    """Takes the likeliest token at every step; arguments as in `steps`."""
    ids: list[list[int]] = [[] for _ in prompts.lengths]
    total, count = np.zeros(len(ids)), np.zeros(len(ids))
    for step in steps(engine, prefix, prompts, end=end, banned=banned, limit=limit):
        total, count = total + step.log_probability, count + step.active
        for row, token in enumerate(step.token.tolist()):
            if token != end:
                ids[row].append(token)
    means = total / np.maximum(count, 1)
    return [Decoded(row, float(mean)) for row, mean in zip(ids, means, strict=True)]


def beam(
    engine: Engine,
    prefix: Float[np.ndarray, "1 n d"],
    prompts: Prompts,
    *,
    width: int,
    end: int,
    banned: Sequence[int] = (),
    limit: int | None = None,
) -> Decoded:
    """Keeps the `width` best beginnings of one answer and returns the best finished one.

    Raises:
      ValueError: a width out of 1..MAX_BEAM, or more than one prompt.
    """
    if not 1 <= width <= MAX_BEAM:
        raise ValueError(f"beam must be 1 to {MAX_BEAM}, got {width}")
    if len(prompts.lengths) != 1:
        raise ValueError(f"beam search takes one prompt, got {len(prompts.lengths)}")
    length, vocab = int(prompts.lengths[0]), engine.config.vocab_size
    room = engine.config.max_text - length
    limit = room if limit is None else min(limit, room)
    allowed = _allowed(vocab, banned)
    all_logits, cache = engine.prefill(prefix, prompts.ids)
    logits = np.repeat(all_logits[:, length - 1], width, axis=0)
    # One prefill for all: beams part at the first token.
    cache = engine.take_rows(cache, np.zeros(width, np.int32))
    # All rows are the same at first: only one may speak, or the beam holds copies.
    score = np.full(width, -np.inf)
    score[0] = 0.0
    alive: list[list[int]] = [[] for _ in range(width)]
    finished: list[tuple[float, Decoded]] = []
    for count in range(limit):
        # In float64: sums over a whole answer decide between beams that are close.
        log_probs = log_softmax(np.where(allowed[None], logits, -np.inf)).astype(np.float64)
        if count == 0:
            log_probs[:, end] = -np.inf
        total = score[:, None] + log_probs
        finished += _finish(alive, total[:, end], count + 1)
        # An answer that has ended is kept aside and must not take a place in the beam.
        total[:, end] = -np.inf
        # Finding the best few is linear in the vocabulary, sorting them all is not.
        best = np.argpartition(-total.ravel(), width)[:width]
        best = best[np.argsort(-total.ravel()[best], kind="stable")]
        rows, tokens = np.divmod(best, vocab)
        score = total.ravel()[best]
        alive = [[*alive[row], int(token)] for row, token in zip(rows, tokens, strict=True)]
        if count == limit - 1:
            break
        # Log-probabilities only fall: no beginning can overtake once even the best possible loses.
        if finished and max(finished)[0] >= score[0] / limit**LENGTH_POWER:
            break
        cache = engine.take_rows(cache, rows.astype(np.int32))
        position = np.full(width, prefix.shape[1] + length + count, np.int32)
        logits, cache = engine.decode_step(tokens.astype(np.int32), position, cache)
    # No beam ended within the limit: the unfinished ones compete.
    if not finished:
        finished = _finish(alive, score, limit)
    return max(finished)[1]


def _allowed(vocab: int, banned: Sequence[int]) -> Bool[np.ndarray, "v"]:
    allowed = np.ones(vocab, bool)
    allowed[np.asarray(banned, np.int64)] = False
    return allowed


def _finish(
    alive: list[list[int]], total: Float[np.ndarray, "w"], tokens: int
) -> list[tuple[float, Decoded]]:
    """Answers that end here, each with the value it is ranked by."""
    return [
        (float(value / tokens**LENGTH_POWER), Decoded(ids, float(value / tokens)))
        for ids, value in zip(alive, total, strict=True)
        if np.isfinite(value)
    ]


def ctc_greedy(logits: Float[np.ndarray, "b n v"], charset: str) -> list[tuple[str, float]]:
    """Reads CTC logits: the likeliest class of each column, repeats merged, blanks dropped.

    Returns:
      For each row the text and the geometric mean of the probabilities of the columns that spell it
      (0 for an empty text).

    Source: Graves et al., 2006, best path decoding.
    """
    if logits.shape[-1] != len(charset) + 1:
        raise ValueError(
            f"logits must have {len(charset) + 1} classes (blank and charset), "
            f"got {logits.shape[-1]}"
        )
    log_probs = log_softmax(logits)
    best = log_probs.argmax(axis=-1)
    value = log_probs.max(axis=-1)
    texts = []
    for classes, values in zip(best, value, strict=True):
        # A letter counts where it starts: the blank between two is what doubles it.
        starts = (classes != 0) & (classes != np.concatenate([[0], classes[:-1]]))
        text = "".join(charset[i - 1] for i in classes[starts])
        score = float(np.exp(values[classes != 0].mean())) if text else 0.0
        texts.append((text, score))
    return texts
