"""The command line as a process: exit codes, one line for every failure, quick help."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import mmllm
from mmllm import cli
from mmllm.commands import info

HELP_SECONDS = 1.0  # of processor time, so that a busy machine does not matter; usually 0.1
COMMANDS = ("caption", "read", "ask", "search", "serve", "demo", "info", "bench", "data")


def process(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmllm", *arguments], capture_output=True, text=True, **options
    )


def test_help_names_every_command_quickly():
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = process("--help")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < HELP_SECONDS
    assert done.returncode == 0
    assert all(f"    {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main([name, "--help"]) == 0
    assert f"mmllm {name}" in capsys.readouterr().out


def test_the_command_line_imports_nothing_heavy():
    code = (
        "import sys, mmllm.cli; mmllm.cli.build_parser();"
        "print(*[m for m in ('numpy', 'PIL', 'jax', 'jaxtyping') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mmllm {mmllm.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["dance"], ["caption"], ["ask", "a.png"], ["caption", "a.png", "--beam", "x"], ["data"]],
)
def test_wrong_usage_takes_one_line_and_exits_2(arguments, capsys: pytest.CaptureFixture[str]):
    assert cli.main(arguments) == cli.EXIT_USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert "--help" in shown.err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\n b"), "a b"),
        (FileNotFoundError("no model 'x'"), "no model 'x'"),
        (OSError(28, "No space left on device", "/x/y"), "No space left on device: /x/y"),
        (PermissionError(13, "Permission denied", "/x"), "Permission denied: /x"),
        (MemoryError(), "out of memory"),
        (KeyError("k"), "internal error, KeyError: 'k' (MMLLM_DEBUG=1 shows where)"),
        (ModuleNotFoundError("No module named 'tqdm'", name="tqdm"), "tqdm is not installed: pip"),
    ],
)
def test_any_failure_takes_one_line(
    error: Exception, line: str, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(info, "run", fail)
    assert cli.main(["info"]) == cli.EXIT_FAILED
    shown = capsys.readouterr().err
    assert shown.startswith(f"mmllm: {line}")
    assert len(shown.splitlines()) == 1


def test_debugging_shows_where(monkeypatch):
    def fail(_: object) -> int:
        raise KeyError("k")

    monkeypatch.setattr(info, "run", fail)
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    with pytest.raises(KeyError):
        cli.main(["info"])


def test_an_interrupt_exits_130(monkeypatch, capsys: pytest.CaptureFixture[str]):
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "run", interrupt)
    assert cli.main(["info"]) == cli.EXIT_INTERRUPTED
    assert capsys.readouterr().err.splitlines() == ["mmllm: interrupted"]


def test_a_closed_pipe_is_quiet():
    code = (
        "import sys\nfrom mmllm import cli\nfrom mmllm.commands import info\n"
        "info.run = lambda args: print('x' * 10**6) or 0\nsys.exit(cli.main(['info']))"
    )
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == cli.EXIT_PIPE
    assert done.stderr == ""


def test_an_ascii_terminal_does_not_end_the_program(tmp_path: Path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = process("info", "--model", str(tmp_path / "überall"), env=environment)
    assert done.returncode == 1
    assert "no model" in done.stderr
    assert "Traceback" not in done.stderr
