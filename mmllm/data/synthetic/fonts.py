"""The fonts that text is drawn with: their families, their split, and where the files lie.

font_families.txt lists families whose glyphs cover the letters and differ from one another. A
lineage is one design under several names (Nimbus Sans, FreeSans, Liberation Sans): it falls on one
side of the split as a whole. Used by the text-line and composite corpora.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mmllm.data import packages, splits

KINDS = ("print", "script", "display")
SPLITS = ("train", "unseen_print", "unseen_script")


@dataclass(frozen=True)
class Family:
    """One font family.

    Attributes:
      kind: "print", "script" (handwriting and calligraphy) or "display" (posters, pixels).
      lineage: the design it belongs to; the split goes by it.
      name: what a person calls it.
      upper: it has no small letters, so text is drawn in capitals.
      missing: the printable ASCII characters that it cannot draw.
      package: key of packages.PACKAGES.
      files: paths of its styles below the unpacked package.
    """

    kind: str
    lineage: str
    name: str
    upper: bool
    missing: str
    package: str
    files: tuple[str, ...]

    @property
    def split(self) -> str:
        """One of SPLITS; display faces are always for training."""
        # The tests are of print and of handwriting; there is none of posters.
        if self.kind == "display" or splits.font_split(self.lineage) == splits.TRAIN:
            return "train"
        return f"unseen_{self.kind}"

    def can_draw(self, text: str) -> bool:
        """Whether each character of the text is in the font."""
        return not set(text) & set(self.missing)

    def paths(self) -> list[Path]:
        """Returns the font files, fetching the package where needed."""
        root = packages.fetch(self.package)
        return [root / file for file in self.files]


@functools.cache
def families() -> tuple[Family, ...]:
    """Returns every family of font_families.txt."""
    text = resources.files("mmllm.data.synthetic").joinpath("font_families.txt").read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return tuple(
        Family(kind, lineage, name, case == "upper", missing, package, tuple(files.split(";")))
        for kind, lineage, name, case, missing, package, files in rows
    )


def in_split(split: str) -> list[Family]:
    """Returns the families of one of SPLITS.

    Raises:
      ValueError: an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"font split {split!r} is unknown; allowed: {', '.join(SPLITS)}")
    return [family for family in families() if family.split == split]


def by_lineage(chosen: Sequence[Family]) -> dict[str, list[list[Family]]]:
    """Returns kind -> lineages -> families, so that a draw can give each design the same weight."""
    grouped: dict[str, dict[str, list[Family]]] = {}
    for family in chosen:
        grouped.setdefault(family.kind, {}).setdefault(family.lineage, []).append(family)
    return {kind: list(lineages.values()) for kind, lineages in grouped.items()}


def package_names() -> tuple[str, ...]:
    """Returns the packages that hold the families, sorted."""
    return tuple(sorted({family.package for family in families()}))
