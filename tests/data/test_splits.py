from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmllm.data import splits

NAMES = [f"thing {number}" for number in range(20_000)]
SHARE_TOLERANCE = 0.01  # three standard deviations of 20,000 draws at 15 %


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A T-shirt", "t shirt"),
        ("Cherries", "cherry"),
        ("dog face", "The dog"),
        ("Red Apple", "apple"),
        ("piñata", "pinata"),
        ("person walking facing right", "person walking"),
        ("Côte d’Ivoire", "cote d'ivoire"),
    ],
)
def test_spellings_of_one_concept_share_a_key(one, other):
    assert splits.concept_key(one) == splits.concept_key(other)


@pytest.mark.parametrize(("one", "other"), [("mars", "mar"), ("glasses", "glass"), ("cat", "car")])
def test_different_concepts_have_different_keys(one, other):
    assert splits.concept_key(one) != splits.concept_key(other)


def test_an_empty_concept_is_refused():
    with pytest.raises(ValueError, match="is empty"):
        splits.concept_key("  ")


def test_signs_without_letters_are_concepts_too():
    assert splits.concept_key("÷") != splits.concept_key("+")


def test_concepts_fall_85_5_10():
    counts = Counter(splits.concept_split(name) for name in NAMES)
    for side, expected in (("train", 0.85), ("val", 0.05), ("test", 0.10)):
        assert counts[side] / len(NAMES) == pytest.approx(expected, abs=SHARE_TOLERANCE)


def test_the_split_never_changes():
    # Golden: a change here would let trained models see their test concepts.
    assert splits.share("turtle", "concept") == 0.20612019620848876
    golden = {
        "turtle": "train",
        "banjo": "train",
        "ladder": "val",
        "tulip": "val",
        "anchor": "test",
    }
    assert {name: splits.concept_split(name) for name in golden} == golden


@given(st.text(min_size=1).filter(lambda text: text.strip()), st.booleans())
def test_no_concept_is_trained_on_and_tested_across_sources(concept, is_photo):
    try:
        key = splits.concept_key(concept)
    except ValueError:
        return
    train = {
        splits.emoji_split(concept, "noto"),
        splits.stamp_split(concept, is_photo),
        splits.emoji_split(key, "twemoji"),
    }
    assert len({split == "train" for split in train}) == 1


def test_held_out_photographs_are_absent_from_every_training_split():
    held_out = splits.photo_holdout()
    assert len(held_out) > 80
    for concept in held_out:
        assert splits.concept_split(concept) == "test"
        assert splits.stamp_split(concept, is_photo=True) == "photo_out"
        assert splits.stamp_split(concept, is_photo=False) == "concept_out"
        for artists in splits.ARTISTS.values():
            for family in artists:
                assert splits.emoji_split(concept, family) in ("concept_out", "style_concept_out")


def test_other_photographs_follow_their_concept():
    seen = next(name for name in NAMES if splits.concept_split(name) == "train")
    assert splits.stamp_split(seen, is_photo=True) == "train"


def test_unseen_artists_are_never_trained_on():
    for name in NAMES[:2000]:
        for family in ("openmoji", "streamline-emojis"):
            split = splits.emoji_split(name, family)
            assert split in ("style_out", "style_concept_out", None)


def test_families_of_one_artist_stay_together():
    for artist, families in splits.ARTISTS.items():
        assert {splits.artist_of(family) for family in families} == {artist}
        assert len({splits.is_unseen_style(family) for family in families}) == 1


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="'clipart' is unknown; known are noto"):
        splits.emoji_split("cat", "clipart")


def test_styles_of_one_font_family_stay_together():
    same = ["DejaVu Sans", "DejaVu Sans Mono", "DejaVuSans-Bold", "DejaVu Sans Condensed Oblique"]
    assert {splits.font_key(name.replace("VuSans", "Vu Sans")) for name in same} == {"dejavusans"}
    assert len({splits.font_split(name) for name in same}) == 1


def test_fonts_fall_85_15():
    counts = Counter(splits.font_split(name) for name in NAMES)
    assert counts["test"] / len(NAMES) == pytest.approx(0.15, abs=SHARE_TOLERANCE)
