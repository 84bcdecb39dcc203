"""Runs a model on the sample pictures, and shows what came out: `mmllm demo`."""

import string
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmllm.commands import page
from mmllm.data import images as images_lib
from mmllm.runtime.model import MobileMultiModalLLM
from mmllm.runtime.sample import TASKS, SamplePicture, Trial

TITLES = {
    "caption": ("Caption", "What is in the picture, in a few words."),
    "read": ("Read", "Lines of text, with their boxes."),
    "ask": ("Ask", "Short answers to questions about the picture."),
    "search": ("Search", "The picture that comes first for the words, among all of the sample."),
}


class Row(NamedTuple):
    """What came out of a trial; `shown` is the picture beside the answer."""

    picture: SamplePicture
    trial: Trial
    answer: str
    good: bool | None
    shown: Path


def run(
    model: MobileMultiModalLLM,
    pictures: list[SamplePicture],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Runs every trial, in the order of the sample."""
    pairs = [(picture, trial) for picture in pictures for trial in picture.trials]
    # Once: several trials share a picture.
    opened = {picture.path: images_lib.open_image(picture.path) for picture in pictures}
    searched = [p for p in pictures if any(trial.task != "read" for trial in p.trials)]
    embeddings = None
    if any(trial.task == "search" for _, trial in pairs):
        embeddings = model.embed_images([opened[picture.path] for picture in searched])
    rows = []
    for done, (picture, trial) in enumerate(pairs):
        progress(done, len(pairs))
        if trial.task == "search":
            # Among all pictures but those of text: the sample says what may be found.
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
        target = row.picture.title if row.trial.task == "search" else row.trial.expected[0]
        detail = f"expected: {target}"
    return page.Card(
        images_lib.open_image(row.shown),
        row.answer or "(nothing)",
        questions[row.trial.task],
        detail,
        row.good,
    )
