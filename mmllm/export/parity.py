"""A bundle's LiteRT file against JAX with the same rounded activations: layers, outputs, tokens.

Each layer is compared on the input it has in JAX. Whole signatures are compared on pictures, where
the many roundings of the stem make tiny differences large: an output of a picture may be as far
from JAX as JAX is from itself once the pixels are off by one part in ten million.
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
from jaxtyping import Float

from mmllm.common import paths
from mmllm.export import bundle as bundle_lib
from mmllm.export import litert, taps
from mmllm.runtime import decode, demo, prompts
from mmllm.runtime.jax_engine import JaxEngine
from mmllm.runtime.litert_engine import LiteRtEngine
from mmllm.runtime.model import CAPTION_TOKENS, MobileMultiModalLLM

TOLERANCE = 1e-3
"""Median relative error of a layer, or of an output that no picture's stem stands before."""

LARGEST = 2e-2
"""Largest relative error of one sample: an activation whose rounding fell the other way."""

SAME_TOKENS = 0.99
"""Least share of answers that are the same token for token, from the same image tokens."""

SELF = 1.0 + 2.0**-23
"""What pixels are multiplied with to see how far JAX gets from itself."""

CHAOS = 3.0
"""How many times as far from JAX as JAX from itself an output of a picture may be."""

LAYER_SAMPLES = 4


class ParityError(ValueError):
    """The LiteRT file differs from JAX by more than is allowed; the message names the layer."""


@dataclasses.dataclass(frozen=True)
class Row:
    """How far one layer or output is from JAX, relative to the norm, over samples."""

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
        """What a single sample may differ by."""
        return max(LARGEST, CHAOS * (self.allowed or 0.0))


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    """Norm of the difference over the norm of what was wanted; exact for what is not a float.

    Raises:
      ParityError: shapes that differ, or a number that is not finite.
    """
    if got.shape != wanted.shape:
        raise ParityError(f"shape {got.shape} differs from {wanted.shape}")
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    if not np.isfinite(got).all():
        raise ParityError("a number is not finite")
    apart = float(np.linalg.norm(got - wanted))
    return apart / max(float(np.linalg.norm(wanted)), 1e-12)


def _row(name: str, errors: Sequence[float], allowed: float | None = TOLERANCE) -> Row:
    return Row(name, len(errors), float(np.median(errors)), float(np.max(errors)), allowed)


@dataclasses.dataclass(frozen=True)
class Samples:
    """What both are run on: pictures (b, side, side, 3) and text lines (b, height, width), 0..255,
    token rows of texts, and prompts of captions."""

    pixels: Float[np.ndarray, "b y x 3"]
    lines: Float[np.ndarray, "b v u"]
    texts: Sequence[Sequence[int]]
    prompts: Sequence[Sequence[int]]


