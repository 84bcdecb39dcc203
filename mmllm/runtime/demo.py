"""Runs a model on the sample pictures that ship with the package, and shows what came out.

The sample is a folder (`mmllm/sample`) of pictures with one file, sample.json:

    {"schema_version": 1,
     "pictures": [
       {"file": "red-bus.png",                 a picture in the folder
        "title": "red bus",                    what it shows, for people
        "source": "openmoji 15.0, 1F68C",      attribution, all three required
        "author": "...",
        "licence": "CC BY-SA 4.0",
        "trials": [                            what to ask about it, in this order
          {"task": "caption", "language": "en", "expected": ["bus", "autobus"]},
          {"task": "read", "expected": ["OPEN DAILY"]},          lines joined with one space
          {"task": "ask", "question": "what colour is the bus?", "expected": ["red"]},
          {"task": "search", "question": "a red bus"}]}]}        found if it ranks first

`language` is "en" if left out; `expected` lists accepted answers, compared without case, white
space and punctuation at the ends. Pictures that have a "read" trial alone are not searched.
"""

import json
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mmllm.data import images as images_lib
from mmllm.runtime import page
from mmllm.runtime.model import MobileMultiModalLLM

SAMPLE = Path(__file__).parents[1] / "sample"
SCHEMA_VERSION = 1
TASKS = ("caption", "read", "ask", "search")
TITLES = {
    "caption": ("Caption", "What is in the picture, in a few words."),
    "read": ("Read", "Lines of text, with their boxes."),
    "ask": ("Ask", "Short answers to questions about the picture."),
    "search": ("Search", "The picture that comes first for the words, among all of the sample."),
}


class Trial(NamedTuple):
    """One thing to try on one picture."""

    task: str
    question: str
    language: str
    expected: tuple[str, ...]


class SamplePicture(NamedTuple):
    """A picture of the sample with its attribution and trials."""

    path: Path
    title: str
    credit: str
    trials: tuple[Trial, ...]


class Row(NamedTuple):
    """What came out of a trial; `shown` is the picture beside the answer."""

    picture: SamplePicture
    trial: Trial
    answer: str
    good: bool | None
    shown: Path


def load_sample(folder: Path = SAMPLE) -> list[SamplePicture]:
    """Reads sample.json.

    Raises:
      FileNotFoundError: no sample, or a picture of it is missing.
      ValueError: not of the form in this module's docstring.
    """
    path = folder / "sample.json"
    if not path.is_file():
        raise FileNotFoundError(f"no sample at {folder}: sample.json is missing")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version must be {SCHEMA_VERSION}")
        return [_picture(folder, entry) for entry in content["pictures"]]
    except (UnicodeDecodeError, json.JSONDecodeError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    except KeyError as error:
        raise ValueError(f"{path} is damaged: field {error} is missing") from error


def run(
    model: MobileMultiModalLLM,
    pictures: list[SamplePicture],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Runs every trial, in the order of the sample."""
    pairs = [(picture, trial) for picture in pictures for trial in picture.trials]
    opened = {picture.path: images_lib.open_image(picture.path) for picture in pictures}
    searched = [p for p in pictures if any(trial.task != "read" for trial in p.trials)]
    embeddings = None
    if any(trial.task == "search" for _, trial in pairs):
        embeddings = model.embed_images([opened[picture.path] for picture in searched])
    rows = []
    for done, (picture, trial) in enumerate(pairs):
        progress(done, len(pairs))
        if trial.task == "search":
            best = searched[int(np.argmax(embeddings @ model.embed_text(trial.question)))]
            rows.append(Row(picture, trial, best.title, best.path == picture.path, best.path))
            continue
        answer = _answer(model, opened[picture.path], trial)
        rows.append(Row(picture, trial, answer, _judged(answer, trial.expected), picture.path))
    progress(len(pairs), len(pairs))
    return rows


def write_page(path: Path, rows: list[Row], model_name: str) -> None:
    """Writes the page: one section a task, one card a trial, attribution at the foot."""
    sections = []
    for task in TASKS:
        chosen = [row for row in rows if row.trial.task == task]
        if chosen:
            sections.append(page.Section(*TITLES[task], [_card(row) for row in chosen]))
    note = f"{summary(rows)} Model: {model_name}. Pictures the model was not trained on."
    used = {row.picture.path: row.picture for row in rows}
    credits = [f"{picture.path.name}: {picture.credit}" for picture in used.values()]
    page.write(path, page.render("What a small model sees", note, sections, credits))


def summary(rows: list[Row]) -> str:
    """One sentence: how many answers were as expected."""
    judged = [row.good for row in rows if row.good is not None]
    return f"{sum(judged)} of {len(judged)} answers as expected."


def _answer(model: MobileMultiModalLLM, image: Image.Image, trial: Trial) -> str:
    if trial.task == "caption":
        return model.caption(image, trial.language)
    if trial.task == "ask":
        return model.answer(image, trial.question)
    return " ".join(region.text for region in model.read_text(image))


def _judged(answer: str, expected: tuple[str, ...]) -> bool | None:
    if not expected:
        return None
    return _plain(answer) in {_plain(text) for text in expected}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(string.punctuation + " ")


def _card(row: Row) -> page.Card:
    questions = {
        "caption": "" if row.trial.language == "en" else f"in language {row.trial.language}",
        "read": "",
        "ask": row.trial.question,
        "search": row.trial.question,
    }
    detail = ""
    if row.good is False:
        wanted = row.picture.title if row.trial.task == "search" else row.trial.expected[0]
        detail = f"expected: {wanted}"
    return page.Card(
        images_lib.open_image(row.shown),
        row.answer or "(nothing)",
        questions[row.trial.task],
        detail,
        row.good,
    )


def _picture(folder: Path, entry: Mapping[str, Any]) -> SamplePicture:
    path = folder / entry["file"]
    if Path(entry["file"]).name != entry["file"]:
        raise ValueError(f"file must be a plain name, got {entry['file']!r}")
    if not path.is_file():
        raise FileNotFoundError(f"the sample at {folder} is incomplete: {entry['file']} is missing")
    credit = f"{entry['author']}, {entry['source']}, {entry['licence']}"
    trials = tuple(_trial(trial) for trial in entry["trials"])
    return SamplePicture(path, entry["title"], credit, trials)


def _trial(entry: Mapping[str, Any]) -> Trial:
    task = entry["task"]
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    question = entry["question"] if task in ("ask", "search") else ""
    return Trial(task, question, entry.get("language", "en"), tuple(entry.get("expected", ())))
