"""The Python files of a checkout, parsed, with the rooms they stand in and what they import.

A checkout is any folder with mmllm/ in it, so that an older tree is measured by today's rules.
"""

import ast
import dataclasses
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

FOLDERS = ("mmllm", "configs", "experiments")
TESTS = "tests"
ROOMS = (
    "configs",
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
"""In the order in which they may import: from a room to those left of it."""


@dataclasses.dataclass(frozen=True)
class Module:
    """One file.

    Attributes:
      path: from the root of the checkout, such as "mmllm/quant/grid.py".
      text: the whole source.
      tree: the same, parsed.
    """

    path: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]


Modules = Mapping[str, Module]


def read(root: Path, *folders: str) -> dict[str, Module]:
    """The files of a checkout by path, sorted; those of FOLDERS unless others are named.

    Raises:
      FileNotFoundError: a folder without mmllm/ in it.
    """
    if not (root / "mmllm").is_dir():
        raise FileNotFoundError(f"{root} must be a checkout, but it holds no folder mmllm")
    found = {}
    for folder in folders or FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            path, text = file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")
            found[path] = Module(path, text, ast.parse(text))
    return found


@contextmanager
def checked_out(repository: Path, commit: str) -> Iterator[Path]:
    """The tree of a commit in a temporary folder.

    Raises:
      ValueError: the repository has no such commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "tree.tar"
        command = ["git", "archive", f"--output={archive}", commit]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"commit {commit!r} cannot be read: {done.stderr.strip()}")
        with tarfile.open(archive) as tar:
            tar.extractall(Path(folder) / "tree", filter="data")
        yield Path(folder) / "tree"


def room(path: str) -> str | None:
    """The room of a file; None for the few that stand in none, such as mmllm/cli.py."""
    first, _, rest = path.partition("/")
    name = rest.partition("/")[0] if first == "mmllm" else first
    return name if name in ROOMS else None


def imported(modules: Modules, path: str) -> set[str]:
    """The files of the checkout that a file imports, at its head or inside a function."""
    names = set()
    for node in _statements(modules[path].tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from a import b` means the file a/b.py where there is one, else a name in a.
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            files = {name for name in inner if _file(modules, name)}
            names |= files or {node.module}
    return {file for name in names if (file := _file(modules, name)) and file != path}


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node; expressions, which are most of a tree, are not entered."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from _statements(child)


def _file(modules: Modules, name: str) -> str | None:
    base = name.replace(".", "/")
    return next((path for path in (f"{base}.py", f"{base}/__init__.py") if path in modules), None)


def room_imports(modules: Modules) -> dict[tuple[str, str], int]:
    """(importing room, imported room) -> how many pairs of files tie them."""
    found: dict[tuple[str, str], int] = {}
    for path in modules:
        for other in imported(modules, path):
            here, there = room(path), room(other)
            if here and there and here != there:
                found[here, there] = found.get((here, there), 0) + 1
    return dict(sorted(found.items()))


def definition(module: Module, name: str) -> ast.AST | None:
    """The function, class, method ("Class.method") or module-level assignment of a name."""
    inside: ast.AST | None = module.tree
    for part in name.split("."):
        body = getattr(inside, "body", [])
        inside = next((node for node in body if part in _defined(node)), None)
    return inside


def _defined(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    return set(assigned(node))


def assigned(node: ast.AST) -> list[str]:
    """The plain names that an assignment gives a value."""
    if isinstance(node, ast.AnnAssign):
        targets: list[ast.expr] = [node.target]
    else:
        targets = node.targets if isinstance(node, ast.Assign) else []
    leaves = [leaf for target in targets for leaf in getattr(target, "elts", [target])]
    return [leaf.id for leaf in leaves if isinstance(leaf, ast.Name)]
