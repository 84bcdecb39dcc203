"""What is counted, on files small enough to count by hand."""

from experiments.structure import measures
from tests.experiments.structure import houses

CODE = '''"""What it is,
on two lines."""

RATE, _NAMES = 3e-4, ("a",)
"""How fast."""


class Loop:
    def run(self, steps: int = 100) -> int:
        # Two at a time, as one is slow.
        return steps[5] * 2  # noqa: E1

    def _end(self):
        return f"{4.0 / 60:.2f}"


def open_it(x):
    return optax.adamw(0.01), x.reshape(3, 4)
'''


def test_folders_are_counted_at_one_level(tmp_path):
    modules = houses.build(
        tmp_path,
        {"mmllm/__init__.py": "\n", "mmllm/train/a.py": "x\ny\n", "mmllm/train/deep/b.py": "x\n"},
    )
    rows = {row["folder"]: (row["files"], row["lines"]) for row in measures.folders(modules)}
    assert rows == {"mmllm": (0, 1), "mmllm/train": (1, 2), "mmllm/train/deep": (1, 1)}


def test_comments_are_those_for_people(tmp_path):
    modules = houses.build(tmp_path, {"mmllm/train/a.py": CODE})
    assert measures.comments(modules["mmllm/train/a.py"]) == {
        "comment": 1,
        "code": 8,
        "docstring": 3,
    }


def test_public_names_leave_out_what_has_an_underscore(tmp_path):
    modules = houses.build(tmp_path, {"mmllm/train/a.py": CODE})
    found = measures.public_names(modules)
    assert found == {"functions": 1, "classes": 1, "constants": 1, "methods": 1}


def test_numbers_in_functions_are_listed_in_training_alone(tmp_path):
    files = {"mmllm/train/a.py": CODE, "mmllm/data/a.py": CODE, "mmllm/serve/a.py": CODE}
    found = measures.numbers(houses.build(tmp_path, files))
    assert found == {
        "train": [
            'mmllm/train/a.py:4: RATE, _NAMES = 3e-4, ("a",)',
            "mmllm/train/a.py:9: def run(self, steps: int = 100) -> int:",
            "mmllm/train/a.py:18: return optax.adamw(0.01), x.reshape(3, 4)",
        ],
        "data": ['mmllm/data/a.py:4: RATE, _NAMES = 3e-4, ("a",)'],
        "models": [],
    }


def test_a_copy_is_found_once_and_whole(tmp_path):
    copied = "".join(f"value_{number} = {number}\n" for number in range(8))
    files = {
        "mmllm/a.py": f"import os\n\n{copied}rest = 1\n",
        "mmllm/b.py": f"first = 2\ndef f():\n    # Why.\n{copied.replace('value', '    value')}",
        "mmllm/c.py": "value_1 = 1\n" * 3,
    }
    found = measures.copies(houses.build(tmp_path, files))
    assert found == [{"places": ["mmllm/a.py:3", "mmllm/b.py:4"], "lines": 8}]


def test_users_of_a_name_are_functions_and_methods(tmp_path):
    modules = houses.build(tmp_path, {"mmllm/train/a.py": CODE})
    assert measures.users(modules, "optax.adamw", "optax.adam") == ["mmllm/train/a.py:open_it"]
