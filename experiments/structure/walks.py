"""Walks through the code, verified: what passes through which functions, in the order it does.

A walk is a list of stops, "path:function", in walks.json: once for the tree before the redesign,
once for this one. The code of the stop before must mention the next one; where it does not, the
walk goes back to the nearest caller that does (or to the one that the list names again).

A *return* is such a going back into another file: the reader must find a place again that he had
left. A *climb* is a step against the order of the house, from one stop to the next: into a room on
the left, or inside a room from an imported file to one that imports it.
"""

import ast
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.structure import measures, source
from experiments.structure.source import Modules

WALKS = Path(__file__).parent / "walks.json"
VERSIONS = ("before", "after")


@dataclasses.dataclass(frozen=True)
class Leg:
    """One way from a start to an end.

    Attributes:
      walk: what it is a part of, such as "picture to caption".
      name: of the leg.
      stops: "path:function", each with what happens there ("" where that is not said).
      field: the config field that it follows, such as "tune.steps"; "" for none.
    """

    walk: str
    name: str
    stops: Sequence[tuple[str, str]]
    field: str = ""


def load(version: str, path: Path = WALKS) -> list[Leg]:
    """The legs of a version of the tree, "before" or "after".

    Raises:
      ValueError: a version that the file has no walks for.
    """
    versions = json.loads(path.read_text(encoding="utf-8"))
    if version not in versions:
        raise ValueError(f"walks must be of one of {', '.join(versions)}, got {version!r}")
    return [
        Leg(walk, leg["name"], [(at, does) for at, does in leg["stops"]], leg.get("field", ""))
        for walk, legs in versions[version].items()
        for leg in legs
    ]


def follow(modules: Modules, leg: Leg) -> dict[str, Any]:
    """Counts a leg's stops, files, climbs and returns.

    Raises:
      ValueError: a stop that does not exist, with where its name is found now, or one that no stop
        still open names.
    """
    entered: list[str] = []
    climbs: list[str] = []
    returns: list[str] = []
    open_: list[str] = []  # the callers that the walk can go back to, the nearest last
    for stop, _ in leg.stops:
        before = open_[-1] if open_ else ""
        goes_back = stop in open_
        open_ = _callers(modules, open_, stop)
        if before and not open_:
            raise ValueError(
                f"walk {leg.name!r}: {stop} is mentioned neither in {before} nor in a stop that "
                "leads there; mend it in walks.json"
            )
        if before and _file(before) != _file(open_[-1]):
            returns.append(f"{before} -> {open_[-1]}")
        if not goes_back:
            if entered and _is_against_the_order(modules, _file(entered[-1]), _file(stop)):
                climbs.append(f"{entered[-1]} -> {stop}")
            entered.append(stop)
            open_.append(stop)
    return {
        "walk": leg.walk,
        "leg": leg.name,
        "stops": len(entered),
        "files": len({_file(stop) for stop in entered}),
        "climbs": climbs,
        "returns": returns,
        "field": leg.field,
        "readers": readers(modules, leg.field) if leg.field else [],
    }


def _is_against_the_order(modules: Modules, file: str, other: str) -> bool:
    here, there = source.room(file), source.room(other)
    if here == there:
        return file != other and file in source.imported(modules, other)
    if here is None or there is None:
        return False
    return source.ROOMS.index(there) < source.ROOMS.index(here)


def _callers(modules: Modules, open_: Sequence[str], stop: str) -> list[str]:
    """The part of the open stops up to the one from which the walk goes on to `stop`."""
    names_of(modules, stop)  # there must be such a stop
    if stop in open_:
        return list(open_[: open_.index(stop) + 1])
    last = len(open_)
    while last and not _mentions(modules, open_[last - 1], stop):
        last -= 1
    return list(open_[:last])


def _mentions(modules: Modules, stop: str, other: str) -> bool:
    """Whether a stop's code names another, which stands in the same file or one it imports."""
    if _last(other) not in names_of(modules, stop):
        return False
    if "." in other.partition(":")[2]:
        return True  # a method of an object, which may come from anywhere
    near = {_file(stop), *source.imported(modules, _file(stop))}
    packages = [each for each in near if each.endswith("__init__.py")]
    near |= {file for each in packages for file in source.imported(modules, each)}  # handed on
    # A registry may hold a module's name and import it late.
    module = _file(other).removesuffix(".py").replace("/", ".")
    return _file(other) in near or any(f'"{module}"' in modules[each].text for each in near)


def names_of(modules: Modules, stop: str) -> set[str]:
    """The names that the code of a stop mentions.

    Raises:
      ValueError: there is no such stop; the message says where its name is defined.
    """
    file, _, name = stop.partition(":")
    node = source.definition(modules[file], name) if file in modules else None
    if node is None:
        ends = (name, _last(stop))
        found = [
            f"{path}:{end}"
            for path, module in modules.items()
            for end in dict.fromkeys(ends)
            if source.definition(module, end) is not None
        ]
        raise ValueError(f"no {stop}; the name stands at {', '.join(found) or 'no place'}")
    return measures.names_in(node)


def readers(modules: Modules, field: str) -> list[str]:
    """Files of mmllm/ that read a config field, "section.name", or an alias of its section."""
    section, _, name = field.partition(".")
    found = []
    for path, module in modules.items():
        if not path.startswith("mmllm/"):
            continue
        owners = {section, *_aliases(module.tree, section)}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and node.attr == name:
                held = node.value
                owner = held.attr if isinstance(held, ast.Attribute) else getattr(held, "id", "")
                if owner in owners and isinstance(node.ctx, ast.Load):
                    found.append(path)
                    break
    return found


def _aliases(tree: ast.AST, section: str) -> set[str]:
    """Names that get the value of `config.SECTION`."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        values = getattr(node.value, "elts", [node.value])
        for target in node.targets:
            for name, value in zip(getattr(target, "elts", [target]), values, strict=False):
                if isinstance(name, ast.Name) and getattr(value, "attr", "") == section:
                    found.add(name.id)
    return found


def _file(stop: str) -> str:
    return stop.partition(":")[0]


def _last(stop: str) -> str:
    """The name by which code mentions a stop: of a method its own, of a constructor its class."""
    *owner, name = stop.partition(":")[2].split(".")
    return owner[-1] if name == "__init__" and owner else name
