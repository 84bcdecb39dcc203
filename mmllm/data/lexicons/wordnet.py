"""English nouns and their meanings from WordNet 3.0: extra text for the text tower to learn from.

`train` embeds 'lemma: gloss' with the sentence teacher, so that the text tower also learns words
that no picture shows.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from mmllm.data import packages

PACKAGE = "wordnet-base"
FOLDER = "usr/share/wordnet"


# Noun categories by lexicographer file number. Source: WordNet's manual page lexnames(5WN).
CATEGORIES: dict[str, int] = dict(
    zip(
        (
            "tops act animal artifact attribute body cognition communication event feeling food "
            "group location motive object person phenomenon plant possession process quantity "
            "relation shape state substance time"
        ).split(),
        range(3, 29),
        strict=True,
    )
)
PICTURABLE = ("animal", "artifact", "body", "food", "object", "phenomenon", "plant", "shape")


def noun_glosses(
    max_senses: int = 1, categories: Collection[str] = tuple(CATEGORIES)
) -> list[tuple[str, str]]:
    """Returns noun lemmas with the definitions of their commonest senses.

    Args:
      max_senses: senses kept for each lemma, the most frequent first; a lemma whose commonest
        senses all lie outside `categories` is left out.
      categories: keys of CATEGORIES, e.g. PICTURABLE.

    Returns:
      (lemma, gloss) pairs in the order of the index, 117,798 with one sense a lemma and all
      categories; lemmas have spaces instead of underscores, glosses no usage examples.

    Raises:
      ValueError: max_senses below 1, an unknown category, or a database that does not read as
        WordNet's.

    Source: WordNet 3.0, Princeton University; the formats stand in its manual page wndb(5WN).
    """
    folder = packages.fetch(PACKAGE) / FOLDER
    return read_glosses(folder / "index.noun", folder / "data.noun", max_senses, categories)


def read_glosses(
    index: Path, data: Path, max_senses: int = 1, categories: Collection[str] = tuple(CATEGORIES)
) -> list[tuple[str, str]]:
    """Reads an index and a data file of nouns; `noun_glosses` says what comes back."""
    if max_senses < 1:
        raise ValueError(f"max_senses must be at least 1, got {max_senses}.")
    unknown = sorted(set(categories) - set(CATEGORIES))
    if unknown:
        raise ValueError(f"categories {unknown} are unknown; allowed: {', '.join(CATEGORIES)}.")
    chosen = {CATEGORIES[name] for name in categories}
    for path in (index, data):
        if not path.is_file():
            raise ValueError(
                f"{path} is missing; delete the folder of {PACKAGE} and fetch it again."
            )
    synsets = _synsets(data)
    pairs = []
    for line in _records(index):
        lemma, senses = _index_record(line, index)
        for offset in senses[:max_senses]:
            if offset not in synsets:
                raise ValueError(
                    f"{data} has no record at {offset}, named by {lemma!r} in {index}."
                )
            # The index has lower case alone; capitals ("Paris") stand in the data file.
            category, spelling, gloss = synsets[offset]
            if category in chosen:
                pairs.append((spelling.get(lemma, lemma).replace("_", " "), gloss))
    return pairs


def definition(gloss: str) -> str:
    """Returns a gloss without its quoted usage examples and leading remarks in brackets."""
    without_examples = re.sub(r'\s*[;:]?\s*"[^"]*"?(\s*-\s*[^;"]*)?', "", gloss)
    without_remarks = re.sub(r"^(\([^)]*\)\s*)+(?=\S)", "", without_examples.strip())
    return without_remarks.strip(" ;:") or gloss.strip()


def _records(path: Path) -> Iterable[str]:
    """Yields the lines after the licence, which is indented."""
    with path.open(encoding="utf-8") as lines:
        yield from (line for line in lines if not line.startswith(" "))


def _index_record(line: str, path: Path) -> tuple[str, list[str]]:
    """Splits 'lemma pos synset_cnt p_cnt [pointer...] sense_cnt tagsense_cnt offset...'."""
    fields = line.split()
    try:
        count, pointers = int(fields[2]), int(fields[3])
        senses = fields[6 + pointers :]
        # The pointers are of varying number: a miscount would take counts for offsets.
        if len(senses) != count:
            raise IndexError
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path} holds a line that is no index record: {line[:80]!r}.") from error
    return fields[0], senses


def _synsets(path: Path) -> dict[str, tuple[int, dict[str, str], str]]:
    """Reads offset -> (category, spelling with capitals by lower-case lemma, definition)."""
    synsets = {}
    for line in _records(path):
        record, bar, gloss = line.partition(" | ")
        fields = record.split()
        try:
            category = int(fields[1])
            # The count is hexadecimal, and each word is followed by its sense number.
            words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        except (IndexError, ValueError) as error:
            raise ValueError(f"{path} holds a line that is no synset: {line[:80]!r}.") from error
        if not bar:
            raise ValueError(f"{path} holds a synset without a gloss: {line[:80]!r}.")
        synsets[fields[0]] = (category, {word.lower(): word for word in words}, definition(gloss))
    return synsets
