"""Commands run in this process on one tiny random model, loaded once."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmllm import cli
from mmllm.commands import terminal
from mmllm.runtime.model import MobileMultiModalLLM
from tests import tiny_bundle


class Outcome(NamedTuple):
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.make(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def loaded(bundle_folder: Path) -> MobileMultiModalLLM:
    return MobileMultiModalLLM.from_pretrained(bundle_folder)


@pytest.fixture
def command(
    bundle_folder: Path,
    loaded: MobileMultiModalLLM,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    """Runs `mmllm` with the tiny model."""
    monkeypatch.setattr(terminal, "load_model", lambda name: loaded)

    def run(*arguments: object, model: bool = True) -> Outcome:
        chosen = ["--model", str(bundle_folder)] if model else []
        code = cli.main([*(str(argument) for argument in arguments), *chosen])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them a line of text, in a folder with a subfolder."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.jpg"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    text = Image.new("RGB", (200, 40), "white")
    ImageDraw.Draw(text).text((10, 8), "hello world", fill="black", font_size=20)
    text.save(folder / "text.png")
    return folder
