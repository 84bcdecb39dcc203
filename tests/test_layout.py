"""The house rules a machine can check: one-way imports, short files, mirrored tests."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mmllm"
# Data flows from left to right; a folder imports only what stands left of it.
ORDER = (
    "common",
    "data",
    "quant",
    "models",
    "bundle",
    "train",
    "export",
    "runtime",
    "parity",
    "evaluate",
    "serve",
    "commands",
)
LONGEST_FILE = 400
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "misc", "lib", "manager", "managers"}
EMPTY_SUFFIXES = re.compile(r"(^|_)(utils?|helpers?|managers?|v\d+|enhanced|advanced)$")
# Where TensorFlow may be imported only inside a function: training must run without it.
WITHOUT_TENSORFLOW = ORDER[: ORDER.index("train") + 1]
# clu's writers import TensorFlow; tfds builders subclass a tfds class, so corpora/ may import it.
NEEDS_TENSORFLOW = ("tensorflow", "tf2onnx", "keras", "clu.metric_writers", "ai_edge_litert")


def sources(*folders: str) -> list[Path]:
    """Returns the Python files below folders of the repository, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yields the dotted names that import statements bring in, `from a import b` as "a.b"."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}; write it absolute"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes that run on import: all but function bodies and `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from at_module_level(node)


def starts_with(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def wrong_imports(path: str, code: str) -> list[str]:
    """Returns the imports of `mmllm/...` file `path` that break the one-way rule."""
    parts = Path(path).with_suffix("").parts
    room = parts[1] if parts[1] in ORDER else None
    wrong = []
    for name in imported(ast.walk(ast.parse(code))):
        if name.split(".")[0] in {"configs", "experiments", "tests"}:
            wrong.append(f"{path} imports {name}: the package stands without that folder")
        elif starts_with(name, "mmllm.cli") and path != "mmllm/__main__.py":
            wrong.append(f"{path} imports {name}: nothing imports the command line")
        elif room and starts_with(name, "mmllm") and len(name.split(".")) > 1:
            target = name.split(".")[1]
            if target in ORDER and ORDER.index(target) > ORDER.index(room):
                wrong.append(f"{path} imports {name}, which lies to the right of {room}")
    return wrong


def test_imports_go_one_way():
    wrong = []
    for path in sources("mmllm"):
        wrong += wrong_imports(relative(path), path.read_text())
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "code", "count"),
    [
        ("mmllm/quant/grid.py", "from mmllm.train import loop", 1),
        ("mmllm/quant/grid.py", "def f():\n    import mmllm.models.vit", 1),
        ("mmllm/quant/grid.py", "from mmllm import models", 1),
        ("mmllm/models/vit.py", "from mmllm.quant import grid", 0),
        ("mmllm/data/splits.py", "from configs import base", 1),
        ("mmllm/serve/api/app.py", "from mmllm.cli import main", 1),
        ("mmllm/cli.py", "from mmllm.serve.api import app", 0),
        ("mmllm/__main__.py", "from mmllm.cli import main", 0),
    ],
)
def test_the_import_rule_catches_what_it_should(path: str, code: str, count: int):
    assert len(wrong_imports(path, code)) == count


def test_configs_import_only_config_dicts():
    wrong = [
        f"{relative(path)} imports {name}"
        for path in sources("configs")
        for name in imported(ast.walk(ast.parse(path.read_text())))
        if name.split(".")[0] not in {"configs", "ml_collections"}
    ]
    assert not wrong, "\n".join(wrong)


def test_every_room_has_its_place_in_the_order():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    rooms |= {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms <= {*ORDER, "zoo", "sample"}


def test_every_folder_with_modules_is_a_package():
    bare = {
        relative(path.parent)
        for path in sources("mmllm", "configs", "experiments")
        if not (path.parent / "__init__.py").exists()
    }
    assert not bare, f"without __init__.py: {bare}"


def test_no_file_is_too_long():
    long = {
        relative(path): count
        for path in sources("mmllm", "configs", "experiments", "tests")
        if (count := len(path.read_text().splitlines())) > LONGEST_FILE
    }
    assert not long, f"over {LONGEST_FILE} lines: {long}"


def test_no_module_has_an_empty_name():
    empty = [
        relative(path)
        for path in sources("mmllm", "configs", "experiments")
        if path.stem in EMPTY_NAMES or EMPTY_SUFFIXES.search(path.stem)
    ]
    assert not empty, f"name the thing, not the drawer it lies in: {empty}"


def defines_something(path: Path) -> bool:
    tree = ast.parse(path.read_text())
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree))


def test_every_module_has_its_mirrored_test():
    missing = []
    for path in sources("mmllm"):
        if path.stem in {"__init__", "__main__"} or not defines_something(path):
            continue
        folder = path.relative_to(PACKAGE).parent
        if not (ROOT / "tests" / folder / f"test_{path.stem}.py").exists():
            missing.append(
                f"{relative(path)} -> tests/{(folder / 'test_').as_posix()}{path.stem}.py"
            )
    assert not missing, "without a test file:\n" + "\n".join(missing)


def test_every_module_says_what_it_is():
    silent = [
        relative(path)
        for path in sources("mmllm", "configs", "experiments")
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent, f"without a module docstring: {silent}"


def test_training_does_not_import_tensorflow():
    wrong = []
    for path in sources(*(f"mmllm/{room}" for room in WITHOUT_TENSORFLOW)):
        names = (*NEEDS_TENSORFLOW, *(() if "corpora" in path.parts else ("tensorflow_datasets",)))
        for name in imported(at_module_level(ast.parse(path.read_text()))):
            if any(starts_with(name, prefix) for prefix in names):
                wrong.append(f"{relative(path)} imports {name}")
    assert not wrong, "import it inside the function that needs it:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("mmllm", ("jax", "tensorflow", "flax")),
        ("mmllm.runtime", ("jax", "tensorflow", "flax")),
        ("mmllm.cli", ("jax", "tensorflow", "flax", "fastapi", "pydantic")),
        ("mmllm.serve.settings", ("jax", "tensorflow", "flax")),
        ("mmllm.models", ("tensorflow",)),
        ("mmllm.train", ("tensorflow",)),
    ],
)
def test_importing_stays_light(module: str, forbidden: tuple[str, ...]):
    code = f"import sys, {module}; print(*[m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split(), f"import {module} also imports {done.stdout.strip()}"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-runtime.lock"])
def test_the_locks_pin_with_hashes_and_name_no_server(lock: str):
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--find-links" not in text
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text.split("\n", 1)[1].strip()):
        assert re.match(r"[a-z0-9.-]+==\S+ ", entry), entry.splitlines()[0]
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_runtime_lock_is_a_part_of_the_whole_lock():
    def pins(lock: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9.-]+==\S+", (ROOT / lock).read_text(), re.MULTILINE))

    assert pins("requirements-runtime.lock") <= pins("requirements.lock")
