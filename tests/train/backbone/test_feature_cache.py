"""The key of cached features: what changes their bytes changes it, and nothing else does."""

import dataclasses
import json
from pathlib import Path

import pytest

from mmllm.common import config as config_lib
from mmllm.data import pretrained, registry, sources, transforms
from mmllm.train.backbone import feature_cache
from tests import tiny_corpora

TABLES = Path("tables") / "0123"
BASE = dataclasses.replace(
    tiny_corpora.CONFIG,
    model=dataclasses.replace(
        tiny_corpora.CONFIG.model, backbone="efficientnet_lite0", image_side=224
    ),
    tune=dataclasses.replace(tiny_corpora.CONFIG.tune, steps=5),
)


@pytest.fixture(autouse=True)
def corpora(tmp_path, monkeypatch):
    return tiny_corpora.install(tmp_path, monkeypatch)


def changed(path: str, value) -> config_lib.Config:
    """BASE with one field, by its dotted path, changed."""
    values = config_lib.to_dict(BASE)
    *sections, field = path.split(".")
    section = values
    for name in sections:
        section = section[name]
    assert section[field] != value, "nothing changed"
    section[field] = value
    return config_lib.resolve(values)


def folder(config: config_lib.Config = BASE, split: str = "train") -> Path:
    return feature_cache.folder(config, TABLES, "emoji", split)


TUNE = {
    field.name: getattr(BASE.tune, field.name) * 0.5
    if isinstance(getattr(BASE.tune, field.name), float)
    else getattr(BASE.tune, field.name) + 1
    for field in dataclasses.fields(BASE.tune)
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 7),
        ("data.limit", 3),
        ("data.views", {"emoji": 5}),  # which the tuning sees
        ("data.views", {"stamps": 5}),
        ("model.head_width", 64),
        ("model.embed_dim", 64),
        ("model.feature_dropout", 0.5),
        ("train.statistics_pictures", 9),
        *((f"tune.{name}", value) for name, value in TUNE.items()),
    ],
)
def test_what_changes_the_features_changes_their_folder(path, value):
    assert folder(changed(path, value)) != folder()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "other"),
        ("train.steps", 99),
        ("train.learning_rate", 0.5),
        ("train.validate_every", 3),
        ("model.width", 64),
        ("model.decoder_blocks", 4),
        ("batch.lines", 1),
        ("loss.vqa", 9.0),
        ("align.steps", 3),
        ("regain.steps", 5),
        ("data.row_tokens", 50),
    ],
)
def test_what_does_not_change_the_features_leaves_their_folder(path, value):
    assert folder(changed(path, value)) == folder()


def test_code_data_and_weights_are_part_of_the_key(monkeypatch):
    before = folder()
    emoji = dataclasses.replace(registry.spec("emoji"), seed=99)
    weights = dataclasses.replace(pretrained.EFFICIENTNET_LITE0, tensors_sha256="other")
    for holder, name, value in (
        (transforms, "TRANSFORMS_VERSION", transforms.TRANSFORMS_VERSION + 1),
        (sources, "data_hash", lambda name: f"new hash of {name}"),
        (pretrained, "EFFICIENTNET_LITE0", weights),
        (registry, "spec", lambda name: emoji),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(holder, name, value)
            assert folder() != before, name
    assert folder() == before
    other = feature_cache.folder(BASE, TABLES.with_name("4567"), "emoji")
    assert other != before  # other names or weights of the pictures that were tuned on


def test_an_untuned_backbone_s_features_do_not_depend_on_the_tables():
    config = changed("tune.steps", 0)
    other = feature_cache.folder(config, TABLES.with_name("4567"), "emoji")
    assert folder(config) == other
    assert folder(config) != folder()
    longer = changed("tune.steps", 0)
    longer = dataclasses.replace(longer, tune=dataclasses.replace(longer.tune, batch=99))
    assert folder(longer) == folder(config)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 7),
        ("data.limit", 3),
        ("data.views", {"stamps": 5}),
        ("train.statistics_pictures", 9),
    ],
)
def test_blocks_reconstructed_without_tuning_depend_on_what_they_were_trained_on(path, value):
    def blocks(config):
        reconstruction = dataclasses.replace(config.quant.reconstruction, steps=3)
        quant = dataclasses.replace(config.quant, reconstruction=reconstruction)
        untuned = dataclasses.replace(config.tune, steps=0)
        config = dataclasses.replace(config, tune=untuned, quant=quant)
        return feature_cache.backbone_folder(config, TABLES)

    assert blocks(changed(path, value)) != blocks(BASE)
    assert blocks(changed("train.steps", 99)) == blocks(BASE)


def test_a_corpus_and_a_split_have_a_folder_of_their_own(monkeypatch):
    assert folder().name.startswith("emoji-train-")
    assert folder(split="val").name.startswith("emoji-val-")
    assert folder(changed("train.validation_pictures", 3)) == folder()
    assert folder(changed("train.validation_pictures", 3), "val") != folder(split="val")
    monkeypatch.setattr(
        sources, "data_hash", lambda name: "new" if name == "stamps" else f"hash of {name}"
    )
    untuned = changed("tune.steps", 0)
    emoji = feature_cache.folder(untuned, TABLES, "emoji")
    monkeypatch.undo()
    assert emoji.name.startswith("emoji-train-")


RULES = (r"backbone/block_15/project/kernel int4", r"backbone/.* float", r"embed/table int8")


def student(*rules: str, folder: Path, **changes) -> config_lib.Config:
    quant = dataclasses.replace(BASE.quant, start=str(folder), rules=rules, **changes)
    return dataclasses.replace(BASE, quant=quant, seed=7)


def test_students_of_one_run_share_its_features_unless_their_backbone_is_coarse(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config_lib.to_dict(BASE)))
    plain = student(r"embed/table int8", folder=tmp_path)
    assert folder(plain) == folder()  # the seed of what is cached is that of the start
    coarse = folder(student(*RULES, folder=tmp_path))
    reconstruction = dataclasses.replace(BASE.quant.reconstruction, steps=5)
    trained = student(*RULES, folder=tmp_path, reconstruction=reconstruction)
    longer = dataclasses.replace(reconstruction, steps=6)
    faster = student(*RULES, folder=tmp_path, reconstruction=reconstruction, scale_rate=0.9)
    others = [
        folder(each)
        for each in (
            trained,
            student(*RULES, folder=tmp_path, reconstruction=longer),
            faster,
            student(RULES[0].replace("int4", "int2"), *RULES[1:], folder=tmp_path),
        )
    ]
    assert len({folder(), coarse, *others}) == 6


def test_a_run_is_bound_to_its_features(tmp_path, monkeypatch):
    for config in (BASE, changed("train.steps", 99)):
        feature_cache.claim(config, TABLES, tmp_path)
    monkeypatch.setattr(transforms, "TRANSFORMS_VERSION", transforms.TRANSFORMS_VERSION + 1)
    with pytest.raises(ValueError, match="a run on other features than composites-train-"):
        feature_cache.claim(BASE, TABLES, tmp_path)


def test_frozen_features_belong_to_the_pictures_alone():
    frozen = feature_cache.frozen_folder(BASE, "emoji")
    assert frozen == feature_cache.frozen_folder(changed("tune.batch", 9), "emoji")
    assert frozen != feature_cache.frozen_folder(changed("seed", 9), "emoji")
    assert frozen != feature_cache.frozen_folder(BASE, "stamps")
