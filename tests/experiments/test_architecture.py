"""The picture and the page show the code as it is."""

import pytest

from experiments import architecture
from experiments.structure import walks
from tests.experiments.structure import houses

DATA = {"rooms": {"common": [2, 100], "quant": [3, 50]}, "imports": {"quant to common": 3}}


def test_the_picture_is_not_stale():
    svg = (architecture.REPOSITORY / architecture.PICTURE).read_text(encoding="utf-8")
    found = architecture.differences(architecture.drawn_facts(svg), architecture.facts())
    assert not found, "run `make architecture`:\n" + "\n".join(found)


def test_the_page_shows_the_walks_and_the_figures():
    page = (architecture.REPOSITORY / architecture.PAGE).read_text(encoding="utf-8")
    assert page == architecture.page_now(), "run `make architecture`"


def test_facts_are_files_lines_and_pairs_of_files(tmp_path):
    houses.build(
        tmp_path,
        {
            "mmllm/__init__.py": "",
            "mmllm/common/__init__.py": "\n",
            "mmllm/common/paths.py": "x = 1\ny = 2\n",
            "mmllm/quant/grid.py": "from mmllm.common import paths\n",
            "mmllm/quant/scale.py": "import mmllm.common.paths\n",
        },
    )
    assert architecture.facts(tmp_path) == {
        "rooms": {"common": [1, 3], "quant": [2, 2]},
        "imports": {"quant to common": 2},
    }


def test_a_picture_is_drawn_the_same_each_time_and_holds_its_facts():
    svg = architecture.draw(DATA)
    assert svg == architecture.draw(DATA)
    assert architecture.drawn_facts(svg) == DATA
    assert svg.count("<circle") == 1
    with pytest.raises(ValueError, match="holds no facts"):
        architecture.drawn_facts("<svg/>")


@pytest.mark.parametrize(
    ("rooms", "imports", "found"),
    [
        ({"common": [2, 109], "quant": [4, 52]}, {"quant to common": 5}, []),
        (
            {"common": [2, 111], "quant": [3, 50]},
            {"quant to common": 3},
            ["common: [2, 100] is now [2, 111]"],
        ),
        ({"common": [2, 100]}, {}, ["quant is no more", "quant to common is no more"]),
        ({**DATA["rooms"], "data": [1, 1]}, DATA["imports"], ["data is not drawn"]),
    ],
)
def test_a_picture_is_stale_when_rooms_or_arrows_differ_or_counts_drift(rooms, imports, found):
    assert architecture.differences(DATA, {"rooms": rooms, "imports": imports}) == found


def test_a_walk_is_a_list_with_a_number_for_each_visit_to_a_file():
    stops = [("mmllm/a.py:f", "does one"), ("mmllm/a.py:C.g", "does two"), ("mmllm/b.py:h", "")]
    legs = [walks.Leg("a walk", "a leg", [*stops, ("mmllm/b.py:i", "does three")])]
    result = {"kind": "structure", "rows": []}
    page = architecture.render("<!-- walk:a walk -->\nold\n<!-- /walk -->", legs, result)
    assert "1. [`a.py`](../mmllm/a.py): `f` does one; `g` does two\n" in page
    assert "2. [`b.py`](../mmllm/b.py): `i` does three\n" in page
    assert "old" not in page
    with pytest.raises(ValueError, match=r"walk must be one of \['a walk'\], got 'x'"):
        architecture.render("<!-- walk:x -->\n<!-- /walk -->", legs, result)
