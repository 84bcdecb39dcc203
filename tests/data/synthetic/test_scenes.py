import itertools
import random

import numpy as np
import pytest

from mmllm.data.synthetic import scenes, things
from mmllm.data.synthetic.things import Thing
from tests.data.synthetic.toy_studio import example

SEEDS = range(60)


@pytest.fixture
def composed(toy_studio):
    return [scenes.compose(toy_studio, random.Random(seed)) for seed in SEEDS]


def test_a_scene_depends_on_its_seed_alone(toy_studio):
    one, same = (scenes.compose(toy_studio, random.Random(7)) for _ in range(2))
    assert np.array_equal(one.pixels, same.pixels)
    assert one.items == same.items
    assert one.sign == same.sign


def test_nothing_overlaps_and_all_is_inside(composed):
    for scene in composed:
        boxes = [item.box for item in scene.items]
        boxes += [scene.sign_box] if scene.sign_box else []
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= scenes.SIDE
            assert 0 <= top < bottom <= scenes.SIDE
        for a, b in itertools.combinations(boxes, 2):
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, (a, b)


def test_scenes_are_various(composed):
    assert {len(scene.items) for scene in composed} == {1, 2, 3, 4}
    assert {scene.sign for scene in composed} == {None, "stop", "go"}
    assert any(item.colour for scene in composed for item in scene.items)
    assert any(item.colour is None for scene in composed for item in scene.items)
    repeated = [s for s in composed if len({i.name for i in s.items}) < len(s.items)]
    assert len(repeated) > 5


def test_shapes_always_have_a_colour(composed):
    for item in (item for scene in composed for item in scene.items):
        if item.thing.category == things.SHAPE:
            assert item.colour in things.SHAPE_COLOURS


def test_a_tinted_item_shows_its_colour(composed):
    for scene in composed:
        for item in scene.items:
            if item.colour:
                left, top, right, bottom = item.box
                inside = scene.pixels[top:bottom, left:right].reshape(-1, 3).astype(float)
                target = np.array(things.SHAPE_COLOURS[item.colour], float)
                near = np.linalg.norm(inside - target, axis=1) < 110
                assert near.mean() > 0.15, item


def test_sources_are_those_of_the_pasted_drawings(composed):
    for scene in composed:
        drawn = any(item.thing.category != things.SHAPE for item in scene.items)
        assert scene.sources == ((("toy 1.0", "MIT"),) if drawn else ())


def test_unknown_concepts_are_left_out():
    cutouts = scenes.Cutouts([[example("duck"), example("nonsense"), example("Duck")]])
    assert [thing.name for thing in cutouts.things] == ["duck"]


def test_trimming_keeps_what_is_visible():
    trimmed = scenes.trimmed(example("duck")["image"])
    assert trimmed.shape == (100, 80, 4)
    blank = np.zeros((5, 6, 4), np.uint8)
    assert scenes.trimmed(blank).shape == blank.shape


def test_things_drawn_together_are_never_related():
    bird = Thing("animal", "bird", "bird")
    duck = Thing("animal", "duck", "duck", "bird")
    cat = Thing("animal", "cat", "cat")
    for seed in range(30):
        drawn = scenes.draw_things([bird, duck, cat], 2, random.Random(seed))
        assert cat in drawn
        assert len(set(drawn)) == 2


@pytest.mark.parametrize("name", things.SHAPES)
def test_every_shape_is_drawn_to_its_edges(name):
    mask = scenes.shape_mask(name, 64)[..., 3]
    for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert edge.max() == 255
    assert 0.2 < (mask > 0).mean() <= 1


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="'blob' is unknown; allowed: circle"):
        scenes.shape_mask("blob", 64)


def test_a_colour_near_the_ground_is_not_chosen():
    ground = np.array(things.COLOURS["red"], np.float32)
    chosen = {
        scenes.visible_colour(things.COLOURS, ground, random.Random(seed)) for seed in range(100)
    }
    assert "red" not in chosen
    assert len(chosen) >= 5


def test_a_full_canvas_leaves_no_place():
    whole = [(0, 0, scenes.SIDE, scenes.SIDE)]
    assert scenes.free_place((10, 10), whole, random.Random(0)) == (-1, -1)
    assert scenes.free_place((400, 10), [], random.Random(0)) == (-1, -1)
