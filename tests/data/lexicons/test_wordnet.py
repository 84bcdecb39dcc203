"""WordNet's database files become (lemma, definition) pairs."""

import pytest

from mmllm.common import paths
from mmllm.data import packages
from mmllm.data.lexicons import wordnet

LICENCE = "  1 This software and database is being provided to you, the LICENSEE\n"
INDEX = LICENCE + (
    "bank n 2 3 @ ~ + 2 1 00000100 00000200  \n"
    "fire_engine n 1 1 @ 1 0 00000300  \n"
    "paris n 1 1 @ 1 0 00000400  \n"
)
DATA = LICENCE + (
    "00000100 17 n 01 bank 0 001 @ 00000001 n 0000 | sloping land (beside water); "
    '"they pulled the canoe up on the bank"; "he sat on the bank"  \n'
    "00000200 14 n 02 depository 0 bank 1 000 | a financial institution  \n"
    "00000300 06 n 02 fire_engine 0 fire_truck 0 000 | any of various large trucks  \n"
    "00000400 15 n 01 Paris 0 000 | the capital of France  \n"
)


@pytest.fixture
def database(tmp_path):
    index, data = tmp_path / "index.noun", tmp_path / "data.noun"
    index.write_text(INDEX)
    data.write_text(DATA)
    return index, data


def test_each_lemma_comes_with_its_commonest_sense_and_its_capitals(database):
    assert wordnet.read_glosses(*database) == [
        ("bank", "sloping land (beside water)"),
        ("fire engine", "any of various large trucks"),
        ("Paris", "the capital of France"),
    ]


def test_more_senses_follow_the_first(database):
    pairs = wordnet.read_glosses(*database, max_senses=5)
    assert [gloss for lemma, gloss in pairs if lemma == "bank"] == [
        "sloping land (beside water)",
        "a financial institution",
    ]


def test_categories_keep_only_their_senses(database):
    pairs = wordnet.read_glosses(*database, max_senses=2, categories=["artifact", "group"])
    assert pairs == [
        ("bank", "a financial institution"),
        ("fire engine", "any of various large trucks"),
    ]


def test_category_numbers_are_those_of_lexnames():
    assert wordnet.CATEGORIES["tops"] == 3
    assert wordnet.CATEGORIES["animal"] == 5
    assert wordnet.CATEGORIES["plant"] == 20
    assert wordnet.CATEGORIES["time"] == 28
    assert set(wordnet.PICTURABLE) < set(wordnet.CATEGORIES)


@pytest.mark.parametrize(
    ("gloss", "expected"),
    [
        ('a tree; "the old tree"; "a tree, tall and thin"  \n', "a tree"),
        ("(computer science) a part of a program", "a part of a program"),
        ('a saying; "to be or not to be" - Shakespeare; often quoted', "a saying; often quoted"),
        ("(a remark alone)", "(a remark alone)"),
        ("any of two or more; each", "any of two or more; each"),
    ],
)
def test_a_definition_has_no_examples_and_no_leading_remark(gloss, expected):
    assert wordnet.definition(gloss) == expected


def test_damaged_databases_and_bad_arguments_are_named(database):
    index, data = database
    with pytest.raises(ValueError, match="max_senses must be at least 1, got 0"):
        wordnet.read_glosses(index, data, max_senses=0)
    with pytest.raises(ValueError, match=r"categories \['bird'\] are unknown; allowed: tops"):
        wordnet.read_glosses(index, data, categories=["bird", "food"])
    data.write_text(DATA.replace("00000300 06", "00000301 06"))
    with pytest.raises(ValueError, match="no record at 00000300"):
        wordnet.read_glosses(index, data)
    data.write_text(DATA[:-60])
    with pytest.raises(ValueError, match="no synset|without a gloss|no record"):
        wordnet.read_glosses(index, data)
    index.write_text("bank n 2 3 @\n")
    with pytest.raises(ValueError, match="no index record"):
        wordnet.read_glosses(index, data)
    index.unlink()
    with pytest.raises(ValueError, match=r"index\.noun is missing"):
        wordnet.read_glosses(index, data)


@pytest.mark.real_cache
def test_the_packaged_database_has_every_noun_of_wordnet_3():
    if not (paths.data_dir() / "packages" / packages.PACKAGES[wordnet.PACKAGE].folder).is_dir():
        pytest.skip("wordnet-base is not in the data cache; training fetches it")
    pairs = wordnet.noun_glosses()
    # Source: WordNet's manual page wnstats(7WN), unique noun strings.
    assert len(pairs) == 117_798
    assert dict(pairs)["umbrella"] == "a lightweight handheld collapsible canopy"
    assert all(gloss and '"' not in gloss for _, gloss in pairs)
