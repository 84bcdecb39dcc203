"""What a manifest may hold: every field of the right type, whatever else it says."""

from pathlib import Path

import pytest

from mmllm.bundle import manifest

PATH = Path("bundle/manifest.json")
WHOLE = {
    "schema_version": manifest.SCHEMA_VERSION,
    "name": "tiny",
    "config": {},
    "config_sha256": "",
    "charset": " ab",
    "languages": ["en"],
    "files": {"weights.safetensors": "0f"},
    "bytes": {"weights.safetensors": 12},
    "parameters": 3,
    "tensor_classes": {"encoder": {"parameters": 3, "bytes": 12, "bits": 32}},
    "quantized": {},
    "data": [{"name": "emoji", "hash": "0f"}],
    "pretrained": [],
    "provenance": {"commit": None, "step": 3},
}


def test_a_whole_manifest_passes_with_and_without_what_is_optional():
    manifest.check(PATH, WHOLE)
    manifest.check(PATH, {key: WHOLE[key] for key in ("schema_version", *manifest.REQUIRED)})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema_version", 1, "has schema_version 1; mmllm .* reads 2"),
        ("name", 5, "name must be a string"),
        ("provenance", "here", "provenance must be an object"),
        ("parameters", "3", "parameters must be a whole number"),
        ("parameters", True, "parameters must be a whole number"),
        ("languages", "en", "languages must be a list"),
        ("languages", [], "languages must name at least one language"),
        ("languages", [1], "languages must name at least one language, as strings"),
        ("files", {"a": 1}, "files must give each file's sha256"),
        ("bytes", {"a": "big"}, "bytes must give each file's size"),
        ("tensor_classes", {"decoder": {}}, "tensor_classes must hold parameters"),
        ("tensor_classes", {"decoder": None}, "tensor_classes must hold parameters"),
        ("scores", [1], "scores must be an object"),
        ("data", 5, "data must be a list"),
        ("data", [{}], "data must hold objects with a name"),
        ("pretrained", ["a"], "pretrained must hold objects with a name"),
        ("pretrained", [{"name": "a", "sha256": 5}], "pretrained must hold objects with a name"),
    ],
)
def test_a_field_of_another_type_is_named(field: str, value: object, message: str):
    with pytest.raises(ValueError, match=f"^{PATH} (is damaged: )?{message}"):
        manifest.check(PATH, WHOLE | {field: value})


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="lacks languages, bytes"):
        manifest.check(PATH, {k: v for k, v in WHOLE.items() if k not in ("languages", "bytes")})
    with pytest.raises(ValueError, match="must hold a JSON object, got list"):
        manifest.check(PATH, [])