def layers(bundle: bundle_lib.Bundle, samples: Samples, threads: int = 2) -> list[Row]:
    """Every layer of the model on the inputs that it has in JAX.

    Raises:
      ModuleNotFoundError: TensorFlow or LiteRT is missing.
      ParityError: an output of another shape, or one that is not finite.
    """
    from ai_edge_litert.interpreter import Interpreter

    params = jax.tree.map(jnp.asarray, bundle.params)
    recorded = [_recorded(bundle, params, samples, row) for row in range(LAYER_SAMPLES)]
    file = litert.convert(taps.signatures(recorded[0], params))
    file = litert.put_codes(file, bundle.coded, {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "taps.tflite"
        path.write_bytes(file)
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        rows = []
        for calls in zip(*recorded, strict=True):
            runner = interpreter.get_signature_runner(taps.signature_name(calls[0].name))
            errors = []
            for layer in calls:
                got = runner(**{f"input_{i}": value for i, value in enumerate(layer.inputs)})
                try:
                    errors += [
                        relative(got[f"output_{i}"], wanted)
                        for i, wanted in enumerate(layer.outputs)
                    ]
                except ParityError as error:
                    raise ParityError(f"layer {layer.name}: {error}") from error
            rows.append(_row(layer.name, errors))
        del runner, interpreter
    return rows


def _recorded(
    bundle: bundle_lib.Bundle, params: Any, samples: Samples, row: int
) -> list[taps.Layer]:
    """The layers as they run on one picture, line and text."""

    def pick(rows: Any) -> Any:
        return rows[row % len(rows)]

    config = bundle.config
    ids = jnp.asarray(decode.pad_rows([pick(samples.prompts)], config.max_text))
    texts = jnp.asarray(decode.pad_rows([pick(samples.texts)], config.max_text))
    ids, texts = (jnp.pad(rows, ((0, 0), (0, 16)))[:, :16] for rows in (ids, texts))

    def call(model: Any) -> None:
        prefix = model.encode_image(jnp.asarray(pick(samples.pixels)[None], jnp.float32))
        model.read_lines(jnp.asarray(pick(samples.lines)[None], jnp.float32))
        model.embed_text(texts)
        logits, cache = model.prefill(prefix, ids)
        last = int(np.sum(np.asarray(ids) != 0)) - 1
        token = jnp.argmax(logits[:, last], axis=-1).astype(jnp.int32)
        model.decode_step(token, jnp.asarray([prefix.shape[1] + last + 1], jnp.int32), cache)

    return taps.record(config, params, call)


def outputs(lite: LiteRtEngine, ours: JaxEngine, samples: Samples) -> list[Row]:
    """Whole signatures: text embeddings, lines, prefill and decoding on JAX's own image tokens and
    caches, and what comes from a picture."""
    config, rows = ours.config, []
    texts = decode.pad_rows(samples.texts, config.max_text)
    rows.append(_compared("embed_text", lite.embed_text(texts), ours.embed_text(texts)))
    lines = samples.lines
    rows.append(_compared("read_lines", lite.read_lines(lines), ours.read_lines(lines)))
    prefix = ours.encode_image(samples.pixels)
    asked = decode.pad_prompts(
        [samples.prompts[i % len(samples.prompts)] for i in range(len(prefix))], config.max_text
    )
    got, cache = lite.prefill(prefix, asked.ids)
    wanted, own = ours.prefill(prefix, asked.ids)
    at = np.arange(len(prefix)), asked.lengths - 1
    rows.append(_compared("prefill", got[at], wanted[at]))
    token = wanted[at].argmax(axis=-1).astype(np.int32)
    position = (prefix.shape[1] + asked.lengths).astype(np.int32)
    got, wanted = (
        engine.decode_step(token, position, state)[0]
        for engine, state in ((lite, cache), (ours, own))
    )
    rows.append(_compared("decode_step", got, wanted))
    for name in ("embed_image", "encode_image"):
        wanted = getattr(ours, name)(samples.pixels)
        moved = getattr(ours, name)(samples.pixels * np.float32(SELF))
        chaos = _compared(f"{name}, JAX against itself", moved, wanted, None)
        allowed = TOLERANCE + CHAOS * chaos.median
        rows += [_compared(name, getattr(lite, name)(samples.pixels), wanted, allowed), chaos]
    return rows


def _compared(name: str, got: np.ndarray, wanted: np.ndarray, allowed: float | None = TOLERANCE) -> Row:
    try:
        return _row(name, [relative(a, b) for a, b in zip(got, wanted, strict=True)], allowed)
    except ParityError as error:
        raise ParityError(f"output {name}: {error}") from error


def tokens(
    lite: MobileMultiModalLLM, ours: MobileMultiModalLLM, samples: Samples
) -> dict[str, float]:
    """Share of greedy captions that are the same token for token, over pictures and prompts.

    Returns:
      "same image tokens": both decode from JAX's image tokens; "same pictures": each encodes the
      pictures itself; "JAX against itself": from pixels changed by one part in ten million.
    """
    how = {"end": ours.tokenizer.eos_id, "banned": ours.banned, "limit": CAPTION_TOKENS}

    def said(engine: Any, prefix: np.ndarray, ids: Sequence[int]) -> list[list[int]]:
        found: list[list[int]] = []
        for start in range(0, len(prefix), decode.MAX_ROWS):
            part = prefix[start : start + decode.MAX_ROWS]
            asked = decode.pad_prompts([ids] * len(part), ours.config.max_text)
            found += [answer.ids for answer in decode.greedy(engine, part, asked, **how)]
        return found

    prefixes = {
        "JAX": ours.engine.encode_image(samples.pixels),
        "moved": ours.engine.encode_image(samples.pixels * np.float32(SELF)),
        "LiteRT": lite.engine.encode_image(samples.pixels),
    }
    pairs = {
        "same image tokens": (lite.engine, "JAX"),
        "same pictures": (lite.engine, "LiteRT"),
        "JAX against itself": (ours.engine, "moved"),
    }
    same: dict[str, list[bool]] = {name: [] for name in pairs}
    for ids in samples.prompts:
        wanted = said(ours.engine, prefixes["JAX"], ids)
        for name, (engine, start) in pairs.items():
            got = said(engine, prefixes[start], ids)
            same[name] += [a == b for a, b in zip(got, wanted, strict=True)]
    return {name: float(np.mean(each)) for name, each in same.items()}


def shipped_sample() -> tuple[list[Path], list[Path]]:
    """The package's sample: pictures, and text lines."""
    shipped = demo.load_sample()
    read = [p.path for p in shipped if any(trial.task == "read" for trial in p.trials)]
    return [p.path for p in shipped if p.path not in read], read


def sample(model: MobileMultiModalLLM, pictures: Sequence[Any], lines: Sequence[Any]) -> Samples:
    """Samples of a model: pictures and text lines in any form the runtime takes, texts and prompts
    in each of its languages."""
    captions = [prompts.caption(model.tokenizer, language) for language in model.languages]
    texts = dict.fromkeys(model.caption_batch(pictures[:16]))
    return Samples(
        model.pixels(pictures).astype(np.float32),
        model.line_pixels(lines).astype(np.float32),
        [prompts.embedding(model.tokenizer, text, model.config.max_text) for text in texts if text],
        captions,
    )


def measure(
    folder: Path, pictures: Sequence[Any], lines: Sequence[Any], *, threads: int = 2
) -> dict[str, Any]:
    """Compares a bundle's LiteRT file with JAX.

    Args:
      folder: a bundle that has the file.
      pictures: in any form the runtime takes.
      lines: pictures that are one line of text each.
      threads: of LiteRT.

    Returns:
      {"layers", "outputs", "tokens", ...}, ready for JSON; `check` judges it.
    """
    loaded = bundle_lib.load(folder)
    lite = MobileMultiModalLLM.from_pretrained(folder, "litert", threads)
    ours = MobileMultiModalLLM.from_pretrained(folder, "jax")
    samples = sample(ours, pictures, lines)
    assert isinstance(lite.engine, LiteRtEngine)
    assert isinstance(ours.engine, JaxEngine)
    return {
        "kind": "parity",
        "file": {
            "name": bundle_lib.LITERT,
            "sha256": loaded.manifest["files"][bundle_lib.LITERT],
        },
        "pictures": len(samples.pixels),
        "lines": len(samples.lines),
        "answers": len(samples.pixels) * len(samples.prompts),
        "layers": [dataclasses.asdict(row) for row in layers(loaded, samples, threads)],
        "outputs": [
            dataclasses.asdict(row) for row in outputs(lite.engine, ours.engine, samples)
        ],
        "tokens": tokens(lite, ours, samples),
    }


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
    if (same := measured["tokens"]["same image tokens"]) < SAME_TOKENS:
        raise ParityError(
            f"decoder: {same:.1%} of {measured['answers']} answers are the same as JAX's, "
            f"at least {SAME_TOKENS:.0%} must be"
        )


def summary(measured: Mapping[str, Any]) -> str:
    """The report in two lines."""
    worst = max((Row(**values) for values in measured["layers"]), key=lambda row: row.median)
    same = measured["tokens"]
    return (
        f"parity: {len(measured['layers'])} layers within {worst.median:.1e} of JAX "
        f"({worst.name}; {TOLERANCE:.0e} allowed)\n"
        f"        {same['same image tokens']:.1%} of {measured['answers']} answers the same from the "
        f"same image tokens, {same['same pictures']:.1%} from the same pictures (JAX against "
        f"itself: {same['JAX against itself']:.1%})"
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
