"""Draws docs/architecture.svg from the imports; writes walks and figures into the page beside it.

Command:  python -m experiments.architecture
Hardware: any; only the source is read.
Time:     a second.

The rooms stand on a diagonal, in the order in which they may import. Each row is what a room
imports, each column who imports it: all of it lies below the diagonal, or the order is broken.
"""

import colorsys
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.structure import source, walks
from experiments.tables import structure
from mmllm.common import paths

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE, PICTURE = Path("docs/architecture.md"), Path("docs/architecture.svg")
RESULT = Path("experiments/results/structure.json")
WALK = re.compile(r"(<!-- walk:([a-z ]+) -->\n).*?(<!-- /walk -->)", re.DOTALL)
TABLE = re.compile(r"(<!-- table:structure -->\n).*?(<!-- /table -->)", re.DOTALL)
DRIFT = 0.1  # of a count, before the picture is called stale: not every commit need redraw it

# Pixels.
STEP_X, STEP_Y = 88, 60
BOX_WIDTH, BOX_HEIGHT = 142, 46
MARGIN = 28
HEAD = 9  # of an arrow
TEXT_LEFT, TEXT_TOP = 640, 58

INK, PALE_INK, LANE, PAPER = "#1f2933", "#616e7c", "#dfe4ea", "#ffffff"
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif"
LEGEND = (
    "Along a row to the left: what a room imports.",
    "Up an arrow: the room that is imported.",
    "In a circle: how many pairs of files tie the two.",
    "Dashed: tied by no import; read as a file.",
    "No room imports from its right, so this corner is empty.",
)


def facts(root: Path = REPOSITORY) -> dict[str, Any]:
    """What the picture shows: {"rooms": {name: [files, lines]}, "imports": {"a to b": pairs}}."""
    modules = source.read(root, "mmllm", "configs")
    held = {
        room: [m for m in modules.values() if source.room(m.path) == room] for room in source.ROOMS
    }
    return {
        "rooms": {
            room: [
                sum(not each.path.endswith("__init__.py") for each in found),
                sum(each.lines for each in found),
            ]
            for room, found in held.items()
            if found
        },
        "imports": {f"{a} to {b}": n for (a, b), n in source.room_imports(modules).items()},
    }


