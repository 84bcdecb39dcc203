"""The README keeps its word: its marked blocks run, its commands, files and tables exist."""

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAPER = (ROOT / "PAPER.md").read_text()
FENCE = re.compile(r"(?:<!-- run(?P<mark>: slow)? -->\n)?^```bash\n(?P<code>.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^(?:make|mmllm)\b.*", re.M)
TABLE = re.compile(r"<!-- table:(\w+) -->\n(.*?)<!-- /table -->", re.S)
# A README block may start a model, not train one.
BLOCK_TIMEOUT_SECONDS = 300
COMMAND_TIMEOUT_SECONDS = 60


def run(command: str, timeout_seconds: int) -> subprocess.CompletedProcess[str]:
    """Runs a shell command at the root, with this environment's programs first on the PATH."""
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )


def blocks() -> list[re.Match[str]]:
    return list(FENCE.finditer(README))


def named_commands() -> list[str]:
    """Returns the commands of the README's blocks and inline code, without comments."""
    inline = re.findall(r"`((?:make|mmllm) [^`]+)`", README)
    lines = [line for block in blocks() for line in COMMAND.findall(block["code"])]
    return sorted({" ".join(shlex.split(line, comments=True)) for line in [*inline, *lines]})


@cache
def usage(*words: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from mmllm.cli import main; sys.exit(main())"
    arguments = [sys.executable, "-c", program, *words, "--help"]
    return run(shlex.join(arguments), COMMAND_TIMEOUT_SECONDS)


def marked_blocks() -> list[object]:
    marked = [block for block in blocks() if block[0].startswith("<!-- run")]
    return [
        pytest.param(
            block["code"],
            id=block["code"].splitlines()[0],
            marks=[pytest.mark.slow] if block["mark"] else [],
        )
        for block in marked
    ]


@pytest.mark.parametrize("code", marked_blocks())
def test_the_marked_blocks_run(code: str):
    done = run(code, BLOCK_TIMEOUT_SECONDS)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("command", [c for c in named_commands() if c.startswith("make")])
def test_every_make_target_it_names_exists(command: str):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = [word for word in command.split()[1:] if "=" not in word]
    assert set(named) <= targets


@pytest.mark.parametrize("command", [c for c in named_commands() if c.startswith("mmllm")])
def test_every_mmllm_command_it_names_exists(command: str):
    words = command.split()[1:]
    # `data` has commands of its own; everything else takes its arguments at once.
    names = [word for word in words[: 2 if words[0] == "data" else 1] if not word.startswith("-")]
    done = usage(*names)
    assert done.returncode == 0, f"mmllm {' '.join(names)} --help: {done.stderr}"
    for option in (word for word in words if word.startswith("--")):
        assert option in done.stdout, f"{option} is not in mmllm {' '.join(names)} --help"


def test_the_tree_names_only_what_exists():
    tree = re.search(r"^```\n(configs/.*?)^```$", README, re.M | re.S)
    assert tree is not None
    names = set(re.findall(r"(?:^ *|  )([\w./]+(?:\.py|\.md|/))(?=\s)", tree[1], re.M))
    assert len(names) > 15
    below = [ROOT, *(path for path in ROOT.iterdir() if path.name in {"configs", "mmllm"})]
    below += [path for path in (ROOT / "mmllm").iterdir() if path.is_dir()]
    missing = {name for name in names if not any((folder / name).exists() for folder in below)}
    assert not missing


@pytest.mark.parametrize("text", [README, PAPER], ids=["README", "PAPER"])
def test_the_tables_are_marked_and_never_hold_an_empty_cell(text: str):
    assert text.count("<!-- table:") == text.count("<!-- /table -->") == len(TABLE.findall(text))
    for name, table in TABLE.findall(text):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len(rows) >= 3, f"table {name} has no rows"
        for row in rows:
            cells = [cell.strip() for cell in row.strip("|").split("|")]
            assert all(cells), f"table {name}: an empty cell in {row!r}; a missing one is a dash"


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target
