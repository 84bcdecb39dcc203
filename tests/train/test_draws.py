"""Batches beside the run's own: drawn by weight, and the same whatever the threads."""

import dataclasses

import numpy as np

from mmllm.data import synthetic
from mmllm.train import draws
from tests import tiny_run

NAMES = 4


def named(seed: int, *shape: int) -> draws.Named:
    """Pictures of each name in two views; the last is never drawn."""
    noise = np.random.default_rng(seed).standard_normal((2, NAMES + 1, *shape))
    weight = np.array([1.0] * NAMES + [0.0])
    label = np.array([*range(NAMES), 0])
    return draws.Named(list(noise.astype(np.float16)), label, weight)


def test_pictures_are_drawn_by_weight_over_all_sources():
    sources = [named(1, 1, 1, 2), named(2, 1, 1, 2)]
    sources[1] = dataclasses.replace(sources[1], weight=np.array([0.0, 0.0, 3.0, 0.0, 0.0]))
    draw = draws.DrawNamed(sources, batch=4000)
    batch = draw.random_map(None, np.random.default_rng(0))
    assert batch["features"].shape == (4000, 1, 1, 2)
    # Four pictures of weight one, and one of weight three with label 2.
    share = np.bincount(batch["label"], minlength=NAMES) / 4000
    np.testing.assert_allclose(share, [1 / 7, 1 / 7, 4 / 7, 1 / 7], atol=0.03)
    known = {tuple(cell.ravel()) for source in sources for view in source.features for cell in view}
    assert {tuple(cell.ravel()) for cell in batch["features"][:50]} <= known


def test_texts_are_half_captions_and_the_same_seed_gives_the_same():
    source = synthetic.training_arrays(tiny_run.CONFIG).texts
    first, again = (next(draws.texts(source, 8, seed=3)) for _ in range(2))
    assert (first["text_label"] >= 0).sum() == 4
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