def differences(drawn: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What makes a picture stale: a room or an arrow more or less, or a count that drifted."""
    found = []
    for kind in ("rooms", "imports"):
        found += [f"{name} is not drawn" for name in now[kind] if name not in drawn[kind]]
        found += [f"{name} is no more" for name in drawn[kind] if name not in now[kind]]
        for name in drawn[kind].keys() & now[kind].keys():
            pairs = zip(_numbers(drawn[kind][name]), _numbers(now[kind][name]), strict=True)
            if any(abs(old - new) > max(2, DRIFT * old) for old, new in pairs):
                found.append(f"{name}: {drawn[kind][name]} is now {now[kind][name]}")
    return sorted(found)


def _numbers(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


def drawn_facts(svg: str) -> dict[str, Any]:
    """The facts that a picture was drawn from."""
    found = re.search(r"<!-- facts (.*?) -->", svg, re.DOTALL)
    if found is None:
        raise ValueError(f"{PICTURE} holds no facts; draw it: make architecture")
    return json.loads(found[1])


def _colour(place: float, light: float, strength: float) -> str:
    """From blue at 0 over green to amber at 1."""
    hue = (228 - 190 * place) / 360
    red, green, blue = colorsys.hls_to_rgb(hue, light, strength)
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))


def _width(pairs: int) -> float:
    """Of a lane that so many imports flow through."""
    return 1.2 + 0.85 * pairs**0.5


def draw(data: Mapping[str, Any]) -> str:
    """The picture as SVG."""
    rooms = list(data["rooms"])
    tied = {tuple(name.split(" to ")): count for name, count in data["imports"].items()}
    x = {room: MARGIN + BOX_WIDTH / 2 + STEP_X * place for place, room in enumerate(rooms)}
    y = {room: MARGIN + BOX_HEIGHT / 2 + STEP_Y * place for place, room in enumerate(rooms)}
    shade = {room: place / max(1, len(rooms) - 1) for place, room in enumerate(rooms)}
    width = x[rooms[-1]] + BOX_WIDTH / 2 + MARGIN
    height = y[rooms[-1]] + BOX_HEIGHT / 2 + MARGIN
    rows, columns, circles, boxes = [], [], [], []
    for room in rooms:
        left = sorted((x[other], tied[room, other]) for other in rooms if (room, other) in tied)
        rows += _row(x[room] - BOX_WIDTH / 2, y[room], left)
        below = sorted(
            ((y[other], tied[other, room]) for other in rooms if (other, room) in tied),
            reverse=True,
        )
        columns += _column(
            x[room], y[room] + BOX_HEIGHT / 2, below, _colour(shade[room], 0.79, 0.42)
        )
        circles += [
            _circle(x[room], at, count, _colour(shade[room], 0.36, 0.42)) for at, count in below
        ]
        fill, is_tied = _colour(shade[room], 0.4, 0.4), any(room in pair for pair in tied)
        boxes.append(_box(room, x[room], y[room], data["rooms"][room], fill, tied=is_tied))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" font-family="{FONT}" role="img" '
            'aria-label="The rooms of mmllm and what each imports">',
            f"<!-- facts {json.dumps(data)} -->",
            f'<rect width="{width:g}" height="{height:g}" rx="10" fill="{PAPER}"/>',
            *rows,
            *columns,
            *circles,
            *boxes,
            *_legend(),
            "</svg>\n",
        ]
    )


def _row(start: float, y: float, joints: Sequence[tuple[float, int]]) -> list[str]:
    """The lane from a box to the left, thinner behind each column that it serves."""
    lines, right = [], start
    for place in range(len(joints) - 1, -1, -1):
        left, flow = joints[place][0], sum(count for _, count in joints[: place + 1])
        lines.append(_line(right, y, left, y, LANE, _width(flow)))
        right = left
    return lines


def _column(x: float, top: float, joints: Sequence[tuple[float, int]], colour: str) -> list[str]:
    """The arrow up into a box, thicker above each row that joins it."""
    if not joints:
        return []
    lines, flow = [], 0
    ends = [*(y for y, _ in joints[1:]), top + HEAD]
    for (low, count), high in zip(joints, ends, strict=True):
        flow += count
        lines.append(_line(x, low, x, high, colour, _width(flow)))
    half = HEAD / 2 + _width(flow) / 2
    lines.append(
        f'<path d="M{x - half:g} {top + HEAD:g}L{x + half:g} {top + HEAD:g}L{x:g} {top:g}Z" '
        f'fill="{colour}"/>'
    )
    return lines


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    return (
        f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{colour}" stroke-width="{width:.1f}" '
        'stroke-linecap="round"/>'
    )


def _circle(x: float, y: float, count: int, colour: str) -> str:
    radius = 9 + 0.9 * count**0.5
    return (
        f'<circle cx="{x:g}" cy="{y:g}" r="{radius:.1f}" fill="{PAPER}" stroke="{colour}" '
        f'stroke-width="1.6"/>{_text(x, y + 4, str(count), 12, colour, "middle", 600)}'
    )


def _box(room: str, x: float, y: float, sizes: Sequence[int], colour: str, *, tied: bool) -> str:
    files, lines = sizes
    fill, ink = (colour, PAPER) if tied else (PAPER, colour)
    dashes = "" if tied else ' stroke-dasharray="5 4"'
    return (
        f'<rect x="{x - BOX_WIDTH / 2:g}" y="{y - BOX_HEIGHT / 2:g}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="7" fill="{fill}" stroke="{colour}" stroke-width="1.5"{dashes}/>'
        f"{_text(x, y - 2, room, 17, ink, 'middle', 600)}"
        f"{_text(x, y + 15, f'{files} files · {lines:,} lines', 12, ink, 'middle', 400)}"
    )


def _legend() -> list[str]:
    title = _text(TEXT_LEFT, TEXT_TOP, "The rooms of mmllm", 25, INK, "start", 600)
    lines = [
        _text(TEXT_LEFT, TEXT_TOP + 34 + 24 * place, line, 16, PALE_INK, "start", 400)
        for place, line in enumerate(LEGEND)
    ]
    return [title, *lines]


def _text(x: float, y: float, text: str, size: float, colour: str, anchor: str, weight: int) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{text}</text>'
    )


def walk_lines(legs: Sequence[walks.Leg], walk: str) -> str:
    """The first leg of a walk as a list, a number for each visit to a file.

    Stops without a description are passed over.

    Raises:
      ValueError: no such walk.
    """
    named = [leg for leg in legs if leg.walk == walk]
    if not named:
        raise ValueError(f"walk must be one of {sorted({leg.walk for leg in legs})}, got {walk!r}")
    described = [(*stop.split(":"), does) for stop, does in named[0].stops if does]
    lines = []
    for path, visit in itertools.groupby(described, key=lambda stop: stop[0]):
        steps = "; ".join(f"`{name.rpartition('.')[2]}` {does}" for _, name, does in visit)
        shown = f"[`{path.removeprefix('mmllm/')}`](../{path})"
        lines.append(f"{len(lines) + 1}. {shown}: {steps}\n")
    return "".join(lines)


def render(page: str, legs: Sequence[walks.Leg], result: Mapping[str, Any]) -> str:
    """The page with its marked walks, and the table of a result, written anew."""
    page = WALK.sub(lambda m: f"{m[1]}\n{walk_lines(legs, m[2])}\n{m[3]}", page)
    return TABLE.sub(lambda m: f"{m[1]}{structure.table([result])}{m[2]}", page)


def page_now(root: Path = REPOSITORY) -> str:
    """The page as it should be."""
    page = (root / PAGE).read_text(encoding="utf-8")
    result = json.loads((root / RESULT).read_text(encoding="utf-8"))
    return render(page, walks.load("after"), result)


def main(root: Path = REPOSITORY) -> int:
    """Draws the picture and rewrites the marked parts of the page."""
    texts = {PICTURE: draw(facts(root)), PAGE: page_now(root)}
    for name, text in texts.items():
        with paths.written_whole(root / name) as partial:
            partial.write_text(text, encoding="utf-8")
    print(f"written: {', '.join(map(str, texts))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
