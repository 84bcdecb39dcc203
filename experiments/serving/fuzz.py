"""Throws hostile input at everything that reads what clients send, and counts what happens.

Command:  python -m experiments.serving.fuzz [--runs=250000] [--smoke] (make fuzz)
Hardware: 2 CPU cores.
Time:     3 minutes.
Writes:   experiments/results/fuzz.json

Pictures, base64, texts, Accept-Language headers and the errors that repeat them. An input is taken
or refused with a `Problem`; any other exception, a result that breaks its promise, and an input
that takes over BOUND_S seconds is a failure, and one fails the command. Each input comes from
(seed, number) alone: `--only=NUMBER` makes one again. A crash of the interpreter writes no result.
"""

import base64
import collections
import dataclasses
import io
import json
import resource
import signal
import struct
import sys
import time
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from experiments import runner
from experiments.rows import Row
from mmllm.runtime import prompts
from mmllm.serve import messages, problems
from mmllm.serve.guard import pictures, texts

BOUND_S = 20.0
MAX_EDITS = 8
SIDE = 32
MAX_CHARS = 500
SMOKE_RUNS = 600
PNG_MARK = b"\x89PNG\r\n\x1a\n"
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
SIGNS = (
    *"aZ09 \t\n\r\0\x1b\x7f\x85<>&'\"{}$%\\/+-=;,.:*?#@",
    *"\u00ad\u0301\u0327\u200b\u200c\u200d\u200e\u202e\u2028\u2066\u2069\ufeff\ufe0f\ufffe\ufffd",
    *"éßЖشक्षあ中각\u3164\U0001f469\U0001f3fd\U0001f692\U0001f3f4\U000e0067\U000e007f\ud800\udfff",
)
HEADER_PARTS = (
    "de en-US zh-Hant-TW xx * , ; ;q=0 ;q=0.5 ;q=1 ;q=nan ;q=1e999 ;q=-1 q= = - é".split()
)
TYPES = "data: DATA: image/png image/gif text/html ; base64 ,base64, http:// file:/// // = == %"
URI_PARTS = (*TYPES.split(), " ", "\n", "iVBORw0KGgo", "/9j/", "UklGR", "é", "\0", "\ud800")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run: how many inputs, from which seed, against which limits of a picture."""

    name: str = "fuzz"
    seed: int = 0
    runs: int = 250_000
    max_pixels: int = 1_000_000
    max_side: int = 4_000

    @property
    def limits(self) -> pictures.Limits:
        """Small ones, so that what is within them decodes in milliseconds."""
        return pictures.Limits(100_000, self.max_pixels, self.max_side, 1, ("JPEG", "PNG", "WEBP"))


class TooSlow(BaseException):
    """An input took longer than BOUND_S; no decoder may take this for a damaged file."""


class Broken(Exception):
    """A result that isn't what its function promises."""


def files() -> list[bytes]:
    """Small real files of every kind that is read, and of some that are not."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a camera"
    deep = Image.fromarray(rng.integers(0, 65_536, (SIDE, SIDE), np.uint16))
    clear = image.convert("RGBA")
    clear.putalpha(image.convert("L"))
    more = {"save_all": True}
    how: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((image, "JPEG", extra) for extra in ({}, {"progressive": True}, {"exif": exif})),
        *((image.convert(mode), "JPEG", {}) for mode in ("L", "CMYK")),
        *((image.convert(mode), "PNG", {}) for mode in ("RGB", "L", "LA", "1")),
        *((image, "WEBP", extra) for extra in ({}, {"lossless": True}, {"exif": exif}, more)),
        *((made, "PNG", {}) for made in (image.quantize(16), deep, clear)),
        *((image, "PNG", extra) for extra in ({"exif": exif}, more)),
        *((image, kind, more) for kind in ("MPO", "GIF", "TIFF")),
        (clear, "WEBP", {"lossless": True}),
        (image, "BMP", {}),
    ]
    made = []
    for picture, kind, extra in how:
        file = io.BytesIO()
        if extra is more:
            extra = more | {"append_images": [Image.new("RGB", image.size)]}
        # Copies: Pillow leaves the options of one encoder to the next.
        picture.copy().save(file, kind, **extra)
        made.append(file.getvalue())
    return made


def edited(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """A file with up to MAX_EDITS edits: bits, numbers, and segments cut, repeated or foreign."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, MAX_EDITS + 1))):
        size = len(changed)
        if not size:
            break
        place, length = int(rng.integers(size)), int(2 ** rng.uniform(0, 8))
        match int(rng.integers(8)):
            case 0:
                changed[place] ^= 1 << int(rng.integers(8))
            case 1:
                changed[place] = int(rng.integers(256))
            case 2:
                width = int(rng.choice((1, 2, 4)))
                number = int(rng.choice(NUMBERS)) & (256**width - 1)
                order = "little" if rng.integers(2) else "big"
                changed[place : place + width] = number.to_bytes(width, order)
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place:place] = changed[place : place + length] * int(rng.integers(1, 20))
            case 5:
                changed[place:place] = rng.bytes(length)
            case 6:
                start = int(rng.integers(len(other)))
                changed[place : place + length] = other[start : start + length]
            case 7:
                # Cuts near the end are the likelier accident.
                del changed[-length if rng.integers(4) else place :]
    return bytes(changed)


