"""The index of a folder: made once, kept between calls, made again only where it must be."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmllm.commands import folder_index
from mmllm.runtime.model import MobileMultiModalLLM

TOLERANCE = 1e-5  # float32 in batches of another size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for i, name in enumerate(("a.png", "b.JPG", "sub/c.webp", ".d.png", ".hidden/e.png")):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def embedded(loaded: MobileMultiModalLLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the pictures embedded, call by call."""
    counts: list[int] = []
    embed = loaded.embed_images

    def counted(images: list) -> np.ndarray:
        counts.append(len(images))
        return embed(images)

    monkeypatch.setattr(loaded, "embed_images", counted)
    return counts


def names(index: folder_index.Index) -> list[str]:
    return [path.name for path in index.paths]


def test_pictures_are_found_in_subfolders_and_hidden_ones_left_out(loaded, folder, tmp_path):
    index = folder_index.index_folder(loaded, folder, cache=tmp_path / "cache")
    assert names(index) == ["a.png", "b.JPG", "c.webp"]
    assert all(path.is_file() for path in index.paths)
    expected = loaded.embed_images(index.paths)
    np.testing.assert_allclose(index.embeddings, expected, atol=TOLERANCE)


def test_a_second_call_embeds_nothing(loaded, folder, tmp_path, embedded):
    first = folder_index.index_folder(loaded, folder, cache=tmp_path / "cache")
    second = folder_index.index_folder(loaded, str(folder), cache=tmp_path / "cache")
    assert embedded == [3]
    assert first.paths == second.paths
    np.testing.assert_array_equal(first.embeddings, second.embeddings)


def test_only_what_changed_is_embedded_again(loaded, folder, tmp_path, embedded):
    folder_index.index_folder(loaded, folder, cache=tmp_path / "cache")
    os.utime(folder / "a.png", ns=(1, 1))
    (folder / "b.JPG").unlink()
    Image.new("RGB", (9, 9)).save(folder / "new.png")
    index = folder_index.index_folder(loaded, folder, cache=tmp_path / "cache")
    assert embedded == [3, 2]
    assert names(index) == ["a.png", "new.png", "c.webp"]


def test_another_model_makes_its_own_index(loaded, folder, tmp_path, embedded, monkeypatch):
    folder_index.index_folder(loaded, folder, cache=tmp_path / "cache")
    monkeypatch.setitem(loaded.manifest, "config_sha256", "another")
    folder_index.index_folder(loaded, folder, cache=tmp_path / "cache")
    assert embedded == [3, 3]


def test_a_damaged_index_is_made_anew_and_said_so(loaded, folder, tmp_path, embedded):
    folder_index.index_folder(loaded, folder, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    for damage in (b"", b"nonsense", file.read_bytes()[:-40]):
        file.write_bytes(damage)
        warnings: list[str] = []
        index = folder_index.index_folder(
            loaded, folder, cache=tmp_path / "cache", warn=warnings.append
        )
        assert len(index.paths) == 3
        assert len(warnings) == 1
        assert "damaged and made anew" in warnings[0]
    assert embedded == [3, 3, 3, 3]


def test_an_index_that_cannot_be_kept_is_said_so(loaded, folder, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    warnings: list[str] = []
    index = folder_index.index_folder(
        loaded, folder, cache=tmp_path / "cache", warn=warnings.append
    )
    assert len(index.paths) == 3
    assert "could not be kept" in warnings[0]


def test_bad_pictures_are_left_out_with_a_reason(loaded, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"nothing")
    warnings: list[str] = []
    index = folder_index.index_folder(
        loaded, folder, cache=tmp_path / "cache", warn=warnings.append
    )
    assert "bad.png" not in names(index)
    assert len(warnings) == 1
    assert "bad.png" in warnings[0]


def test_what_is_done_is_kept_when_the_rest_is_interrupted(
    loaded, folder, tmp_path, embedded, monkeypatch
):
    monkeypatch.setattr(folder_index, "MAX_ROWS", 2)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder_index.index_folder(loaded, folder, cache=tmp_path / "cache", progress=interrupt)
    folder_index.index_folder(loaded, folder, cache=tmp_path / "cache")
    assert embedded == [2, 1]


def test_a_folder_that_is_none_is_refused(loaded, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        folder_index.index_folder(loaded, folder / "none")
    with pytest.raises(ValueError, match="is not a folder"):
        folder_index.index_folder(loaded, folder / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no readable picture"):
        folder_index.index_folder(loaded, tmp_path / "empty", cache=tmp_path / "cache")


def test_ranking_by_hand():
    paths = [Path(name) for name in "abc"]
    index = folder_index.Index(paths, np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32))
    hits = folder_index.rank(index, np.array([0, 1], np.float32), 2)
    assert [hit.path.name for hit in hits] == ["b", "c"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.8])
    assert len(folder_index.rank(index, np.array([1, 0], np.float32), 99)) == 3
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        folder_index.rank(index, np.array([0, 1], np.float32), 0)
