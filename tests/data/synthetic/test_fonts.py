import string
from collections import Counter

import pytest

from mmllm.data import packages
from mmllm.data.charset import CHARSET
from mmllm.data.synthetic import fonts


def test_there_are_enough_families_on_each_side():
    lineages = {split: {f.lineage for f in fonts.in_split(split)} for split in fonts.SPLITS}
    assert len(lineages["train"]) >= 300
    assert len(lineages["unseen_print"]) >= 14
    assert len(lineages["unseen_script"]) >= 8


def test_handwriting_is_seen_in_training_too():
    scripts = [family for family in fonts.in_split("train") if family.kind == "script"]
    assert len({family.lineage for family in scripts}) >= 60


def test_no_lineage_is_on_both_sides_within_print_and_script():
    for lineage in {family.lineage for family in fonts.families()}:
        kinds = [f for f in fonts.families() if f.lineage == lineage and f.kind != "display"]
        assert len({family.split.split("_")[0] for family in kinds}) <= 1, lineage


def test_redrawings_of_one_design_share_a_lineage():
    lineage = {family.name: family.lineage for family in fonts.families()}
    assert lineage["Nimbus Sans"] == lineage["Liberation Sans"] == lineage["FreeSans"]
    assert lineage["Lato"] == lineage["Carlito"]


def test_every_family_draws_letters_and_its_package_is_pinned():
    for family in fonts.families():
        assert family.kind in fonts.KINDS
        assert family.package in packages.PACKAGES
        assert not set(family.missing) & set(string.ascii_letters), family.name
        assert set(family.missing) < set(CHARSET)
        assert family.files
        assert all(not file.startswith("/") for file in family.files)


def test_every_pinned_font_package_is_used_and_has_a_licence():
    used = set(fonts.package_names())
    pinned = {name for name in packages.PACKAGES if name.startswith(("fonts-", "@fontsource/"))}
    assert used == pinned
    assert all(packages.PACKAGES[name].licence for name in pinned)


def test_no_file_is_listed_twice():
    files = Counter((f.package, file) for f in fonts.families() for file in f.files)
    assert max(files.values()) == 1


def test_a_family_knows_what_it_cannot_draw():
    family = fonts.Family("print", "x", "X", False, "{}", "fonts-hack", ("x.ttf",))
    assert family.can_draw("plain text")
    assert not family.can_draw("{x}")


def test_display_faces_are_always_for_training():
    assert all(f.split == "train" for f in fonts.families() if f.kind == "display")


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'dev' is unknown; allowed: train, unseen_print"):
        fonts.in_split("dev")


def test_families_are_grouped_by_kind_and_lineage(toy_fonts):
    assert fonts.by_lineage(fonts.families()) == {"print": [[toy_fonts[0]], [toy_fonts[1]]]}
