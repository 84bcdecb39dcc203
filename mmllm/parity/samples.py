"""What JAX and an exported file are both run on."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmllm.data import prompts
from mmllm.runtime import decode
from mmllm.runtime import sample as sample_lib
from mmllm.runtime.model import MobileMultiModalLLM

SELF = 2.0**-21
"""By what part inputs are changed to see how far JAX gets from itself: as much as two orders of
adding up the products of a layer differ."""


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


class Inputs(NamedTuple):
    """Pictures and lines of text in any form the runtime takes, and texts to embed."""

    pictures: Sequence[Any]
    lines: Sequence[Any]
    texts: Sequence[str]


def shipped_sample() -> Inputs:
    """The package's sample: its pictures, text lines, and titles."""
    shipped = sample_lib.load()
    # What is there to be read goes to the line reader, all else to the image encoder.
    read = [p.path for p in shipped if any(trial.task == "read" for trial in p.trials)]
    pictures = [p for p in shipped if p.path not in read]
    return Inputs([p.path for p in pictures], read, [p.title for p in pictures])


def of_inputs(model: MobileMultiModalLLM, inputs: Inputs) -> Samples:
    """Inputs as a model takes them, with a prompt for a caption in each of its languages.

    A text longer than the model holds is cut: a small vocabulary spells one in many tokens.
    """
    room, words = model.config.max_text, model.tokenizer
    return Samples(
        model.pixels(inputs.pictures).astype(np.float32),
        model.line_pixels(inputs.lines).astype(np.float32),
        decode.pad_rows([prompts.embedding(words, text, room - 2) for text in inputs.texts], room),
        decode.pad_rows([prompts.caption(words, language) for language in model.languages], room),
    )


def moved(inputs: np.ndarray) -> np.ndarray:
    """Inputs of which every second number, by chance, is larger by one part in two million."""
    # Not all alike: a common factor would vanish in the next norm.
    chosen = np.random.default_rng(0).integers(0, 2, inputs.shape).astype(np.float32)
    return inputs * (1.0 + chosen * np.float32(SELF))
