"""What runs in threads: pictures made small on the way in, and a batch of each task on a model.

`service` sends the first kind to its decoding threads, so that a whole picture lives only there,
and the second kind through the batchers to the pool's threads.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float32, UInt8

from mmllm.common import config as config_lib
from mmllm.data import images as images_lib
from mmllm.runtime import lines as lines_lib
from mmllm.runtime import model as model_lib
from mmllm.serve.guard import pictures

Model = model_lib.MobileMultiModalLLM
Item = TypeVar("Item")
Options = tuple[Any, ...]


class CaptionItem(NamedTuple):
    """A picture to caption, in a square."""

    pixels: UInt8[np.ndarray, "y x 3"]
    language: str
    beam: int


class QuestionItem(NamedTuple):
    """A picture, in a square, and a question about it; already checked."""

    pixels: UInt8[np.ndarray, "y x 3"]
    question: str
    beam: int


class Page(NamedTuple):
    """A picture whose lines were found: their boxes, and each piece as the reader takes it."""

    width: int
    height: int
    lines: list[lines_lib.Line]
    crops: list[UInt8[np.ndarray, "y x"]]


def square(data: bytes, limits: pictures.Limits, side: int) -> UInt8[np.ndarray, "y x 3"]:
    """Decodes a picture and fits it into the model's square.

    Raises:
      Problem: whatever `pictures.decode` finds wrong with it.
    """
    return images_lib.to_square(pictures.decode(data, limits).image, side)


def page(data: bytes, limits: pictures.Limits, config: config_lib.ModelConfig) -> Page:
    """Decodes a picture and finds its lines of text.

    Raises:
      Problem: whatever `pictures.decode` finds wrong with it.
    """
    image = pictures.decode(data, limits).image
    found = lines_lib.find_lines(image, config.line_width / config.line_height)
    crops = [
        images_lib.to_line(image.crop(segment.box), config.line_height, config.line_width)
        for line in found
        for segment in line.segments
    ]
    return Page(*image.size, found, crops)


def captions(model: Model, items: list[CaptionItem]) -> list[model_lib.Scored]:
    """Captions pictures, those of one language and beam together."""
    return _grouped(
        items,
        lambda item: (item.language, item.beam),
        lambda group, options: model.scored_captions(
            [item.pixels for item in group], options[0], beam=options[1]
        ),
    )


def answers(model: Model, items: list[QuestionItem]) -> list[model_lib.Scored]:
    """Answers questions, those of one beam together."""
    return _grouped(
        items,
        lambda item: (item.beam,),
        lambda group, options: model.scored_answers(
            [item.pixels for item in group], [item.question for item in group], beam=options[0]
        ),
    )


def crops(
    model: Model, items: list[list[UInt8[np.ndarray, "y x"]]]
) -> list[list[model_lib.Scored]]:
    """Reads crops of text, those of all pictures in one go."""
    read = iter(model.scored_lines([crop for item in items for crop in item]))
    return [[next(read) for _ in item] for item in items]


def image_vectors(
    model: Model, items: list[UInt8[np.ndarray, "y x 3"]]
) -> list[Float32[np.ndarray, "b e"]]:
    """Embeds pictures; one row each."""
    vectors = model.embed_images(items)
    return [vectors[place : place + 1] for place in range(len(items))]


def text_vectors(model: Model, items: list[tuple[str, ...]]) -> list[Float32[np.ndarray, "b e"]]:
    """Embeds the texts of several requests in one go."""
    vectors = model.embed_texts([text for item in items for text in item])
    ends = np.cumsum([len(item) for item in items])
    return np.split(vectors, ends[:-1])


def alone(model: Model, items: list[Callable[[Model], Any]]) -> list[Any]:
    """Calls what was sent with the model: for streams, which come one a batch."""
    return [item(model) for item in items]


def _grouped(
    items: Sequence[Item],
    options_of: Callable[[Item], Options],
    run: Callable[[list[Item], Options], list[model_lib.Scored]],
) -> list[model_lib.Scored]:
    """Runs items with the same options together and gives the answers in the items' order."""
    places: dict[Options, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(options_of(item), []).append(place)
    found: dict[int, model_lib.Scored] = {}
    for options, group in places.items():
        found.update(zip(group, run([items[place] for place in group], options), strict=True))
    return [found[place] for place in range(len(items))]
