"""Bundles: what is saved comes back, and no damage goes unnoticed."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmllm import bundle
from mmllm.bundle import manifest as manifest_lib
from mmllm.common import tensors
from mmllm.quant.coded import Coded
from tests import tiny_bundle

UP, DOWN = "encoder/block_0/mlp/up/kernel", "encoder/block_0/mlp/down/kernel"
NORM = "encoder/norm/scale"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.make(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / bundle.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def small(**changes: object) -> dict:
    """Arguments of `save`, by default with two tensors instead of a model."""
    params = {"encoder": {"norm": {"scale": np.ones(4, np.float32)}}, "embed": {"table": np.eye(3)}}
    options = {
        "params": params,
        "config": tiny_bundle.CONFIG,
        "charset": tiny_bundle.CHARSET,
        "languages": ["en"],
        "scores": {},
        "data": [],
        "pretrained": [],
    }
    return options | changes


def test_saving_twice_gives_the_same_bytes(original: Path, tmp_path: Path):
    again = tiny_bundle.make(tmp_path / "again" / "tiny")
    assert {path.name for path in again.iterdir()} == {path.name for path in original.iterdir()}
    for path in again.iterdir():
        assert path.read_bytes() == (original / path.name).read_bytes(), path.name


def test_a_bundle_comes_back_as_it_was_saved(original: Path):
    loaded = bundle.load(original)
    assert loaded.config == tiny_bundle.CONFIG
    assert loaded.manifest["languages"] == ["en", "de"]
    assert loaded.manifest["charset"] == tiny_bundle.CHARSET
    assert loaded.tokenizer_path.is_file()
    flat = dict(tensors.flatten(loaded.params))
    assert loaded.manifest["parameters"] == sum(value.size for value in flat.values())
    assert {value.dtype for value in flat.values()} == {np.dtype(np.float32)}
    classes = loaded.manifest["tensor_classes"]
    assert sum(row["parameters"] for row in classes.values()) == loaded.manifest["parameters"]
    weights = loaded.manifest["bytes"][bundle.WEIGHTS]
    assert sum(row["bytes"] for row in classes.values()) <= weights


def test_weights_are_rounded_to_float16_once(tmp_path: Path, original: Path):
    table = np.array([[1 / 3, -65504.0], [1e-7, 0.0]], np.float32)
    path = bundle.save(
        tmp_path / "b",
        **small(params={"embed": {"table": table}}),
        tokenizer_path=original / bundle.TOKENIZER,
    )
    again = bundle.load(path).params["embed"]["table"]
    np.testing.assert_array_equal(again, table.astype(np.float16).astype(np.float32))


def test_a_number_comes_back_without_an_axis(tmp_path: Path, original: Path):
    path = bundle.save(
        tmp_path / "b",
        **small(params={"embed": {"table": np.eye(3), "amax": np.float32(2.5)}}),
        tokenizer_path=original / bundle.TOKENIZER,
    )
    amax = bundle.load(path).params["embed"]["amax"]
    assert (amax.shape, float(amax)) == ((), 2.5)


@pytest.mark.parametrize("file", [bundle.WEIGHTS, bundle.TOKENIZER])
def test_a_flipped_bit_is_found(folder: Path, file: str):
    data = bytearray((folder / file).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / file).write_bytes(data)
    with pytest.raises(ValueError, match=f"{file} is damaged: its sha256"):
        bundle.load(folder)


@pytest.mark.parametrize("file", [bundle.WEIGHTS, bundle.TOKENIZER])
def test_a_truncated_file_is_found(folder: Path, file: str):
    (folder / file).write_bytes((folder / file).read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{file} is damaged: it has"):
        bundle.load(folder)


@pytest.mark.parametrize("file", [bundle.WEIGHTS, bundle.TOKENIZER, bundle.MANIFEST])
def test_a_missing_file_is_named(folder: Path, file: str):
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{file} is missing"):
        bundle.load(folder)


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        bundle.load(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\xff", '"schema_version"'])
def test_a_manifest_that_is_no_object_is_refused(folder: Path, text: str):
    (folder / bundle.MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="damaged|must hold a JSON object"):
        bundle.load(folder)


@pytest.mark.parametrize("version", [0, 1, 4, "2", None])
def test_another_schema_version_is_refused(folder: Path, version: object):
    edit(folder, schema_version=version)
    with pytest.raises(ValueError, match="schema_version"):
        bundle.load(folder)


@pytest.mark.parametrize("field", manifest_lib.REQUIRED)
def test_a_manifest_without_a_field_is_refused(folder: Path, field: str):
    path = folder / bundle.MANIFEST
    manifest = json.loads(path.read_text())
    del manifest[field]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=f"lacks {field}"):
        bundle.load(folder)


def test_a_config_that_was_changed_is_found(folder: Path):
    config = json.loads((folder / bundle.MANIFEST).read_text())["config"]
    edit(folder, config=config | {"embed_dim": 32})
    with pytest.raises(ValueError, match="config_sha256"):
        bundle.load(folder)


def test_a_file_outside_the_folder_is_refused(folder: Path):
    files = json.loads((folder / bundle.MANIFEST).read_text())["files"]
    edit(folder, files=files | {"../secret": "00"})
    with pytest.raises(ValueError, match="not a plain file name"):
        bundle.load(folder)


def test_weights_that_are_no_safetensors_are_refused(folder: Path):
    (folder / bundle.WEIGHTS).write_bytes(b"not weights")
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    edit(
        folder,
        bytes=manifest["bytes"] | {bundle.WEIGHTS: 11},
        files=manifest["files"] | {bundle.WEIGHTS: bundle.sha256_file(folder / bundle.WEIGHTS)},
    )
    with pytest.raises(ValueError, match="damaged"):
        bundle.load(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, 7e4])
def test_a_tensor_float16_cannot_hold_is_refused_and_leaves_nothing(
    tmp_path: Path, original: Path, value: float
):
    params = {"embed": {"table": np.array([value])}}
    with pytest.raises(ValueError, match="embed/table has a value float16 cannot hold"):
        bundle.save(
            tmp_path / "b", **small(params=params), tokenizer_path=original / bundle.TOKENIZER
        )
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_bundle(
    folder: Path, original: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensors, "write", full)
    with pytest.raises(OSError, match="No space left"):
        bundle.save(folder, **small(), tokenizer_path=original / bundle.TOKENIZER)
    assert bundle.load(folder).config == tiny_bundle.CONFIG
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_older_bundle_is_replaced_and_anything_else_is_not(folder: Path, original: Path):
    tokenizer = original / bundle.TOKENIZER
    bundle.save(folder, **small(name="new"), tokenizer_path=tokenizer)
    assert bundle.load(folder).manifest["name"] == "new"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    (folder / bundle.MANIFEST).unlink()
    with pytest.raises(ValueError, match="is no bundle"):
        bundle.save(folder, **small(), tokenizer_path=tokenizer)


@pytest.mark.parametrize("charset", ["abc", "a" * len(tiny_bundle.CHARSET)])
def test_a_charset_must_fit_the_config(tmp_path: Path, original: Path, charset: str):
    with pytest.raises(ValueError, match="charset"):
        bundle.save(
            tmp_path / "b", **small(charset=charset), tokenizer_path=original / bundle.TOKENIZER
        )


def test_the_fingerprint_follows_the_weights(original: Path, tmp_path: Path):
    other = tiny_bundle.make(tmp_path / "other", seed=1)
    prints = [bundle.load(path).fingerprint for path in (original, original, other)]
    assert prints[0] == prints[1] != prints[2]


def test_a_staged_copy_takes_the_place_of_the_bundle(folder: Path):
    with bundle.staged(folder) as copy:
        (copy / "more.bin").write_bytes(b"more")
        bundle.add(copy, copy / "more.bin")
        assert not (folder / "more.bin").exists()
    manifest, _ = bundle.open_verified(folder)
    assert manifest["bytes"]["more.bin"] == 4
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_a_staged_copy_that_fails_changes_nothing(folder: Path):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail():
        with bundle.staged(folder) as copy:
            (copy / bundle.WEIGHTS).write_bytes(b"")
            raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        fail()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_a_bundle_is_staged_from_within_and_through_a_link(
    folder: Path, tmp_path: Path, monkeypatch
):
    link = tmp_path / "link"
    link.symlink_to(folder)
    monkeypatch.chdir(folder)
    for place in (Path(), link):
        with bundle.staged(place) as copy:
            (copy / "more.bin").write_bytes(str(place).encode())
            bundle.add(copy, copy / "more.bin")
        assert (folder / "more.bin").read_bytes() == str(place).encode()
        bundle.open_verified(folder)
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("quantized", [1], "quantized must be an object"),
        ("charset", None, "charset must be a string"),
        ("quantized", {"a": {"grid": ["int2"]}}, "quantized weight a is not whole"),
        ("charset", "abc", "charset must hold .* different characters, got 3, 3 of them"),
        ("parameters", 7, "holds [0-9]+ parameters, the manifest says 7"),
    ],
)
def test_a_manifest_of_wrong_types_is_refused(folder: Path, field, value, message):
    path = folder / bundle.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=message):
        bundle.load(folder)


def test_codes_of_another_shape_or_of_nothing_are_refused(tmp_path: Path, original: Path):
    loaded = bundle.load(original)
    codes = Coded(np.ones((8, 4), np.int8), np.ones(8, np.float32), "int4")
    for path in ("nowhere/kernel", "decoder/block_0/mlp/up/kernel"):
        whole = small(params=loaded.params, coded={path: codes})
        with pytest.raises(ValueError, match=f"coded weight {path} has codes of shape"):
            bundle.save(tmp_path / "new", **whole, tokenizer_path=loaded.tokenizer_path)
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def packed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with one matrix on int2 and one on ternary."""
    loaded = bundle.load(original)
    params, coded = dict(tensors.flatten(loaded.params)), {}
    for path, grid in ((UP, "int2"), (DOWN, "ternary")):
        codes = np.ones(params[path].shape[::-1], np.int8)
        coded[path] = Coded(codes, np.full(len(codes), 0.5, np.float32), grid)
    folder = tmp_path_factory.mktemp("packed") / "tiny"
    whole = small(params=loaded.params, coded=coded)
    return bundle.save(folder, **whole, tokenizer_path=loaded.tokenizer_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (UP + bundle.SCALE, lambda x: x * np.float32(np.nan), f"{UP} is no int2 with its scales"),
        (UP + bundle.SCALE, lambda x: -x, f"{UP} is no int2 with its scales"),
        (UP + bundle.SCALE, lambda x: x[:1], f"{UP} is no int2 with its scales"),
        (UP + bundle.SCALE, lambda x: x.astype(np.float16), f"{UP} is no int2 with its scales"),
        (UP, lambda x: x.astype(np.float32), f"{UP} is no int2 with its scales"),
        (UP, lambda x: x.reshape(-1), f"{UP} is no int2 with its scales"),
        (DOWN, lambda x: x * 0 + np.uint8(0b10), f"{DOWN} is no ternary with its scales"),
        (NORM, lambda x: x * np.float16(np.inf), f"{NORM} holds what is no number"),
        (NORM, lambda x: x[:-1], "holds [0-9]+ parameters, the manifest says"),
    ],
    ids=[
        "nan scale",
        "negative scale",
        "one scale",
        "half scale",
        "float codes",
        "flat codes",
        "code below the grid",
        "infinite float",
        "short float",
    ],
)
def test_weights_that_no_training_gives_are_refused(packed, tmp_path, name, change, message):
    """Their hashes are right: what wrote them was wrong."""
    folder = Path(shutil.copytree(packed, tmp_path / "tiny"))
    flat = dict(tensors.flatten(tensors.read(folder / bundle.WEIGHTS, floats=False)))
    with np.errstate(invalid="ignore"):
        flat[name] = change(flat[name])
    tensors.write(folder / bundle.WEIGHTS, tensors.unflatten(flat))
    path = folder / bundle.WEIGHTS
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["files"][path.name] = bundle.sha256_file(path)
    manifest["bytes"][path.name] = path.stat().st_size
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))
    bundle.open_verified(folder)
    with pytest.raises(ValueError, match=message):
        bundle.load(folder)


def test_what_killed_exports_left_is_removed_or_named(folder: Path, original: Path):
    tokenizer = original / bundle.TOKENIZER
    staged = folder.with_name(f".{platform.node()}-{dead_process()}-{8 * 'a'}.{folder.name}")
    aside = folder.with_name(f".{folder.name}.{32 * 'b'}.old")
    for left in (staged, aside):
        shutil.copytree(folder, left)
    bundle.save(folder, **small(name="new"), tokenizer_path=tokenizer)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    folder.rename(aside)
    with pytest.raises(FileNotFoundError, match="a stopped export left it as .*old: rename that"):
        bundle.load(folder)


def test_a_bundle_is_saved_into_the_folder_one_stands_in_and_through_a_link(
    tmp_path: Path, original: Path, monkeypatch
):
    folder, link = tmp_path / "here", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    tokenizer = original / bundle.TOKENIZER
    monkeypatch.chdir(folder)
    for place in (Path(), link):
        saved = bundle.save(place, **small(), tokenizer_path=tokenizer)
        assert saved == folder
        assert (folder / bundle.MANIFEST).is_file()
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "link"]


def dead_process() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
