"""`mmllm data`: arguments go where they should; the building itself is tested with `mmllm.data`."""

import json
from pathlib import Path

import pytest

from mmllm.data import registry
from mmllm.data.corpora import build


def test_build_passes_names_on(command, monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(build, "build", lambda *given, **options: calls.append((given, options)))
    assert command("data", "build", "emoji", "stamps", model=False).code == 0
    assert command("data", "build", "all", "--skip-missing-clients", model=False).code == 0
    assert calls == [
        ((["emoji", "stamps"],), {"skip_missing_clients": False}),
        ((["all"],), {"skip_missing_clients": True}),
    ]


def test_an_unknown_corpus_takes_one_line(command):
    done = command("data", "build", "imagenet", model=False)
    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
    assert "imagenet" in done.err


def test_a_missing_client_takes_one_line(command, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise build.packages.MissingClient("npm is not installed;\ninstall it")

    monkeypatch.setattr(build, "build", fail)
    done = command("data", "build", "emoji", model=False)
    assert (done.code, done.err) == (1, "mmllm: npm is not installed; install it\n")


def test_list_names_every_corpus(command):
    shown = command("data", "list", model=False).out
    assert all(name in shown for name in registry.CORPORA)
    rows = json.loads(command("data", "list", "--json", model=False).out)
    assert [row["name"] for row in rows] == list(registry.CORPORA)


def test_many_licences_leave_the_table_narrow(command, monkeypatch: pytest.MonkeyPatch):
    row = {"name": "emoji", "built": True, "examples": 1200, "about": "drawings"}
    licences = {"MIT": 9, "CC-BY-4.0": 5, "OFL-1.1": 3, "CC0-1.0": 1}
    monkeypatch.setattr(build, "describe", lambda: [{**row, "licences": licences}])
    shown = command("data", "list", model=False).out
    assert "MIT, CC-BY-4.0 and 2 more (--json)" in shown
    assert "OFL" not in shown
    assert json.loads(command("data", "list", "--json", model=False).out)[0]["licences"] == licences


def test_preview_names_its_file_by_corpus_and_split(command, monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(build, "preview", lambda *given: calls.append(given))
    assert (
        command("data", "preview", "emoji", "--split", "val", model=False).out == "emoji-val.png\n"
    )
    assert calls == [("emoji", Path("emoji-val.png"), "val", 48)]