def repaired(data: bytes) -> bytes:
    """A PNG with the right checksums and a WebP with the right size, to get past the first look."""
    if data[:4] == b"RIFF" and len(data) > 8:
        return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    if not data.startswith(PNG_MARK):
        return data
    fixed, place = bytearray(data), len(PNG_MARK)
    while place + 12 <= len(fixed):
        end = place + 8 + int.from_bytes(fixed[place : place + 4])
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[place + 4 : end]))
        place = end + 4
    return bytes(fixed)


class Fuzzer:
    """Makes inputs and judges what becomes of them.

    Args:
      plan: the run.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._limits, self._files = plan, plan.limits, files()
        self.targets: dict[str, tuple[float, Callable[[np.random.Generator], None]]] = {
            "pictures": (0.6, self._picture),
            "base64": (0.1, self._base64),
            "texts": (0.15, self._text),
            "Accept-Language": (0.08, self._header),
            "errors": (0.07, self._error),
        }

    def once(self, number: int) -> tuple[str, str]:
        """Runs one input.

        Returns:
          Its target, and "accepted" or the code of the problem.

        Raises:
          Exception: whatever else the target raises.
        """
        rng = np.random.default_rng((self._plan.seed, number))
        names, weights = zip(
            *((name, part) for name, (part, _) in self.targets.items()), strict=True
        )
        name = str(rng.choice(names, p=weights))
        try:
            self.targets[name][1](rng)
        except problems.Problem as problem:
            problems.document(problem, str(rng.choice(messages.LANGUAGES)))
            return name, problem.code
        return name, "accepted"

    def _file(self, rng: np.random.Generator) -> bytes:
        one, other = (self._files[i] for i in rng.integers(len(self._files), size=2))
        kind = rng.integers(20)
        if kind == 0:
            return rng.bytes(int(rng.integers(200)))
        if kind == 1:
            return one[: int(rng.integers(1, 40))] + rng.bytes(int(rng.integers(200)))
        if kind == 2:
            return one
        data = edited(rng, one, other)
        return repaired(data) if rng.integers(2) else data

    def _picture(self, rng: np.random.Generator) -> None:
        found = pictures.decode(self._file(rng), self._limits)
        size = found.width * found.height
        if found.image.mode != "RGB" or found.image.info or not 0 < size <= self._plan.max_pixels:
            raise Broken(f"{found.image.mode} {found.image.size} {found.image.info}")

    def _base64(self, rng: np.random.Generator) -> None:
        text = base64.b64encode(self._file(rng)).decode()
        if rng.integers(2):
            text = "data:image/png;base64," + text
        if rng.integers(4):
            place = int(rng.integers(len(text) + 1)) * int(rng.integers(2))
            text = text[:place] + "".join(rng.choice(URI_PARTS, rng.integers(4))) + text[place:]
        data = pictures.from_data_uri(text, self._limits)
        if not 0 < len(data) <= self._limits.max_bytes:
            raise Broken(f"{len(data)} bytes")
        pictures.decode(data, self._limits)

    def _text(self, rng: np.random.Generator) -> None:
        length = int(2 ** rng.uniform(0, 13))
        signs = rng.choice(len(SIGNS), int(rng.integers(1, len(SIGNS))))
        drawn = (SIGNS[signs[i]] for i in rng.integers(len(signs), size=length))
        text = "".join(drawn) if rng.integers(3) else _any_text(rng, length)
        cleaned = texts.clean("text", text, MAX_CHARS)
        if not unicodedata.is_normalized("NFC", cleaned) or len(cleaned) > MAX_CHARS:
            raise Broken(ascii(cleaned))
        if prompts.checked_text("text", cleaned) != cleaned:
            raise Broken(ascii(cleaned))

    def _header(self, rng: np.random.Generator) -> None:
        parts = rng.choice(HEADER_PARTS, int(rng.integers(60)))
        header = "".join(parts) if rng.integers(3) else _any_text(rng, int(rng.integers(2000)))
        if messages.negotiate(header) not in messages.LANGUAGES:
            raise Broken(ascii(header))

    def _error(self, rng: np.random.Generator) -> None:
        written = [_any_text(rng, int(rng.integers(200))) for _ in range(3)]
        problem = problems.Problem("invalid-field", field=written[0], reason=written[1])
        language = str(rng.choice(messages.LANGUAGES))
        body = bytes(problems.response(problem, language, "id", "/" + written[2]).body)
        if set(body) & set(b"<>&") or json.loads(body)["status"] != 422:
            raise Broken(repr(body))


def _any_text(rng: np.random.Generator, length: int) -> str:
    """Code points of any plane, lone surrogates among them."""
    highest = int(rng.choice((0x7F, 0x250, 0x3000, 0xFFFF, 0x10FFFF)))
    return "".join(map(chr, rng.integers(0, highest + 1, length).tolist()))


def _expire(*_: object) -> None:
    raise TooSlow


def run(plan: Plan, numbers: Iterator[int]) -> dict[str, Any]:
    """Runs inputs and returns {"inputs", "targets", "failures", "peak_rss_mb"}."""
    fuzzer = Fuzzer(plan)
    outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    slowest: dict[str, float] = collections.defaultdict(float)
    failures: list[dict[str, Any]] = []
    before = signal.signal(signal.SIGALRM, _expire)
    try:
        for number in numbers:
            started = time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, BOUND_S)
            try:
                target, outcome = fuzzer.once(number)
            except (Exception, TooSlow) as error:
                failures.append(
                    {"number": number, "error": f"{type(error).__name__}: {error}"[:300]}
                )
                target, outcome = "failed", type(error).__name__
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            outcomes[target][outcome] += 1
            slowest[target] = max(slowest[target], time.perf_counter() - started)
    finally:
        signal.signal(signal.SIGALRM, before)
    rows = [
        {
            "target": target,
            "inputs": counts.total(),
            "accepted": counts.pop("accepted", 0),
            "refused": dict(counts.most_common()),
            "slowest_ms": round(1e3 * slowest[target], 1),
        }
        for target, counts in sorted(outcomes.items())
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    inputs = sum(row["inputs"] for row in rows)
    return {"inputs": inputs, "targets": rows, "failures": failures, "peak_rss_mb": round(peak)}


def main() -> int:
    """Runs all inputs, or one; the exit code is 1 if any failed."""
    parser = runner.parser(__doc__)
    parser.add_argument("--runs", type=int, default=Plan.runs)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one input; its error is raised")
    args = parser.parse_args()
    plan = Plan(seed=args.seed, runs=SMOKE_RUNS if args.smoke else args.runs)
    if args.only is not None:
        print(*Fuzzer(plan).once(args.only))
        return 0
    failures: list[dict[str, Any]] = []

    def figures(_: Row) -> dict[str, Any]:
        found = run(plan, iter(range(plan.runs)))
        for each in found["targets"]:
            print(each["target"], each["inputs"], "inputs,", each["accepted"], "accepted")
        failures.extend(found["failures"])
        return found

    row = Row(name=plan.name, config=plan, seed=plan.seed)
    runner.run("fuzz", [row], figures, smoke=args.smoke)
    for failure in failures[:20]:
        print("FAILED", failure["number"], failure["error"], file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
