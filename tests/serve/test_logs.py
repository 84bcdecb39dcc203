"""Log lines: one JSON form for all loggers, no secrets, and no request that waits for a disk."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from mmllm.serve import logs
from mmllm.serve import settings as settings_lib

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[], list[dict]]:
    """Sends log lines to a file; calling it closes the logs and returns what they hold."""
    with (tmp_path / "out").open("wb") as file:
        logs.configure(settings_lib.Settings(), descriptor=file.fileno())

        def read() -> list[dict]:
            logs.close()
            return [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]

        yield read
        logs.close()


def run(code: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    code = f"import sys\nfrom mmllm.serve import logs, settings\nimport structlog\n{code}"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, timeout=120, **options)


def test_both_kinds_of_loggers_give_one_form(lines):
    structlog.get_logger("mmllm.serve.engine.pool").info("loaded", model="nano", took_ms=3.5)
    logging.getLogger("uvicorn.error").warning("closing %d connections", 3)
    ours, theirs = lines()
    assert ours["event"] == "loaded"
    assert (ours["model"], ours["took_ms"]) == ("nano", 3.5)
    assert (theirs["event"], theirs["level"]) == ("closing 3 connections", "warning")
    assert (ours["logger"], theirs["logger"]) == ("mmllm.serve.engine.pool", "uvicorn.error")
    assert ours["timestamp"].endswith("Z")


def test_a_line_carries_the_request_it_belongs_to(lines):
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger().info("ours")
        logging.getLogger("theirs").warning("theirs")
    structlog.get_logger().info("after")
    found = lines()
    assert [line.get("request_id") for line in found] == ["r-1", "r-1", None]


def test_below_the_level_nothing_is_written(lines):
    structlog.get_logger().debug("hidden")
    structlog.get_logger().info("shown")
    assert [line["event"] for line in lines()] == ["shown"]


def test_an_exception_comes_with_its_traceback_in_one_line(lines):
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        structlog.get_logger().exception("failed")
        logging.getLogger("theirs").exception("failed too")
    ours, theirs = lines()
    assert "ZeroDivisionError" in ours["exception"]
    assert "ZeroDivisionError" in theirs["exception"]


def test_a_line_break_in_a_value_makes_no_second_line(lines):
    structlog.get_logger().info("a\n{}", name='b\r\n"c\x1b[31m\u2028\ud800')
    assert len(lines()) == 1


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "Authorization",
        "x-api-key",
        "api_key",
        "metrics_token",
        "Set-Cookie",
        "jwt_secret",
        "image",
        "question",
        "texts",
        "body",
        "password",
    ],
)
def test_credentials_and_payloads_are_hidden_by_name(name: str):
    assert logs.redact(None, "info", {name: "s3cret"}) == {name: logs.HIDDEN}
    nested = logs.redact(None, "info", {"headers": [{name: "s3cret"}]})
    assert "s3cret" not in json.dumps(nested)


@pytest.mark.parametrize(
    "text",
    [
        "refused Bearer s3cret.s3cret",
        "header 'authorization: basic s3cret'",
        "got data:image/png;base64,s3cret== for image",
        "token eyJhbGciOi.s3cret.s3cret expired",
        "redis://user:s3cret@redis:6379/0 is down",
    ],
)
def test_credentials_are_hidden_in_the_middle_of_a_text(text: str):
    assert "s3cret" not in json.dumps(logs.redact(None, "info", {"event": text}))


def test_numbers_stay_whatever_their_name():
    event = {"tokens": 5, "image_bytes": 12, "text_count": 3, "cached": True}
    assert logs.redact(None, "info", event) == event


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.text() | st.binary() | st.integers() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_any_value_is_redacted_to_something_json_can_hold(value: object):
    json.dumps(logs.redact(None, "info", {"value": value}))


def test_what_is_long_is_cut():
    shown = logs.redact(None, "info", {"name": "x" * 10**6, "parts": list(range(1000))})
    assert len(shown["name"]) < logs.MAX_VALUE_CHARS + 20
    assert len(shown["parts"]) == logs.MAX_INNER


def test_a_pipe_nobody_reads_costs_lines_and_no_wait(monkeypatch):
    monkeypatch.setattr(logs, "QUEUE_LINES", 50)
    monkeypatch.setattr(logs, "CLOSE_S", 0.2)
    lost: list[int] = []
    reader, writer = os.pipe()
    log = logs.configure(settings_lib.Settings(), lost.append, writer)
    for i in range(600):
        structlog.get_logger().info("line", i=i, filling="x" * 500)
    logs.close()
    os.close(reader)  # frees the thread, which gets an error for each line it still has
    log._thread.join(10)
    assert not log._thread.is_alive()
    os.close(writer)
    assert sum(lost) > 400


def test_a_full_disk_costs_lines_and_is_told_once():
    code = """
lost = []
logs.configure(settings.Settings(), lost.append)
for i in range(50): structlog.get_logger().info("line", i=i)
logs.close()
print(sum(lost), file=sys.stderr)
"""
    with open("/dev/full", "wb") as full:
        done = run(code, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 0
    told, count = done.stderr.decode().splitlines()
    assert told == "mmllm: log lines are being lost (No space left on device)"
    assert count == "50"


def test_a_file_that_can_grow_no_more_costs_lines_and_recovers(tmp_path):
    """The process may write 4 kB a file; after rotation by hand there is room again."""
    code = """
import pathlib, resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
lost = []
path = pathlib.Path(sys.argv[1])
logs.configure(settings.Settings(log_file=path), lost.append)
for i in range(100): structlog.get_logger().info("line", i=i)
logs.close()
print(sum(lost))
path.unlink()
logs.configure(settings.Settings(log_file=path), lost.append)
structlog.get_logger().info("after")
logs.close()
"""
    done = run(code, str(tmp_path / "log"), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
    assert done.stderr.decode().count("File too large") == 1
    assert json.loads((tmp_path / "log").read_text())["event"] == "after"


def test_several_processes_rotate_one_file_without_loss(tmp_path):
    code = """
logs.configure(settings.Settings(log_file=sys.argv[1], log_bytes=100_000, log_backups=20))
for i in range(500): structlog.get_logger().info("line", worker=sys.argv[2], i=i)
"""
    prefix = "import sys\nfrom mmllm.serve import logs, settings\nimport structlog\n"
    command = [sys.executable, "-c", prefix + code, str(tmp_path / "log")]
    workers = [subprocess.Popen([*command, str(i)], cwd=ROOT) for i in range(3)]
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    files = [path for path in tmp_path.iterdir() if path.name.startswith("log")]
    assert len(files) > 1
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert {(line["worker"], line["i"]) for line in found} == {
        (str(worker), i) for worker in range(3) for i in range(500)
    }


@pytest.mark.parametrize("name", ["missing/log", "."])
def test_a_wrong_log_file_is_told_at_the_start(tmp_path, name):
    with pytest.raises(ValueError, match="log_file"):
        logs.configure(settings_lib.Settings(log_file=tmp_path / name))


def test_a_second_call_replaces_the_first(lines, tmp_path):
    handlers = len(logging.root.handlers)
    with (tmp_path / "second").open("wb") as file:
        logs.configure(settings_lib.Settings(), descriptor=file.fileno())
        structlog.get_logger().info("once")
        logs.close()
    assert (tmp_path / "second").read_text().count("once") == 1
    assert len(logging.root.handlers) == handlers - 1
