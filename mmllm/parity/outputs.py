"""Whole signatures of a file against JAX with the same rounded activations."""

from typing import Any

import numpy as np

from mmllm.parity.rows import SELF_TIMES, TOLERANCE, Row, named
from mmllm.parity.samples import Samples, moved

OUTPUT_SAMPLES = 32


def outputs(lite: Any, ours: Any, samples: Samples) -> list[Row]:
    """Whole signatures of two engines, LiteRT's and JAX's.

    Prefill takes JAX's image tokens, a step of decoding JAX's next token.
    """
    texts, pixels = samples.texts[:OUTPUT_SAMPLES], samples.pixels[:OUTPUT_SAMPLES]
    rows = [_compared("embed_text", lite.embed_text(texts), ours.embed_text(texts))]
    # Through many layers one rounding that falls the other way moves all behind it: what counts is
    # how far JAX comes from itself. The text tower is shallow enough to do without.
    for name, inputs in (
        ("read_lines", samples.lines[:OUTPUT_SAMPLES]),
        ("embed_image", pixels),
        ("encode_image", pixels),
    ):
        run = getattr(ours, name)
        target = run(inputs)
        itself = _compared(f"{name}, JAX against itself", run(moved(inputs)), target, None)
        allowed = TOLERANCE + SELF_TIMES * itself.median
        rows += [_compared(name, getattr(lite, name)(inputs), target, allowed), itself]
    prefix = ours.encode_image(pixels)
    ids = samples.prompts[np.arange(len(prefix)) % len(samples.prompts)]
    lengths = np.count_nonzero(ids, axis=1)
    prediction, cache = lite.prefill(prefix, ids)
    target, own = ours.prefill(prefix, ids)
    at = np.arange(len(prefix)), lengths - 1
    rows.append(_compared("prefill", prediction[at], target[at]))
    # Both decode JAX's token: after a token of its own, an engine would answer another question.
    token = target[at].argmax(axis=-1).astype(np.int32)
    position = (prefix.shape[1] + lengths).astype(np.int32)
    steps = ((lite, cache), (ours, own))
    prediction, target = (engine.decode_step(token, position, state)[0] for engine, state in steps)
    return [*rows, _compared("decode_step", prediction, target)]


def _compared(
    name: str, prediction: np.ndarray, target: np.ndarray, allowed: float | None = TOLERANCE
) -> Row:
    return named("output", name, len(target), [(prediction, target)], allowed)
