"""A bundle's two engines side by side: the same pictures through LiteRT and through JAX."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mmllm import bundle
from mmllm.export import parity
from mmllm.runtime import decode, demo, prompts
from mmllm.runtime.engine import MAX_ROWS
from mmllm.runtime.model import CAPTION_TOKENS, MobileMultiModalLLM


class Inputs(NamedTuple):
    """Pictures and lines of text in any form the runtime takes, and texts to embed."""

    pictures: Sequence[Any]
    lines: Sequence[Any]
    texts: Sequence[str]


def shipped_sample() -> Inputs:
    """The package's sample: its pictures, text lines, and titles."""
    shipped = demo.load_sample()
    read = [p.path for p in shipped if any(trial.task == "read" for trial in p.trials)]
    pictures = [p for p in shipped if p.path not in read]
    return Inputs([p.path for p in pictures], read, [p.title for p in pictures])


def sample(model: MobileMultiModalLLM, inputs: Inputs) -> parity.Samples:
    """Inputs as a model takes them, with a prompt for a caption in each of its languages."""
    room, words = model.config.max_text, model.tokenizer
    return parity.Samples(
        model.pixels(inputs.pictures).astype(np.float32),
        model.line_pixels(inputs.lines).astype(np.float32),
        decode.pad_rows([prompts.embedding(words, text, room) for text in inputs.texts], room),
        decode.pad_rows([prompts.caption(words, language) for language in model.languages], room),
    )


def tokens(
    lite: MobileMultiModalLLM, ours: MobileMultiModalLLM, samples: parity.Samples
) -> dict[str, float]:
    """Share of greedy captions that are the same token for token, over pictures and prompts.

    Returns:
      "same image tokens": both decode from JAX's image tokens; "same pictures": each encodes the
      pictures itself; and what JAX gives against itself from image tokens, and pictures, that are
      changed by one part in two million.
    """
    how = {"end": ours.tokenizer.eos_id, "banned": ours.banned, "limit": CAPTION_TOKENS}

    def said(engine: Any, prefix: np.ndarray, ids: Int[np.ndarray, "p"]) -> list[list[int]]:
        found: list[list[int]] = []
        for start in range(0, len(prefix), MAX_ROWS):
            part = prefix[start : start + MAX_ROWS]
            asked = decode.Prompts(
                np.repeat(ids[None], len(part), axis=0),
                np.full(len(part), np.count_nonzero(ids), np.int32),
            )
            found += [answer.ids for answer in decode.greedy(engine, part, asked, **how)]
        return found

    prefix = ours.engine.encode_image(samples.pixels)
    moved = ours.engine.encode_image(parity.moved(samples.pixels))
    runs = {
        parity.SAME_PREFIX: (lite.engine, prefix),
        f"{parity.SAME_PREFIX}, {parity.ITSELF}": (ours.engine, parity.moved(prefix)),
        parity.SAME_PICTURES: (lite.engine, lite.engine.encode_image(samples.pixels)),
        f"{parity.SAME_PICTURES}, {parity.ITSELF}": (ours.engine, moved),
    }
    same: dict[str, list[bool]] = {name: [] for name in runs}
    for ids in samples.prompts:
        wanted = said(ours.engine, prefix, ids)
        for name, (engine, start) in runs.items():
            got = said(engine, start, ids)
            same[name] += [a == b for a, b in zip(got, wanted, strict=True)]
    return {name: float(np.mean(each)) for name, each in same.items()}


def measure(folder: Path, inputs: Inputs, *, threads: int = 2) -> dict[str, Any]:
    """Compares a bundle's LiteRT file with JAX.

    Args:
      folder: a bundle that has the file.
      inputs: what both are run on.
      threads: of LiteRT.

    Returns:
      {"layers", "outputs", "tokens", ...}, ready for JSON; `parity.check` judges it.
    """
    loaded = bundle.load(folder)
    lite = MobileMultiModalLLM.from_pretrained(folder, "litert", threads)
    ours = MobileMultiModalLLM.from_pretrained(folder, "jax")
    samples = sample(ours, inputs)
    return {
        "kind": "parity",
        "file": {
            "name": bundle.LITERT,
            "sha256": loaded.manifest["files"][bundle.LITERT],
        },
        "pictures": len(samples.pixels),
        "lines": len(samples.lines),
        "answers": len(samples.pixels) * len(samples.prompts),
        "layers": [dataclasses.asdict(row) for row in parity.layers(loaded, samples, threads)],
        "outputs": [
            dataclasses.asdict(row) for row in parity.outputs(lite.engine, ours.engine, samples)
        ],
        "tokens": tokens(lite, ours, samples),
    }
