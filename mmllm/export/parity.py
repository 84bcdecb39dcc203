"""A bundle's LiteRT file against JAX with the same rounded activations: layers, outputs, tokens.

Each layer is compared on the input it has in JAX, in a file of its own whose weights are packed in
the same way; outputs and tokens are those of the bundle's file. Through many layers, one activation
whose rounding falls the other way changes all roundings behind it, and no tolerance near that of a
layer can hold. There JAX is compared with itself too, its inputs changed by one part in two
million: LiteRT may be a few times as far from JAX as JAX is from itself.
"""

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mmllm import bundle as bundle_lib
from mmllm.common import paths
from mmllm.export import litert, taps

TOLERANCE = 1e-3
"""Median relative error of a layer or an output, on top of what JAX against itself allows."""

LARGEST = 5e-2
"""Largest relative error of one vector: in some, a rounding fell the other way."""

SAME_TOKENS = 0.99
"""Least share of answers that are the same token for token, from the same image tokens; less where
JAX against itself has less, by as much."""

SELF = 2.0**-21
"""By what part inputs are changed to see how far JAX gets from itself: as much as two orders of
adding up the products of a layer differ."""

CHAOS = 3.0
"""How many times as far from JAX as JAX is from itself an output may be."""

LEAST_SAME = 0.95
"""Least such share whatever JAX does against itself."""

LAYER_SAMPLES, OUTPUT_SAMPLES = 4, 32
SAME_PREFIX, SAME_PICTURES, ITSELF = "same image tokens", "same pictures", "JAX against itself"
SLACK = {SAME_PREFIX: 0.01, SAME_PICTURES: 0.05}
"""By how much fewer answers may be the same than JAX gives against itself."""


class ParityError(ValueError):
    """The LiteRT file differs from JAX by more than is allowed; the message names the layer."""


@dataclasses.dataclass(frozen=True)
class Row:
    """How far one layer or output is from JAX, over the vectors of its samples."""

    name: str
    samples: int
    median: float
    largest: float
    allowed: float | None

    @property
    def good(self) -> bool:
        """Whether it is near enough; a row without a limit always is."""
        if self.allowed is None:
            return True
        return self.median <= self.allowed and self.largest <= self.limit

    @property
    def limit(self) -> float:
        """What a single vector may differ by."""
        return max(LARGEST, CHAOS * (self.allowed or 0.0))


