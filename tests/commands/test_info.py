"""`mmllm info`."""

import json
import shutil
from pathlib import Path

from mmllm import bundle
from tests import tiny_bundle


def test_sizes_scores_languages_and_licences_are_shown(command):
    done = command("info")
    assert done.code == 0
    for expected in (
        "decoder",
        "token embedding",
        "en, de",
        "CC BY 4.0",
        "MIT",
        "0.500",
        "verified",
    ):
        assert expected in done.out
    assert "caption exact match" in done.out


def test_what_a_runtime_needs_is_the_file_of_its_engine_and_the_tokenizer(command, bundle_folder):
    files = (bundle.WEIGHTS, bundle.TOKENIZER)  # the tiny bundle has no LiteRT file
    needed = sum((bundle_folder / file).stat().st_size for file in files)
    assert command("info").out.splitlines()[0].endswith(f", {needed / 1e6:.2f} MB to run")
    shipped = command("info", "--model", "nano", model=False).out.splitlines()[0]
    assert shipped == "nano: 7.89 M parameters, 5.69 MB to run"


def test_a_missing_score_is_a_dash(command):
    row = next(line for line in command("info").out.splitlines() if line.startswith("lines CER"))
    assert row.split() == ["lines", "CER", "-"]


def test_json_is_the_manifest(command, bundle_folder: Path):
    shown = json.loads(command("info", "--json").out)
    assert shown["folder"] == str(bundle_folder)
    assert shown["charset"] == tiny_bundle.CHARSET


def test_a_corrupt_bundle_takes_one_line(command, bundle_folder: Path, tmp_path: Path):
    copy = Path(shutil.copytree(bundle_folder, tmp_path / "copy"))
    data = bytearray((copy / bundle.WEIGHTS).read_bytes())
    data[-1] ^= 1
    (copy / bundle.WEIGHTS).write_bytes(data)
    done = command("info", "--model", copy, model=False)
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert "is damaged" in done.err


def test_what_a_bundle_was_made_from_is_shown_where_it_says_so(command, bundle_folder, tmp_path):
    assert "made from" not in command("info").out
    copy = Path(shutil.copytree(bundle_folder, tmp_path / "copy"))
    made = {"commit": "ab" * 20, "dirty": True, "step": 7, "seed": 0, "training_sha256": "cd" * 32}
    path = copy / bundle.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"provenance": made}))
    (line,) = (
        line
        for line in command("info", "--model", copy, model=False).out.splitlines()
        if line.startswith("made from")
    )
    assert line.startswith(f"made from  commit {'ab' * 20}, changed; step 7; seed 0; ")
    assert line.endswith("training cdcdcdcdcdcd; parent none")
