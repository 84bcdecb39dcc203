"""`mmllm serve`: what it does without serving; `serve/process/test_server.py` runs it whole."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mmllm import cli
from mmllm.serve.guard import keys
from mmllm.serve.process import coordination


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["serve", *(str(argument) for argument in arguments)])
    return (code, *capsys.readouterr())


def test_a_check_loads_the_model_and_says_ok(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MMLLM_INDEX_PATH", str(tmp_path / "index.sqlite"))
    code, out, _ = run(capsys, "--check")
    assert (code, out) == (0, "ok: nano loads and answers; the settings are sound\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--check", "--model", "absent"], "no model 'absent'"),
        (["--check", "--keys", "absent.json"], "absent.json"),
        (["--port", "70000"], "MMLLM_PORT"),
        (["--new-key", "a b"], "id must be"),
        (["--new-key", "a", "--scopes", "fly"], "scopes must be of"),
    ],
)
def test_what_is_wrong_takes_one_line(arguments, line, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert line in err
    assert len(err.splitlines()) == 1


def test_scopes_without_a_key_are_wrong_usage(capsys):
    code, _, err = run(capsys, "--scopes", "caption")
    assert (code, err) == (2, "mmllm: --scopes goes with --new-key\n")


def test_a_wrong_variable_is_named(capsys, monkeypatch):
    monkeypatch.setenv("MMLLM_QUEUE_SIZE", "many")
    code, _, err = run(capsys, "--check")
    assert code == 1
    assert "MMLLM_QUEUE_SIZE" in err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MMLLM_LOG_FILE", "/nope/x"),
        ("MMLLM_INDEX_PATH", "/proc/x/y"),
        ("MMLLM_TRUSTED_HOSTS", "http://a"),
    ],
)
def test_a_check_finds_what_could_not_serve(capsys, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    code, out, err = run(capsys, "--check")
    assert (code, out) == (1, "")
    assert variable.removeprefix("MMLLM_").lower() in err.lower()
    assert value in err
    assert len(err.splitlines()) == 1


def test_a_taken_port_takes_one_line(capsys):
    with coordination.listen("127.0.0.1", 0) as listener:
        code, _, err = run(capsys, "--port", listener.getsockname()[1])
    assert code == 1
    assert "choose others with --host and --port" in err


def test_a_new_key_is_added_to_the_file_and_shown_once(capsys, tmp_path: Path):
    file = tmp_path / "keys.json"
    code, key, _ = run(capsys, "--new-key", "alice", "--scopes", "caption", "vqa", "--keys", file)
    assert code == 0
    assert run(capsys, "--new-key", "bob", "--keys", file)[0] == 0
    entries = keys.read(file)
    assert set(entries) == {"alice", "bob"}
    assert json.loads(file.read_text())["keys"][0]["scopes"] == ["caption", "vqa"]
    assert "admin" not in json.loads(file.read_text())["keys"][1]["scopes"]
    assert key.strip().partition(".")[2] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("lines", [1, 2])
def test_a_new_key_is_added_to_a_file_of_lines(capsys, tmp_path: Path, lines: int):
    file = tmp_path / "keys.json"
    known = [keys.new_key(name, ("ocr",))[1] for name in ("shop", "lab")[:lines]]
    file.write_text("".join(json.dumps(entry) + "\n" for entry in known))
    assert run(capsys, "--new-key", "alice", "--keys", file)[0] == 0
    entries = keys.read(file)
    assert set(entries) == {entry["id"] for entry in known} | {"alice"}
    assert entries["shop"].hash == known[0]["hash"]


def test_nothing_is_added_to_a_damaged_file(capsys, tmp_path: Path):
    file = tmp_path / "keys.json"
    file.write_text('{"keys": [{"id": "shop"}]}')
    code, out, err = run(capsys, "--new-key", "alice", "--keys", file)
    assert (code, out) == (1, "")
    assert "entry 1 of" in err
    assert "alice" not in file.read_text()


def test_a_name_has_one_key(capsys, tmp_path: Path):
    file = tmp_path / "keys.json"
    run(capsys, "--new-key", "alice", "--keys", file)
    code, _, err = run(capsys, "--new-key", "alice", "--keys", file)
    assert code == 1
    assert "'alice' already" in err


def test_without_a_file_the_entry_is_printed(capsys):
    code, out, _ = run(capsys, "--new-key", "alice")
    *entry, key = out.splitlines()
    assert code == 0
    assert json.loads("\n".join(entry))["keys"][0]["id"] == "alice"
    assert key.startswith("alice.")


def test_a_missing_extra_names_what_to_install():
    code = (
        "import sys; sys.modules['pydantic_settings'] = None\n"
        "from mmllm import cli\nsys.exit(cli.main(['serve', '--check']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 1
    assert "pip install 'mmllm[serve]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