def relative(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Norm of the difference over the norm of what was wanted, for each vector of the last axis.

    A vector much shorter than the others counts as a tenth as long as their mean.

    Raises:
      ParityError: shapes that differ, or a number that is not finite.
    """
    if got.shape != wanted.shape:
        raise ParityError(f"shape {got.shape} differs from {wanted.shape}")
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    if not np.isfinite(got).all():
        raise ParityError("a number is not finite")
    apart, length = (np.linalg.norm(x, axis=-1).reshape(-1) for x in (got - wanted, wanted))
    return apart / np.maximum(np.maximum(length, 0.1 * length.mean()), 1e-12)


def row_of(
    name: str,
    samples: int,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    allowed: float | None = TOLERANCE,
) -> Row:
    """The row of a layer or output: the worst of its outputs, each (what came, what was wanted)."""
    errors = [relative(got, wanted) for got, wanted in pairs]
    medians, largest = [np.median(each) for each in errors], [np.max(each) for each in errors]
    return Row(name, samples, float(max(medians)), float(max(largest)), allowed)


@dataclasses.dataclass(frozen=True)
class Samples:
    """What both are run on.

    Attributes:
      pixels: pictures, 0..255.
      lines: of text, 0..255.
      texts: token rows for the text tower, padded with 0.
      prompts: token rows that ask for a caption in one language each, padded with 0.
    """

    pixels: Float[np.ndarray, "b y x 3"]
    lines: Float[np.ndarray, "n v u"]
    texts: Int[np.ndarray, "t s"]
    prompts: Int[np.ndarray, "q p"]


def layers(bundle: bundle_lib.Bundle, samples: Samples, threads: int = 2) -> list[Row]:
    """Every layer of the model on the inputs that it has in JAX.

    Raises:
      ModuleNotFoundError: TensorFlow or LiteRT is missing.
      ParityError: an output of another shape, or one that is not finite.
    """
    from ai_edge_litert.interpreter import Interpreter

    params = jax.tree.map(jnp.asarray, bundle.params)
    recorded = [recorded_on(bundle, params, samples, row) for row in range(LAYER_SAMPLES)]
    file = litert.convert(taps.signatures(recorded[0], params))
    file = litert.put_codes(file, bundle.coded, {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "taps.tflite"
        path.write_bytes(file)
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        rows = []
        for calls in zip(*recorded, strict=True):
            runner = interpreter.get_signature_runner(taps.signature_name(calls[0].name))
            answers = [
                runner(**{f"input_{i}": value for i, value in enumerate(layer.inputs)})
                for layer in calls
            ]
            pairs = [
                (
                    np.stack([answer[f"output_{i}"] for answer in answers]),
                    np.stack([layer.outputs[i] for layer in calls]),
                )
                for i in range(len(calls[0].outputs))
            ]
            rows.append(_named("layer", calls[0].name, len(calls), pairs))
        del runner, interpreter
    return rows


def recorded_on(
    bundle: bundle_lib.Bundle, params: Any, samples: Samples, row: int
) -> list[taps.Layer]:
    """The layers of a model as they run on one picture, line and text in JAX."""

    def pick(rows: Any) -> Any:
        return rows[row % len(rows)]

    ids = jnp.asarray(pick(samples.prompts)[None])
    texts = jnp.asarray(pick(samples.texts)[None])

    def call(model: Any) -> None:
        prefix = model.encode_image(jnp.asarray(pick(samples.pixels)[None], jnp.float32))
        model.read_lines(jnp.asarray(pick(samples.lines)[None], jnp.float32))
        model.embed_text(texts)
        logits, cache = model.prefill(prefix, ids)
        last = int(np.sum(np.asarray(ids) != 0)) - 1
        token = jnp.argmax(logits[:, last], axis=-1).astype(jnp.int32)
        model.decode_step(token, jnp.asarray([prefix.shape[1] + last + 1], jnp.int32), cache)

    return taps.record(bundle.config, params, call, bundle.rules)


def outputs(lite: Any, ours: Any, samples: Samples) -> list[Row]:
    """Whole signatures of two engines, LiteRT's and JAX's.

    Prefill takes JAX's image tokens, a step of decoding JAX's next token.
    """
    texts, pixels = samples.texts[:OUTPUT_SAMPLES], samples.pixels[:OUTPUT_SAMPLES]
    rows = [_compared("embed_text", lite.embed_text(texts), ours.embed_text(texts))]
    for name, inputs in (
        ("read_lines", samples.lines[:OUTPUT_SAMPLES]),
        ("embed_image", pixels),
        ("encode_image", pixels),
    ):
        run = getattr(ours, name)
        wanted = run(inputs)
        itself = _compared(f"{name}, JAX against itself", run(moved(inputs)), wanted, None)
        allowed = TOLERANCE + CHAOS * itself.median
        rows += [_compared(name, getattr(lite, name)(inputs), wanted, allowed), itself]
    prefix = ours.encode_image(pixels)
    ids = samples.prompts[np.arange(len(prefix)) % len(samples.prompts)]
    lengths = np.count_nonzero(ids, axis=1)
    got, cache = lite.prefill(prefix, ids)
    wanted, own = ours.prefill(prefix, ids)
    at = np.arange(len(prefix)), lengths - 1
    rows.append(_compared("prefill", got[at], wanted[at]))
    token = wanted[at].argmax(axis=-1).astype(np.int32)
    position = (prefix.shape[1] + lengths).astype(np.int32)
    steps = ((lite, cache), (ours, own))
    got, wanted = (engine.decode_step(token, position, state)[0] for engine, state in steps)
    return [*rows, _compared("decode_step", got, wanted)]


def moved(inputs: np.ndarray) -> np.ndarray:
    """Inputs of which every second number, by chance, is larger by one part in two million."""
    chosen = np.random.default_rng(0).integers(0, 2, inputs.shape).astype(np.float32)
    return inputs * (1.0 + chosen * np.float32(SELF))


def _compared(
    name: str, got: np.ndarray, wanted: np.ndarray, allowed: float | None = TOLERANCE
) -> Row:
    return _named("output", name, len(wanted), [(got, wanted)], allowed)


def _named(kind: str, name: str, *values: Any) -> Row:
    try:
        return row_of(name, *values)
    except ParityError as error:
        raise ParityError(f"{kind} {name}: {error}") from error


def check(measured: Mapping[str, Any]) -> None:
    """Judges what `measure` found.

    Raises:
      ParityError: the first layer, in the order in which they run, or output that is too far off.
    """
    for kind in ("layers", "outputs"):
        for values in measured[kind]:
            row = Row(**values)
            if not row.good:
                raise ParityError(
                    f"{kind.removesuffix('s')} {row.name}: LiteRT differs from JAX by "
                    f"{row.median:.2g} of the norm (largest of {row.samples}: {row.largest:.2g}), "
                    f"allowed {row.allowed:.2g} (largest {row.limit:.2g})"
                )
    for part, start, floor in (
        ("decoder", SAME_PREFIX, LEAST_SAME),
        ("model", SAME_PICTURES, 0.0),
    ):
        same, itself = (measured["tokens"][start + end] for end in ("", f", {ITSELF}"))
        least = max(floor, min(SAME_TOKENS, itself - SLACK[start]))
        if same < least:
            raise ParityError(
                f"{part}: {same:.1%} of {measured['answers']} answers from the {start} are the "
                f"same as JAX's, at least {least:.1%} must be"
            )


def summary(measured: Mapping[str, Any]) -> str:
    """The report in two lines."""
    worst = max((Row(**values) for values in measured["layers"]), key=lambda row: row.median)
    shares = [f"{name} {share:.1%}" for name, share in measured["tokens"].items()]
    return (
        f"parity: {len(measured['layers'])} layers within {worst.median:.1e} of JAX "
        f"({worst.name}; {TOLERANCE:.0e} allowed)\n"
        f"        of {measured['answers']} answers the same tokens: {'; '.join(shares)}"
    )


def markdown(measured: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"# {measured['file']['name']} against JAX",
        "",
        f"sha256 {measured['file']['sha256']}",
        "",
        "Relative error: norm of the difference over the norm in JAX. Each layer has the input it "
        "has in JAX.",
    ]
    for kind in ("layers", "outputs"):
        lines += ["", f"| {kind.removesuffix('s')} | samples | median | largest | allowed |"]
        lines += ["|---|---|---|---|---|"]
        for values in measured[kind]:
            row = Row(**values)
            allowed = "-" if row.allowed is None else f"{row.allowed:.1e}"
            lines.append(
                f"| {row.name} | {row.samples} | {row.median:.1e} | {row.largest:.1e} | {allowed} |"
            )
    lines += ["", "| answers that are the same token for token | share |", "|---|---|"]
    lines += [f"| {name} | {share:.4f} |" for name, share in measured["tokens"].items()]
    return "\n".join(lines) + "\n"


def write(measured: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes parity.json and parity.md into a folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = json.dumps(measured, indent=1, allow_nan=False) + "\n"
    written = [folder / "parity.json", folder / "parity.md"]
    for path, text in zip(written, (plain, markdown(measured)), strict=True):
        with paths.written_whole(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return written
