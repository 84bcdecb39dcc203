"""What the tests of the service share: the shipped model, a picture, and settings for tests."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from mmllm import bundle as bundle_lib
from mmllm.runtime import model as model_lib
from mmllm.serve import settings as settings_lib

SAMPLE = Path(__file__).parents[2] / "mmllm" / "sample"


@pytest.fixture(scope="session")
def nano() -> model_lib.MobileMultiModalLLM:
    """Returns the shipped model, one for all tests: it must stay in one thread at a time."""
    return model_lib.MobileMultiModalLLM.from_pretrained("nano", threads=1)


@pytest.fixture(scope="session")
def picture_bytes() -> bytes:
    """Returns a drawing from the package's sample, as a PNG file."""
    return sorted(SAMPLE.glob("drawing-*.png"))[0].read_bytes()


@pytest.fixture(scope="session")
def page_bytes() -> bytes:
    """Returns two lines of text on white, as a PNG file."""
    image = Image.new("RGB", (240, 90), "white")
    draw = ImageDraw.Draw(image)
    draw.text((10, 10), "HELLO WORLD", fill="black", font_size=24)
    draw.text((10, 50), "OPEN DAILY", fill="black", font_size=24)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def other_bundle(tmp_path: Path) -> Path:
    """Returns a copy of the shipped bundle that counts as another model, for reloads."""
    folder = Path(shutil.copytree(model_lib.locate("nano"), tmp_path / "other"))
    (folder / "NOTE.txt").write_text("a file more, and with it another fingerprint")
    bundle_lib.add(folder, folder / "NOTE.txt")
    return folder


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., settings_lib.Settings]:
    """Returns a maker of settings for tests: two threads, one host, an index of its own."""

    def make(**changes: Any) -> settings_lib.Settings:
        defaults: dict[str, Any] = {
            "engine_threads": 2,
            "index_path": tmp_path / "index.sqlite",
            "trusted_hosts": ("test", "localhost", "127.0.0.1"),
            "drain_s": 5.0,
        }
        return settings_lib.Settings(**{**defaults, **changes})

    return make


@pytest.fixture
def settings(make_settings: Callable[..., settings_lib.Settings]) -> settings_lib.Settings:
    """Returns the settings that most tests need."""
    return make_settings()
