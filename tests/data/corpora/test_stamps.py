import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow_datasets")
from mmllm.data import packages, sources, splits  # noqa: E402
from mmllm.data.corpora import stamps  # noqa: E402

FOX = """A fox.
de.utf8=Ein Fuchs.
en_GB.utf8=A fox.
pt.utf8=Uma raposa (pt).
pt_BR.utf8=Uma raposa.
nl.utf8=A fox.
zh_CN.utf8=狐狸。真的！
zh_TW.utf8=狐狸
"""


@pytest.fixture(autouse=True)
def few_emoji(monkeypatch):
    names = ("dog face", "teddy bear", "cherries", "hot pepper", "high-heeled shoe", "jeans")
    keys = frozenset(splits.concept_key(name) for name in names)
    monkeypatch.setattr(stamps, "emoji_keys", lambda: keys)


def test_captions_are_read_by_language_with_english_first():
    assert list(stamps.captions_of(FOX).items()) == [
        ("en", "A fox"),
        ("de", "Ein Fuchs"),
        ("pt", "Uma raposa"),
        ("zh", "狐狸"),
    ]


def test_a_file_without_english_has_no_captions():
    assert stamps.captions_of("") == {}
    assert stamps.captions_of("\nde.utf8=Ein Fuchs.\n") == {}


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("A fox.", "A fox"),
        ("Say cheese!", "Say cheese!"),
        ("King. Can move one step in any direction. Protect him!", "King"),
        ("The letter A.", "The letter A"),
        ("推土机，", "推土机"),
        ("A  calculator.  6x7=42", "A calculator"),
    ],
)
def test_only_the_first_sentence_is_kept_without_its_stop(raw, clean):
    assert stamps.clean(raw) == clean


@pytest.mark.parametrize(
    ("caption", "key", "concept"),
    [
        ("A frog", "animals/frog", "frog"),
        ("A pair of blue jeans with patches", "clothes/bluejeans1", "jeans"),
        ("A dog", "animals/dog", "dog"),
        ("Teddy bear", "animals/teddy_bear", "teddy bear"),
        ("A pair of cherries", "food/Cherry_Stella", "cherries"),
        ("A chile pepper", "food/chilepepper", "chile pepper"),
        ("A red high-heeled shoe", "clothes/red_highheel", "high-heeled shoe"),
        ("A peacock (a male peafowl)", "animals/peacock", "peacock"),
        ("A lemon slice", "food/lemon_slice", "lemon"),
        ("A vacuum cleaner", "household/vacuum_cleaner", "vacuum cleaner"),
        ("A spider playing computer games", "animals/spider_computer", "spider"),
        ("Eddie the Helicopter", "vehicles/eddieCopter", "helicopter"),
        ("Some blueberries", "food/blueberry", "blueberry"),
        ("A US 1 cent piece ($.01) called a penny", "symbols/money/us/coins/001penny", "coin"),
        ("King", "symbols/chess/b_1_king", "chess king"),
        ("The letter A with an umlaut", "symbols/alphabets/A", "letter a with an umlaut"),
        ("The sign for the letter B in American Sign Language", "symbols/asl/asl_b", "sign for b"),
    ],
)
def test_the_concept_is_an_emojis_name_or_the_head_noun(caption, key, concept):
    assert stamps.concept_of(caption, key) == concept


def test_noise_is_a_photograph_and_flat_colour_is_not(tmp_path):
    noisy = np.random.default_rng(0).integers(0, 255, (160, 160, 4), dtype=np.uint8)
    noisy[..., 3] = 255
    stamp = stamps.Stamp(tmp_path / "fox.png", "animals/fox", {"en": "A fox"}, "fox")
    assert stamps.is_photo(stamp, noisy)
    assert not stamps.is_photo(stamp, np.full((160, 160, 4), 255, np.uint8))
    drawn = stamps.Stamp(tmp_path / "fox.png", "animals/cartoon/fox", {"en": "A fox"}, "fox")
    assert not stamps.is_photo(drawn, noisy)


def test_an_invisible_picture_is_perfectly_flat():
    assert stamps.flatness(np.zeros((160, 160, 4), np.uint8)) == 1.0


def test_stamps_are_found_without_mirrored_twins_and_cropped(monkeypatch, tmp_path):
    root = tmp_path / "usr/share/tuxpaint/stamps/animals"
    root.mkdir(parents=True)
    picture = Image.new("RGBA", (90, 60), (0, 0, 0, 0))
    picture.paste((9, 8, 7, 255), (20, 20, 40, 30))
    for name in ("fox", "fox_mirror", "wordless"):
        picture.save(root / f"{name}.png")
    (root / "fox.txt").write_text(FOX)
    monkeypatch.setattr(packages, "fetch", lambda name: tmp_path)
    stamps.stamps.cache_clear()
    (stamp,) = stamps.stamps()
    stamps.stamps.cache_clear()
    assert (stamp.key, stamp.concept) == ("animals/fox", "fox")
    image = stamps.picture_of(stamp.path)
    assert (image[80, :, 3] == 255).all()


@pytest.mark.real_cache
def test_the_built_corpus_keeps_held_out_photographs_apart():
    if not sources.is_built("stamps"):
        pytest.skip("stamps is not built on this machine")
    keys = {
        split: {
            splits.concept_key(row["concept"])
            for row in sources.load("stamps", split, images=False)
        }
        for split in stamps.SPLITS
    }
    assert keys["photo_out"] <= splits.photo_holdout()
    assert not keys["train"] & (keys["val"] | keys["concept_out"] | keys["photo_out"])
    assert not keys["train"] & splits.photo_holdout()
