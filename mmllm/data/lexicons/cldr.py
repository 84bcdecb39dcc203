"""Unicode's names and keywords for emoji in twelve languages: the labels of the emoji corpus."""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmllm.data import packages

PACKAGES = ("cldr-annotations-full", "cldr-annotations-derived-full")
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "tr", "ja", "zh")
_SKIN_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")


@dataclass(frozen=True)
class Emoji:
    """One emoji: its characters, its name by language ("en" always first) and English keywords."""

    characters: str
    names: Mapping[str, str]
    keywords: tuple[str, ...]

    @property
    def name(self) -> str:
        """The English name."""
        return self.names["en"]


@cache
def emojis() -> dict[str, Emoji]:
    """Returns every emoji without skin tones, by its characters (variation selectors removed).

    Mirrored twins ("... facing right") are left out: they differ by a flip only.
    """
    tables = {language: _table(language) for language in LANGUAGES}
    found = {}
    for characters, (name, keywords) in tables["en"].items():
        if _SKIN_TONES.search(characters) or name.endswith(" facing right"):
            continue
        names = {"en": name}
        for language in LANGUAGES[1:]:
            if characters in tables[language]:
                names[language] = tables[language][characters][0]
        found[characters] = Emoji(characters, names, tuple(keywords))
    return found


@cache
def by_slug() -> dict[str, Emoji]:
    """Returns the emoji by the slug of the English name, as icon sets name their drawings."""
    return {slug(emoji.name): emoji for emoji in emojis().values()}


@cache
def by_letters() -> dict[str, Emoji]:
    """Returns the emoji by the letters of its CLDR name, or else of its Unicode name.

    Icon sets without a list of characters write both without spaces ("automatedtellermachine").
    """
    table = {slug(emoji.name).replace("-", ""): emoji for emoji in emojis().values()}
    for characters, emoji in emojis().items():
        if len(characters) == 1:  # only a single character has a Unicode name
            table.setdefault(slug(unicodedata.name(characters, "")).replace("-", ""), emoji)
    return table


def slug(name: str) -> str:
    """Returns a name as icon sets write it: "flag: Côte d’Ivoire" -> "flag-cote-divoire"."""
    # Decomposed first, so that an accent is dropped and its letter stays.
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    plain = plain.replace("&", "and").replace("'", "")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def bare(characters: str) -> str:
    """Returns the characters without variation selectors, which sources write or omit."""
    return characters.replace("\ufe0f", "").replace("\ufe0e", "")


def _table(language: str) -> dict[str, tuple[str, list[str]]]:
    """Reads one language: characters -> (name, keywords)."""
    full, derived = (packages.fetch(name) for name in PACKAGES)
    table = {}
    # In this order: where both name an emoji, the name that people gave stays.
    for path, key in (
        (derived / "annotationsDerived" / language / "annotations.json", "annotationsDerived"),
        (full / "annotations" / language / "annotations.json", "annotations"),
    ):
        for characters, entry in _annotations(path, key).items():
            name = (entry.get("tts") or [""])[0].strip()
            if name:
                # CLDR lists the name among the keywords; it is the caption already.
                keywords = [word for word in entry.get("default", []) if word != name]
                table[bare(characters)] = (name, keywords)
    return table


def _annotations(path: Path, key: str) -> dict[str, dict[str, list[str]]]:
    # Some locales are empty files without the inner key.
    content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return content.get(key, {}).get("annotations", {})
