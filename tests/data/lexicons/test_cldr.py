import json

import pytest

from mmllm.data import packages
from mmllm.data.lexicons import cldr


@pytest.fixture
def annotations(monkeypatch, tmp_path):
    """Two tiny CLDR packages: English and German, and a Turkish file that is empty."""
    full, derived = tmp_path / "full", tmp_path / "derived"

    def write(root, key, language, content):
        path = root / key / language / "annotations.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({key: content}))

    turtle = {"default": ["animal", "turtle"], "tts": ["turtle"]}
    walker = {"default": ["walk"], "tts": ["person walking facing right"]}
    machine = {"tts": ["ATM sign"]}
    english = {"\U0001f422": turtle, "\U0001f6b6‍➡️": walker, "\U0001f3e7": machine}
    write(full, "annotations", "en", {"annotations": english})
    write(full, "annotations", "de", {"annotations": {"\U0001f422": {"tts": ["Schildkröte"]}}})
    write(full, "annotations", "tr", {})
    tones = {"\U0001f44b\U0001f3fd": {"tts": ["waving hand: medium skin tone"]}}
    pirate = {"\U0001f3f4‍☠️": {"tts": ["pirate flag"]}}
    write(derived, "annotationsDerived", "en", {"annotations": tones | pirate})
    folders = dict(zip(cldr.PACKAGES, (full, derived), strict=True))
    monkeypatch.setattr(packages, "fetch", lambda name: folders[name])
    for table in (cldr.emojis, cldr.by_slug, cldr.by_letters):
        table.cache_clear()
    yield
    for table in (cldr.emojis, cldr.by_slug, cldr.by_letters):
        table.cache_clear()


def test_names_come_by_language_with_english_first(annotations):
    turtle = cldr.emojis()["\U0001f422"]
    assert list(turtle.names.items()) == [("en", "turtle"), ("de", "Schildkröte")]
    assert turtle.keywords == ("animal",)


def test_skin_tones_and_mirrored_twins_are_left_out(annotations):
    assert {emoji.name for emoji in cldr.emojis().values()} == {
        "turtle",
        "pirate flag",
        "ATM sign",
    }


def test_variation_selectors_do_not_matter(annotations):
    assert cldr.bare("\U0001f3f4‍☠️") in cldr.emojis()
    assert cldr.by_slug()["pirate-flag"].name == "pirate flag"


def test_letters_find_the_cldr_name_or_else_the_unicode_name(annotations):
    table = cldr.by_letters()
    assert {letters: emoji.name for letters, emoji in table.items()} == {
        "turtle": "turtle",
        "pirateflag": "pirate flag",
        "atmsign": "ATM sign",
        "automatedtellermachine": "ATM sign",
    }
    assert "automated-teller-machine" not in table
    assert "cashmachine" not in table


def test_a_cldr_name_wins_over_the_unicode_name_of_another_emoji(monkeypatch):
    # Source: U+1F42A is DROMEDARY CAMEL, U+1F42B is BACTRIAN CAMEL; here CLDR swaps their names.
    swapped = {"\U0001f42a": "Bactrian camel", "\U0001f42b": "camel"}
    emojis = {key: cldr.Emoji(key, {"en": name}, ()) for key, name in swapped.items()}
    monkeypatch.setattr(cldr, "emojis", lambda: emojis)
    table = cldr.by_letters.__wrapped__()
    assert table["bactriancamel"].characters == "\U0001f42a"
    assert table["camel"].characters == "\U0001f42b"
    assert table["dromedarycamel"].characters == "\U0001f42a"


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("flag: Côte d’Ivoire", "flag-cote-divoire"),
        ("Mrs. Claus", "mrs-claus"),
        ("flag: Trinidad & Tobago", "flag-trinidad-and-tobago"),
    ],
)
def test_slugs_are_written_as_icon_sets_write_them(name, slug):
    assert cldr.slug(name) == slug


@pytest.mark.real_cache
def test_the_real_annotations_name_every_emoji_in_twelve_languages():
    cldr.emojis.cache_clear()
    from mmllm.common import paths

    if not (paths.data_dir() / "packages" / packages.PACKAGES[cldr.PACKAGES[0]].folder).is_dir():
        pytest.skip("the CLDR packages are not in this machine's cache")
    emojis = cldr.emojis()
    assert len(emojis) > 2000
    assert all(len(emoji.names) == len(cldr.LANGUAGES) for emoji in emojis.values())
    assert emojis["\U0001f34e"].names["ja"] == "赤リンゴ"
    cldr.emojis.cache_clear()
