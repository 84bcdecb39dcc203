import json
import shutil

import pytest

pytest.importorskip("tensorflow_datasets")
from mmllm.data import packages, sources, splits  # noqa: E402
from mmllm.data.corpora import emoji  # noqa: E402
from mmllm.data.lexicons import cldr  # noqa: E402

TURTLE = cldr.Emoji("\U0001f422", {"en": "turtle"}, ())
JAPAN = cldr.Emoji("\U0001f1ef\U0001f1f5", {"en": "flag: Japan"}, ())
SUSHI = cldr.Emoji("\U0001f363", {"en": "sushi"}, ())
MACHINE = cldr.Emoji("\U0001f3e7", {"en": "ATM sign"}, ())


@pytest.fixture
def icon_set(monkeypatch, tmp_path):
    """A tiny icon set, and the CLDR names of four emoji."""
    emojis = {item.characters: item for item in (TURTLE, JAPAN, SUSHI, MACHINE)}
    monkeypatch.setattr(cldr, "emojis", lambda: emojis)
    monkeypatch.setattr(cldr, "by_slug", lambda: {cldr.slug(e.name): e for e in emojis.values()})
    monkeypatch.setattr(cldr, "by_letters", cldr.by_letters.__wrapped__)
    icons = {
        "turtle": {"body": "<g/>"},
        "tortoise": {"body": "<path/>"},
        "flag-for-japan": {"body": "<circle/>", "width": 48, "left": -4},
        "raw-fish": {"body": "<rect/>"},
        "unknown-thing": {"body": "<g/>"},
        "automatedtellermachine": {"body": "<g/>"},
        "sushi": {"body": "<g/>", "hidden": True},
    }
    content = {"icons": icons, "aliases": {"turtle-2": {"parent": "tortoise"}}, "height": 36}
    (tmp_path / "icons.json").write_text(json.dumps(content))
    (tmp_path / "chars.json").write_text(json.dumps({"1f363": "raw-fish", "1f422": "turtle"}))
    monkeypatch.setattr(packages, "fetch", lambda name: tmp_path)
    return {drawing.icon: drawing for drawing in emoji.drawings_of("twemoji")}


def test_icons_are_matched_by_character_slug_and_flag_name(icon_set):
    names = {icon: drawing.emoji.name for icon, drawing in icon_set.items()}
    assert names == {"turtle": "turtle", "flag-for-japan": "flag: Japan", "raw-fish": "sushi"}


def test_a_set_that_lists_no_characters_is_matched_by_letters_as_well(icon_set, tmp_path):
    (tmp_path / "chars.json").write_text("{}")
    names = {drawing.icon: drawing.emoji.name for drawing in emoji.drawings_of("fxemoji")}
    assert names == {
        "turtle": "turtle",
        "flag-for-japan": "flag: Japan",
        "automatedtellermachine": "ATM sign",
    }


def test_concepts_are_lower_case_names(icon_set):
    assert icon_set["flag-for-japan"].concept == "flag: japan"
    assert icon_set["flag-for-japan"].key == "twemoji/flag-for-japan"


def test_an_icons_own_frame_wins_over_the_sets(icon_set):
    assert 'viewBox="-4 0 48 36" width="48" height="36"><circle/>' in icon_set["flag-for-japan"].svg
    assert 'viewBox="0 0 16 36"' in icon_set["turtle"].svg


def test_every_family_is_pinned_and_has_an_artist():
    for family in emoji.FAMILIES:
        assert f"@iconify-json/{family}" in packages.PACKAGES
        assert splits.artist_of(family)
    share_alike = [
        family
        for family in emoji.FAMILIES
        if "SA" in packages.PACKAGES[f"@iconify-json/{family}"].licence
    ]
    assert all(splits.is_unseen_style(family) for family in share_alike)


def test_unseen_artists_are_tested_on_names_that_training_shows():
    taught = [emoji.Drawing("noto", "turtle", TURTLE, "")]
    unseen = [
        emoji.Drawing("openmoji", name, item, "")
        for name, item in (("turtle", TURTLE), ("sushi", SUSHI))
    ]
    found = emoji.split_drawings([unseen, taught])
    assert found["train"] == taught
    assert found["style_out"] == unseen[:1]


@pytest.mark.skipif(shutil.which("rsvg-convert") is None, reason="rsvg-convert is not installed")
def test_a_small_corpus_is_built_from_icon_sets(icon_set, monkeypatch, tmp_path):
    monkeypatch.setattr(emoji, "FAMILIES", ("noto", "openmoji"))
    shape = '<circle cx="8" cy="8" r="7" fill="{}"/>'
    content = {"icons": {name: {"body": shape.format("#c00")} for name in ("turtle", "sushi")}}
    (tmp_path / "icons.json").write_text(json.dumps(content))
    builder = emoji.Emoji(data_dir=str(tmp_path / "tfds"), file_format="array_record")
    builder.download_and_prepare()
    (row,) = (row for row in builder.as_data_source("train") if row["concept"] == b"turtle")
    assert row["licence"] == b"Apache-2.0"
    assert row["image"].shape == (160, 160, 4)
    assert {row["family"] for row in builder.as_data_source("style_out")} == {b"openmoji"}


@pytest.mark.real_cache
def test_the_built_corpus_keeps_concepts_and_artists_apart():
    if not sources.is_built("emoji"):
        pytest.skip("emoji is not built on this machine")
    keys, families = {}, {}
    for split in emoji.SPLITS:
        rows = list(sources.load("emoji", split, images=False))
        keys[split] = {splits.concept_key(row["concept"]) for row in rows}
        families[split] = {row["family"] for row in rows}
        assert all(row["languages"][0] == "en" for row in rows)
    assert not keys["train"] & (keys["val"] | keys["concept_out"] | keys["style_concept_out"])
    assert not keys["train"] & splits.photo_holdout()
    assert (
        families["style_out"] == families["style_concept_out"] == {"openmoji", "streamline-emojis"}
    )
    assert not families["train"] & families["style_out"]
    if sources.is_built("stamps"):
        rows = [
            row
            for split in ("val", "concept_out", "photo_out")
            for row in sources.load("stamps", split, images=False)
        ]
        assert not keys["train"] & {splits.concept_key(row["concept"]) for row in rows}
