import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow_datasets")
from mmllm.data import packages  # noqa: E402
from mmllm.data.corpora import drawings  # noqa: E402

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10" width="20" height="10">'
    '<rect width="20" height="10" fill="#f00"/></svg>'
)
needs_renderer = pytest.mark.skipif(
    shutil.which(drawings.RENDERER) is None, reason="rsvg-convert is not installed"
)


@needs_renderer
def test_a_wide_svg_is_centred_in_a_transparent_square():
    image = drawings.render_svg(SVG)
    assert image.shape == (160, 160, 4)
    assert image[80, 80].tolist() == [255, 0, 0, 255]
    assert image[20, 80, 3] == image[139, 80, 3] == 0
    assert image[80, 0, 3] == image[80, 159, 3] == 255


@needs_renderer
def test_a_render_serves_the_next_build(monkeypatch):
    first = drawings.render_svg(SVG)
    monkeypatch.setenv("PATH", "")
    np.testing.assert_array_equal(drawings.render_svg(SVG.encode()), first)


@needs_renderer
def test_what_cannot_be_drawn_is_an_error_and_try_render_says_none():
    with pytest.raises(ValueError, match="rsvg-convert cannot draw the SVG"):
        drawings.render_svg("<svg")
    assert drawings.try_render("<svg") is None
    assert drawings.try_render(SVG.replace("#f00", "none")) is None


def test_a_missing_renderer_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(packages.MissingClient, match="apt-get install librsvg2-bin"):
        drawings.render_svg(SVG.replace("#f00", "#0f0"))


def test_scaling_leaves_no_dark_fringe():
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.paste((255, 255, 255, 255), (2, 2, 6, 6))
    image = drawings.centre(picture)
    assert image[image[..., 3] > 64][:, :3].min() > 250


def test_a_picture_keeps_its_aspect():
    image = drawings.centre(Image.new("RGBA", (300, 100), (1, 2, 3, 255)))
    assert np.flatnonzero(image[:, 80, 3]).size == 53
    assert (image[80, :, 3] == 255).all()


def test_results_come_in_order_and_only_a_few_are_held():
    started = []
    results = drawings.mapped(lambda n: started.append(n) or n * n, range(100))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(started) <= 3 + 4 * drawings.WORKERS
    assert list(results) == [n * n for n in range(3, 100)]
