"""Counts of a checkout: sizes, comments, public names, numbers that no config knows, copies.

Each rule is written down where it is applied; what is judged by hand is listed by file and line.
"""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from experiments.structure import source
from experiments.structure.source import Module, Modules

MAX_FILES = 15
COPIED_LINES = 6
PLAIN_NUMBERS = (0, 1, 2, -1)
SHAPING = ("reshape", "transpose", "moveaxis")
NUMBERED_ROOMS = ("train", "data", "models")
# What tools read is no comment for people.
DIRECTIVE = re.compile(r"#\s*(noqa|type:|pyrefly:|pragma:|fmt:|nosec)")
QUIET = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def folders(modules: Modules) -> list[dict[str, Any]]:
    """Files (without __init__.py) and lines of each folder at one level, and its longest file."""
    found: dict[str, list[Module]] = defaultdict(list)
    for module in modules.values():
        found[module.folder].append(module)
    rows = []
    for folder, held in sorted(found.items()):
        longest = max(held, key=lambda module: module.lines)
        rows.append(
            {
                "folder": folder,
                "files": sum(not module.path.endswith("__init__.py") for module in held),
                "lines": sum(module.lines for module in held),
                "longest": longest.path,
                "longest_lines": longest.lines,
            }
        )
    return rows


def docstring_lines(tree: ast.AST) -> set[int]:
    """Numbers of the lines that bare strings take: docstrings, and those below an assignment."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            lines |= set(range(value.lineno, (value.end_lineno or value.lineno) + 1))
    return lines


def comments(module: Module) -> dict[str, int]:
    """Lines with a comment, lines of code and lines of docstrings; a line may be two of these."""
    commented, code, strings = set(), set(), docstring_lines(module.tree)
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        lines = range(token.start[0], token.end[0] + 1)
        if token.type == tokenize.COMMENT and not DIRECTIVE.match(token.string):
            commented.add(token.start[0])
        elif token.type not in QUIET:
            code |= set(lines) - strings
    return {"comment": len(commented), "code": len(code), "docstring": len(strings)}


def comments_by_folder(modules: Modules) -> dict[str, dict[str, int]]:
    """`comments`, summed over each folder."""
    found: dict[str, dict[str, int]] = {}
    for module in modules.values():
        sums = found.setdefault(module.folder, {"comment": 0, "code": 0, "docstring": 0})
        for kind, count in comments(module).items():
            sums[kind] += count
    return dict(sorted(found.items()))


def public_names(modules: Modules) -> dict[str, int]:
    """Functions, classes and constants of modules without an underscore; methods apart."""
    found = {"functions": 0, "classes": 0, "constants": 0, "methods": 0}
    for module in modules.values():
        for node in module.tree.body:
            found["constants"] += sum(name[0] != "_" for name in source.assigned(node))
            if isinstance(node, ast.ClassDef) and node.name[0] != "_":
                found["classes"] += 1
                found["methods"] += sum(_is_public_function(inner) for inner in node.body)
            found["functions"] += _is_public_function(node)
    return found


def _is_public_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_"


def numbers(modules: Modules) -> dict[str, list[str]]:
    """Numbers outside configs, room by room, as "path:line: text of the line".

    In train/, data/ and models/: numbers in module-level UPPER_CASE constants. In train/ also every
    number inside a function. Not counted: -1, 0, 1 and 2, places in a subscript, shapes and orders
    of axes, what an f-string prints, and lines of a constant beyond its first.
    """
    found: dict[str, list[str]] = {room: [] for room in NUMBERED_ROOMS}
    for module in modules.values():
        room = source.room(module.path)
        if room not in found:
            continue
        lines = {
            node.lineno
            for node in module.tree.body
            if any(name.isupper() for name in source.assigned(node)) and any(_literals(node))
        }
        if room == "train":
            for node in module.tree.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    lines |= set(_literals(node))
        text = module.text.splitlines()
        found[room] += [f"{module.path}:{n}: {text[n - 1].strip()}" for n in sorted(lines)]
    return found


def _literals(node: ast.AST) -> Iterator[int]:
    """Lines of the numbers below a node that the rule of `numbers` counts."""
    shapes = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in SHAPING
    if shapes or isinstance(node, ast.JoinedStr):
        return
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        if node.value not in PLAIN_NUMBERS:
            yield node.lineno
        return
    for name, value in ast.iter_fields(node):
        if isinstance(node, ast.Subscript) and name == "slice":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _literals(child)


def _significant(module: Module) -> list[tuple[int, str]]:
    """Numbered lines, stripped, but for blanks, comments, strings, imports and lone brackets."""
    skipped = docstring_lines(module.tree)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    stripped = ((number, line.strip()) for number, line in enumerate(module.text.splitlines(), 1))
    return [
        (number, line)
        for number, line in stripped
        if number not in skipped and not line.startswith("#") and re.search(r"\w", line)
    ]


def copies(modules: Modules) -> list[dict[str, Any]]:
    """Pairs of places that share COPIED_LINES or more equal lines in a row, the longest first."""
    held = {path: _significant(module) for path, module in modules.items()}
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for path, lines in held.items():
        for first in range(len(lines) - COPIED_LINES + 1):
            window = tuple(line for _, line in lines[first : first + COPIED_LINES])
            places[window].append((path, first))

    def same(a: tuple[str, int], b: tuple[str, int], step: int) -> bool:
        i, j = a[1] + step, b[1] + step
        inside = min(i, j) >= 0 and i < len(held[a[0]]) and j < len(held[b[0]])
        return inside and held[a[0]][i][1] == held[b[0]][j][1]

    found = []
    for group in places.values():
        for count, a in enumerate(group):
            for b in group[count + 1 :]:
                if same(a, b, -1):
                    continue  # a part of a longer copy, which is found from its first line
                length = COPIED_LINES
                while same(a, b, length):
                    length += 1
                where = [f"{path}:{held[path][first][0]}" for path, first in (a, b)]
                found.append({"places": where, "lines": length})
    return sorted(found, key=lambda copy: (-copy["lines"], copy["places"]))


def users(modules: Modules, *names: str) -> list[str]:
    """Outermost functions and methods that mention one of some dotted names, "optax.adamw" say."""
    found = []
    for module in modules.values():
        for node in module.tree.body:
            owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
            for each in node.body if isinstance(node, ast.ClassDef) else [node]:
                if isinstance(each, ast.FunctionDef) and not _dotted(each).isdisjoint(names):
                    found.append(f"{module.path}:{owner}{each.name}")
    return found


def _dotted(node: ast.AST) -> set[str]:
    """The dotted names of two parts below a node."""
    return {
        f"{each.value.id}.{each.attr}"
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name)
    }


def names_in(node: ast.AST) -> set[str]:
    """Names and attributes that the code below a node mentions."""
    plain = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return plain | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
