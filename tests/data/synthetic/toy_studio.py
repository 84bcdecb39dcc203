"""A studio for composites made of four drawn things, plain shapes and one font."""

import numpy as np
import pytest

from mmllm.data.corpora import drawings
from mmllm.data.synthetic import scenes

CONCEPTS = ("duck", "cat", "pizza", "banjo")


def example(concept, shade=200):
    """One cut-out: a square with a darker middle on a transparent border."""
    image = np.zeros((160, 160, 4), np.uint8)
    image[30:130, 40:120] = (shade, 60, 60, 255)
    image[60:90, 60:100] = (30, 30, 30, 255)
    return {"image": image, "concept": concept, "source": "toy 1.0", "licence": "MIT"}


@pytest.fixture
def toy_studio(toy_fonts):
    """Four things by one artist, shapes, two words for signs."""
    assert drawings.SIDE == 160
    return scenes.Studio(
        cutouts=scenes.Cutouts([[example(concept) for concept in CONCEPTS]]),
        shapes=True,
        words=("stop", "go"),
        font_families=toy_fonts[:1],
    )
