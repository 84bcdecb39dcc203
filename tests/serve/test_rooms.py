"""The rooms of the service: each imports only what stands left of it, and stays small."""

import ast
from pathlib import Path

import pytest

import mmllm.serve

SERVE = Path(mmllm.serve.__file__).parent
# The modules at the top serve every room: "" stands for them.
ORDER = ("", "guard", "engine", "api", "process")
MAX_TOP_MODULES = 6
MAX_ROOM_MODULES = 15


def room_of(name: str) -> str:
    """The room of a dotted name below `mmllm.serve`."""
    first = name.removeprefix("mmllm.serve.").partition(".")[0]
    return first if first in ORDER else ""


def imported(code: str) -> list[str]:
    """What a file imports of the service, also within its functions."""
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.startswith("mmllm.serve.")]


def wrong_imports(room: str, code: str) -> list[str]:
    """The imports of a file that lead to the right of its room."""
    here = ORDER.index(room)
    return [name for name in imported(code) if ORDER.index(room_of(name)) > here]


def modules(room: str) -> list[Path]:
    return [path for path in (SERVE / room).glob("*.py") if path.stem != "__init__"]


@pytest.mark.parametrize("room", ORDER)
def test_the_rooms_import_one_way(room: str):
    wrong = {path.name: wrong_imports(room, path.read_text()) for path in modules(room)}
    assert not any(wrong.values()), {name: found for name, found in wrong.items() if found}


@pytest.mark.parametrize("room", ORDER)
def test_no_room_grows_into_a_drawer(room: str):
    assert 0 < len(modules(room)) <= (MAX_ROOM_MODULES if room else MAX_TOP_MODULES)


@pytest.mark.parametrize(
    ("room", "code", "count"),
    [
        ("", "from mmllm.serve.guard import auth", 1),
        ("guard", "from mmllm.serve.engine import pool, cache", 2),
        ("engine", "def f():\n    import mmllm.serve.process.server", 1),
        ("api", "from mmllm.serve import problems, process", 1),
        ("process", "from mmllm.serve.api import app\nfrom mmllm.serve import logs", 0),
    ],
)
def test_the_rule_catches_what_it_should(room: str, code: str, count: int):
    assert len(wrong_imports(room, code)) == count
