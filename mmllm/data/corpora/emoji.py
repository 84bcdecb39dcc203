"""The emoji corpus: one name, drawn by up to nine art families, named in twelve languages.

Seven families under permissive licences are for training; OpenMoji and Streamline, by artists the
model never sees, are for tests only. Source of the drawings: the icon sets' npm packages; of the
names and keywords: CLDR.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mmllm.data import packages, splits
from mmllm.data.corpora import drawings
from mmllm.data.lexicons import cldr

FAMILIES = (
    "noto",
    "noto-v1",
    "twemoji",
    "fluent-emoji",
    "fluent-emoji-flat",
    "emojione",
    "fxemoji",
    "openmoji",
    "streamline-emojis",
)
PACKAGES = tuple(f"@iconify-json/{family}" for family in FAMILIES) + cldr.PACKAGES
PROGRAMS = (drawings.RENDERER,)
SPLITS = ("train", "val", "style_out", "concept_out", "style_concept_out")
MAX_REFUSED_SHARE = 0.01  # a few icons cannot be drawn; more mean a broken renderer


@dataclass(frozen=True)
class Drawing:
    """One icon of one family with the emoji it shows."""

    family: str
    icon: str
    emoji: cldr.Emoji
    svg: str

    @property
    def concept(self) -> str:
        """The emoji's English name in lower case."""
        return self.emoji.name.lower()

    @property
    def key(self) -> str:
        """A name unique in the corpus."""
        return f"{self.family}/{self.icon}"


class Emoji(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the emoji corpus."""

    VERSION = tfds.core.Version("1.1.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Emoji drawn by nine art families, with CLDR names in 12 languages.",
            features=drawings.features(),
            license="Apache-2.0, MIT, CC-BY-4.0; tests also CC-BY-SA-4.0; names Unicode-3.0",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        packages.require(drawings.RENDERER)
        by_split = split_drawings(drawings_of(family) for family in FAMILIES)
        return {name: self._generate_examples(rows) for name, rows in by_split.items() if rows}

    def _generate_examples(self, rows: list[Drawing]) -> Iterator[tuple[str, dict[str, Any]]]:
        refused = []
        images = drawings.mapped(lambda drawing: drawings.try_render(drawing.svg), rows)
        for drawing, image in zip(rows, images, strict=True):
            if image is None:
                refused.append(drawing.key)
                continue
            yield (
                drawing.key,
                drawings.record(
                    image=image,
                    key=drawing.key,
                    concept=drawing.concept,
                    family=drawing.family,
                    package=packages.PACKAGES[f"@iconify-json/{drawing.family}"],
                    captions=dict(drawing.emoji.names),
                    keywords=drawing.emoji.keywords,
                ),
            )
        if len(refused) > MAX_REFUSED_SHARE * len(rows):
            raise ValueError(
                f"{drawings.RENDERER} refused {len(refused)} of {len(rows)} drawings, e.g. "
                f"{refused[0]}; is this librsvg older than 2.50, or the disk full?"
            )


def split_drawings(families: Iterable[list[Drawing]]) -> dict[str, list[Drawing]]:
    """Returns the drawings of each split; style_out keeps only names that training shows."""
    by_split: dict[str, list[Drawing]] = {name: [] for name in SPLITS}
    for drawings_of_family in families:
        for drawing in drawings_of_family:
            split = splits.emoji_split(drawing.concept, drawing.family)
            if split is not None:
                by_split[split].append(drawing)
    # Its test is of new artists alone, so the names must be known ones.
    seen = {drawing.concept for drawing in by_split["train"]}
    by_split["style_out"] = [row for row in by_split["style_out"] if row.concept in seen]
    return by_split


def drawings_of(family: str) -> list[Drawing]:
    """Returns the drawings of a family that show a named emoji, one for each name."""
    folder = packages.fetch(f"@iconify-json/{family}")
    content = json.loads((folder / "icons.json").read_text("utf-8"))
    aliases: dict[str, list[str]] = {}
    for alias, entry in content.get("aliases", {}).items():
        aliases.setdefault(entry["parent"], []).append(alias)
    shown = icon_emojis(folder)
    found: dict[str, Drawing] = {}
    for icon, entry in content["icons"].items():
        if entry.get("hidden"):  # withdrawn from the set, and there for old links only
            continue
        # Sets name icons in their own way; often an alias is the CLDR name.
        names = [icon, *aliases.get(icon, [])]
        emoji = next((e for name in names if (e := shown.get(name) or emoji_of(name))), None)
        if emoji is None and not shown:
            emoji = cldr.by_letters().get(icon)
        # The first of several icons of one emoji; the others are variants of it.
        if emoji is not None and emoji.name not in found:
            svg = svg_of(entry, content)
            found[emoji.name] = Drawing(family, icon, emoji, svg)
    return list(found.values())


def icon_emojis(folder: Path) -> dict[str, cldr.Emoji]:
    """Returns icon name -> emoji where the package itself lists the characters."""
    listed = json.loads((folder / "chars.json").read_text("utf-8"))
    table = cldr.emojis()
    found = {}
    for codes, icon in listed.items():
        characters = cldr.bare("".join(chr(int(code, 16)) for code in codes.split("-")))
        if characters in table:
            found[icon] = table[characters]
    return found


def emoji_of(icon: str) -> cldr.Emoji | None:
    """Returns the emoji that an icon's name names, or None ("flag-for-japan": flag: Japan)."""
    name = re.sub("^flag-for-(flag-)?", "flag-", icon)
    table = cldr.by_slug()
    return table.get(icon) or table.get(name)


def svg_of(icon: dict[str, Any], defaults: dict[str, Any]) -> str:
    """Returns an icon of an icon set as an SVG document.

    Source: Iconify JSON schema (left, top, width, height; the set's values are the defaults).
    """
    left, top = (icon.get(name, defaults.get(name, 0)) for name in ("left", "top"))
    width, height = (icon.get(name, defaults.get(name, 16)) for name in ("width", "height"))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">'
        f"{icon['body']}</svg>"
    )
