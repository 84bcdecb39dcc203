"""Draws the sample of test pictures that ships in mmllm/sample: by seed, permissive licences only.

Command:  python -m experiments.artifact.make_sample
Needs:    mmllm data build all

Every picture comes from a test split, so no model was trained on it; nothing is chosen by how well
a model does. mmllm/runtime/sample.py says what sample.json holds.
"""

import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from mmllm.data import sources

SAMPLE = Path(__file__).parents[2] / "mmllm" / "sample"
SEED = 20
PERMISSIVE = {"Apache-2.0", "MIT", "CC-BY-4.0", "OFL-1.1", "CC0-1.0"}
# Pictures of each kind: known names by an unknown artist, unknown names, and so on; 48 in all.
DRAWINGS, STRANGERS, LINES, SCENES, SHAPES = 20, 4, 10, 10, 4
SEARCHED = 10
QUESTIONS_A_SCENE = 2
Element = dict[str, Any]


def credits_of(name: str, split: str) -> dict[str, dict[str, str]]:
    """Source, author and licence of every example of a split, by its id."""
    path = sources.folder_of(name) / sources.ATTRIBUTION_FILE
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {row["id"]: row for row in rows if row["split"] == split}


def permissive(name: str, split: str, count: int) -> Iterator[Element]:
    """`count` examples of a split under permissive licences, in an order fixed by the seed.

    Each comes with its "source", "author" and "licence".
    """
    texts = sources.load(name, split, images=False)
    pictures = sources.load(name, split)
    credit = credits_of(name, split)
    order = random.Random(SEED).sample(range(len(texts)), len(texts))
    free = (i for i in order if is_permissive(credit[texts[i]["id"]]["licence"]))
    for _, place in zip(range(count), free, strict=False):
        yield pictures[place] | credit[texts[place]["id"]]


def is_permissive(licence: str) -> bool:
    """Whether every part of an SPDX expression allows use, change and sharing without more."""
    return set(licence.split(" AND ")) <= PERMISSIVE


def entry(element: Element, file: str, title: str, trials: list[dict]) -> dict[str, Any]:
    """One picture of sample.json."""
    return {
        "file": file,
        "title": title,
        "source": element["source"],
        "author": element["author"],
        "licence": element["licence"],
        "trials": trials,
    }


def sample() -> Iterator[tuple[dict[str, Any], Image.Image]]:
    """Entries of sample.json with their pictures."""
    for place, element in enumerate(permissive("emoji", "style_out", DRAWINGS)):
        name = element["captions"][0]
        trials: list[dict] = [{"task": "caption", "expected": [name]}]
        if place < SEARCHED:
            trials.append({"task": "search", "question": name})
        if place % 5 == 0:
            german = element["captions"][element["languages"].index("de")]
            trials.append({"task": "caption", "language": "de", "expected": [german]})
        yield entry(element, f"drawing-{place:02d}.png", name, trials), element["image"]
    for place, element in enumerate(permissive("emoji", "concept_out", STRANGERS)):
        name = element["captions"][0]
        trials = [{"task": "search", "question": name}]
        yield entry(element, f"stranger-{place:02d}.png", name, trials), element["image"]
    for place, element in enumerate(permissive("ocr_lines", "unseen_print", LINES)):
        text = element["text"]
        trials = [{"task": "read", "expected": [text]}]
        yield entry(element, f"line-{place:02d}.png", text, trials), element["image"]
    for corpus, kind, count in (("composites", "scene", SCENES), ("easy_vqa", "shape", SHAPES)):
        for place, element in enumerate(permissive(corpus, "test", count)):
            pairs = list(zip(element["questions"], element["answers"], strict=True))
            picked = random.Random(SEED + place).sample(pairs, min(QUESTIONS_A_SCENE, len(pairs)))
            trials = [{"task": "ask", "question": q, "expected": [a]} for q, a in picked]
            title = element.get("caption", f"{kind} {place}")
            yield entry(element, f"{kind}-{place:02d}.png", title, trials), element["image"]


def main() -> None:
    """Writes the folder anew, all of it or nothing."""
    temporary = Path(tempfile.mkdtemp(prefix=".sample.", dir=SAMPLE.parent))
    try:
        pictures = []
        for described, pixels in sample():
            Image.fromarray(pixels).save(temporary / described["file"], optimize=True)
            pictures.append(described)
        text = json.dumps({"schema_version": 1, "pictures": pictures}, indent=1, ensure_ascii=False)
        (temporary / "sample.json").write_text(text + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        shutil.rmtree(SAMPLE, ignore_errors=True)
        temporary.rename(SAMPLE)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"{len(pictures)} pictures in {SAMPLE}")


if __name__ == "__main__":
    main()
