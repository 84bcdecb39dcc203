"""Decoding against a naive second implementation on a tiny, sequence-dependent numpy model."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmllm.runtime import decode
from tests import tiny_bundle

END, VOCAB, MAX_TEXT, PREFIX = 3, 7, 10, 2
TOLERANCE = 1e-5  # float32 logits, float64 sums


class NumpyEngine:
    """Logits depend on the picture and on every token so far, so that a wrong cache row shows."""

    name = "numpy"

    def __init__(self, seed: int = 0, row_by_row: bool = False):
        self.config = dataclasses.replace(tiny_bundle.CONFIG, vocab_size=VOCAB, max_text=MAX_TEXT)
        self.seed, self.row_by_row = seed, row_by_row
        self.steps: list[int] = []

    def logits(self, picture: float, tokens: Iterable[int]) -> np.ndarray:
        seed = [self.seed, int(picture), *(int(token) + 1 for token in tokens)]
        return np.random.default_rng(seed).normal(size=VOCAB).astype(np.float32)

    def prefill(self, prefix: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, Any]:
        cache = np.full((len(ids), MAX_TEXT + 1), -1)
        cache[:, 0] = prefix[:, 0, 0]
        cache[:, 1 : 1 + ids.shape[1]] = ids
        rows = [[self.logits(row[0], row[1 : 2 + t]) for t in range(ids.shape[1])] for row in cache]
        return np.array(rows), cache

    def decode_step(
        self, ids: np.ndarray, position: np.ndarray, cache: Any
    ) -> tuple[np.ndarray, Any]:
        self.steps.append(len(ids))
        cache = cache.copy()
        at = position - PREFIX
        assert (at < MAX_TEXT).all()
        cache[np.arange(len(ids)), at + 1] = ids
        rows = [self.logits(row[0], row[1 : end + 2]) for row, end in zip(cache, at, strict=True)]
        return np.array(rows), cache

    def take_rows(self, cache: Any, rows: np.ndarray) -> Any:
        return cache[rows]

    def encode_image(self, pixels: np.ndarray) -> np.ndarray:
        raise AssertionError("decoding asks for no picture")

    def embed_image(self, pixels: np.ndarray) -> np.ndarray:
        raise AssertionError("decoding asks for no picture")

    def embed_text(self, ids: np.ndarray) -> np.ndarray:
        raise AssertionError("decoding asks for no embedding")

    def read_lines(self, lines: np.ndarray) -> np.ndarray:
        raise AssertionError("decoding asks for no line")


def prefix(*pictures: int) -> np.ndarray:
    return np.broadcast_to(
        np.array(pictures, np.float32)[:, None, None], (len(pictures), PREFIX, 1)
    )


def probability(engine: NumpyEngine, picture: int, prompt: list[int], answer: list[int]) -> float:
    """Log-probability of an answer, the end token never first."""
    total = 0.0
    for i, token in enumerate(answer):
        logits = engine.logits(picture, [*prompt, *answer[:i]]).astype(np.float64)
        log_probs = logits - np.log(np.exp(logits).sum())
        if i == 0 and token == END:
            return -np.inf
        total += log_probs[token]
    return total


def naive_greedy(engine: NumpyEngine, picture: int, prompt: list[int], limit: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < limit:
        logits = engine.logits(picture, [*prompt, *ids])
        if not ids:
            logits[END] = -np.inf
        token = int(logits.argmax())
        if token == END:
            break
        ids.append(token)
    return ids


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    prompts=st.lists(
        st.lists(st.integers(1, VOCAB - 1), min_size=1, max_size=6), min_size=1, max_size=4
    ),
    row_by_row=st.booleans(),
)
def test_greedy_equals_one_row_at_a_time_without_a_cache(
    seed: int, prompts: list[list[int]], row_by_row: bool
):
    engine = NumpyEngine(seed, row_by_row)
    padded = decode.pad_prompts(prompts, MAX_TEXT)
    found = decode.greedy(engine, prefix(*range(len(prompts))), padded, end=END, limit=4)
    for picture, (prompt, answer) in enumerate(zip(prompts, found, strict=True)):
        assert answer.ids == naive_greedy(engine, picture, prompt, 4)
        ids = answer.ids if len(answer.ids) == 4 else [*answer.ids, END]
        mean = probability(engine, picture, prompt, ids) / len(ids)
        assert answer.score == pytest.approx(mean, abs=TOLERANCE)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    prompts=st.lists(
        st.lists(st.integers(1, VOCAB - 1), min_size=1, max_size=MAX_TEXT - 1),
        min_size=2,
        max_size=4,
    ),
    row_by_row=st.booleans(),
    limit=st.sampled_from([None, 4]),
)
def test_an_answer_does_not_depend_on_its_batch_mates(
    seed: int, prompts: list[list[int]], row_by_row: bool, limit: int | None
):
    """Each prompt leaves another room, and the longest next to none."""
    engine, options = NumpyEngine(seed, row_by_row), {"end": END, "banned": [0], "limit": limit}
    pictures = prefix(*range(len(prompts)))
    together = decode.greedy(engine, pictures, decode.pad_prompts(prompts, MAX_TEXT), **options)
    for row, (prompt, answer) in enumerate(zip(prompts, together, strict=True)):
        padded = decode.pad_prompts([prompt], MAX_TEXT)
        (alone,) = decode.greedy(engine, pictures[row : row + 1], padded, **options)
        assert answer.ids == alone.ids
        assert answer.score == pytest.approx(alone.score)


@pytest.mark.parametrize("row_by_row", [False, True])
def test_an_engine_that_pays_by_the_row_runs_no_finished_row(row_by_row: bool):
    engine = NumpyEngine(3, row_by_row)
    padded = decode.pad_prompts([[1], [2], [4], [5, 6]], MAX_TEXT)
    found = decode.greedy(engine, prefix(0, 1, 2, 3), padded, end=END, limit=6)
    # A row takes a step for each token but the last, which no step follows.
    paid = [min(len(answer.ids), 5) for answer in found]
    assert len(set(paid)) > 1
    whole = [4] * max(paid)
    assert engine.steps == (
        [sum(n > i for n in paid) for i in range(max(paid))] if row_by_row else whole
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_as_wide_as_the_tree_finds_the_best_answer(seed: int, monkeypatch):
    monkeypatch.setattr(decode, "MAX_BEAM", 64)
    engine, prompt, limit = NumpyEngine(seed), [1, 2], 2
    words = [token for token in range(VOCAB) if token != END]
    answers = [[*begun, END] for begun in itertools.product(words, repeat=1)]
    answers = [
        *([word, END] for word in words),
        *answers,
    ]
    best = max(
        answers, key=lambda a: probability(engine, 0, prompt, a) / len(a) ** decode.LENGTH_POWER
    )
    found = decode.beam(
        engine, prefix(0), decode.pad_prompts([prompt], MAX_TEXT), width=6, end=END, limit=limit
    )
    assert found.ids == best[:-1]
    assert found.score == pytest.approx(probability(engine, 0, prompt, best) / 2, abs=TOLERANCE)


@pytest.mark.parametrize("seed", range(8))
def test_wider_beams_never_rank_lower(seed: int):
    engine, prompt = NumpyEngine(seed), [4]
    padded = decode.pad_prompts([prompt], MAX_TEXT)

    def value(width: int) -> float:
        found = decode.beam(engine, prefix(0), padded, width=width, end=END, limit=3)
        return probability(engine, 0, prompt, [*found.ids, END]) / (len(found.ids) + 1) ** 0.6

    assert value(8) >= value(1) - TOLERANCE


def test_a_beam_of_one_follows_greedy_while_nothing_ends():
    engine, prompt = NumpyEngine(3), [5]
    padded = decode.pad_prompts([prompt], MAX_TEXT)
    options = {"end": END, "banned": [END], "limit": 3}
    one = decode.beam(engine, prefix(0), padded, width=1, **options)
    assert one.ids == decode.greedy(engine, prefix(0), padded, **options)[0].ids
    assert len(one.ids) == 3


def test_banned_tokens_never_come():
    engine = NumpyEngine(1)
    padded = decode.pad_prompts([[1], [2]], MAX_TEXT)
    banned = [0, 1, 2]
    for answer in decode.greedy(engine, prefix(0, 1), padded, end=END, banned=banned):
        assert not set(answer.ids) & set(banned)
    one = decode.pad_prompts([[1]], MAX_TEXT)
    found = decode.beam(engine, prefix(0), one, width=3, end=END, banned=banned)
    assert not set(found.ids) & set(banned)


def test_an_answer_stops_where_the_text_is_full():
    engine = NumpyEngine(2)
    padded = decode.pad_prompts([[1] * (MAX_TEXT - 1)], MAX_TEXT)
    assert len(decode.greedy(engine, prefix(0), padded, end=END)[0].ids) == 1
    assert len(decode.beam(engine, prefix(0), padded, width=2, end=END).ids) == 1


def test_steps_come_one_token_at_a_time():
    engine = NumpyEngine(0)
    padded = decode.pad_prompts([[1]], MAX_TEXT)
    tokens = [int(step.token[0]) for step in decode.steps(engine, prefix(0), padded, end=END)]
    ids = decode.greedy(engine, prefix(0), padded, end=END)[0].ids
    assert [token for token in tokens if token != END] == ids


def test_prompts_are_padded_to_few_widths():
    padded = decode.pad_prompts([[1], [1, 2, 3, 4, 5]], 64)
    assert padded.ids.shape == (2, 16)
    assert padded.ids[0].tolist() == [1] + [0] * 15
    assert padded.lengths.tolist() == [1, 5]
    assert decode.pad_prompts([[1] * 9], MAX_TEXT).ids.shape == (1, MAX_TEXT)


@pytest.mark.parametrize("prompts", [[[]], [[1] * MAX_TEXT]])
def test_a_prompt_without_room_is_refused(prompts: list[list[int]]):
    with pytest.raises(ValueError, match="prompts must hold 1 to 9 tokens"):
        decode.pad_prompts(prompts, MAX_TEXT)


@pytest.mark.parametrize("width", [0, -1, 9])
def test_a_beam_out_of_range_is_refused(width: int):
    with pytest.raises(ValueError, match="beam must be 1 to 8"):
        decode.beam(
            NumpyEngine(), prefix(0), decode.pad_prompts([[1]], MAX_TEXT), width=width, end=END
        )


def columns(classes: Sequence[int], count: int = 4, sure: float = 20.0) -> np.ndarray:
    return sure * np.eye(count, dtype=np.float32)[list(classes)][None]


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ([0, 0, 0], ""),
        ([1, 1, 2], "ab"),
        ([1, 0, 1], "aa"),
        ([0, 3, 3, 0, 3, 1], "cca"),
        ([1], "a"),
    ],
)
def test_ctc_merges_repeats_and_drops_blanks(classes: list[int], text: str):
    ((found, score),) = decode.ctc_greedy(columns(classes), "abc")
    assert found == text
    assert score == pytest.approx(1.0 if text else 0.0, abs=TOLERANCE)


def test_ctc_score_is_the_mean_over_the_columns_that_spell():
    logits = np.log(np.array([[[0.9, 0.05, 0.05], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]]))
    ((found, score),) = decode.ctc_greedy(logits, "ab")
    assert found == "ab"
    assert score == pytest.approx((0.5 * 0.8) ** 0.5)


def test_ctc_refuses_another_charset():
    with pytest.raises(ValueError, match="logits must have 3 classes"):
        decode.ctc_greedy(columns([1]), "ab")
