"""The sample pictures that ship with the package, and what to ask about each.

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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

SAMPLE = Path(__file__).parents[1] / "sample"
SCHEMA_VERSION = 1
TASKS = ("caption", "read", "ask", "search")


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


def load(folder: Path = SAMPLE) -> list[SamplePicture]:
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
