"""`python -m mmllm.train` as a process: a run from start to end, and one line for every failure."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def train(*arguments, shell_limit=""):
    command = [sys.executable, "-m", "mmllm.train", *map(str, arguments)]
    if shell_limit:
        command = ["/bin/sh", "-c", f'{shell_limit}; exec "$@"', "sh", *command]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)


def assert_one_line(done, *words):
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("mmllm.train: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=configs/tiny.py", "--config.train.steps=many"], ["train.steps", "many"]),
        (["--config=configs/tiny.py", "--stop_at=soon"], ["stop_at", "soon"]),
        (["--config=configs/tiny.py", "--stop_at=0"], ["stop_at"]),
        (["--config=configs/tiny.py", "--colour=red"], ["colour"]),
        (["--config=configs/tiny.py", "--config.model.widht=64"], ["widht"]),
        (["--config=configs/tiny.py", "--config.model.width=33"], ["model.width", "33"]),
        (["--config=configs/missing.py"], ["configs/missing.py"]),
        ([], ["config"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_call_takes_one_line(arguments, words):
    assert_one_line(train(*arguments), *words)


def test_a_student_of_a_run_that_is_not_there_takes_one_line(tmp_path):
    arguments = ["--config=configs/tiny.py", "--synthetic", f"--workdir={tmp_path}"]
    arguments += ["--config.quant.start=ghost", "--config.quant.rules=('embed/table int2',)"]
    assert_one_line(train(*arguments), "no run 'ghost' (quant.start)", "train it first")


INTERRUPTED = """
from mmllm.train import __main__ as command
def interrupt():
    raise KeyboardInterrupt
command._run = interrupt
command.main([])
"""


def test_an_interrupt_before_the_first_step_takes_one_line_and_exits_130():
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 130
    (line,) = done.stderr.splitlines()
    assert line.startswith("mmllm.train: interrupted; what is finished stays")


@pytest.mark.slow
def test_an_interrupted_run_says_where_and_goes_on_from_its_checkpoint(tmp_path):
    run = ["--config=configs/tiny.py", "--synthetic", f"--workdir={tmp_path}"]
    run += ["--config.train.log_every=1", "--config.train.checkpoint_every=40"]
    run += ["--config.train.steps=1000"]
    # A shell may have started the tests with interrupts ignored, and children inherit that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "mmllm.train", *run]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            if line.startswith("step 43/"):  # far from the next checkpoint
                process.send_signal(signal.SIGINT)
                break
        _, errors = process.communicate()
    assert process.returncode == 130, errors
    (line,) = errors.splitlines()
    found = re.fullmatch(
        r"mmllm.train: interrupted at step (\d+)/1000; the checkpoint of step (\d+) stands, "
        "and the same command resumes there",
        line,
    )
    step, kept = map(int, found.groups())
    assert kept <= step
    again = train(*run, f"--stop_at={step + 1}")
    assert again.stdout.splitlines()[0] == f"resumed from step {kept}"


@pytest.mark.slow
def test_a_run_stops_resumes_and_survives_a_full_disk(tmp_path):
    run = ["--config=configs/tiny.py", "--synthetic", f"--workdir={tmp_path}"]
    run += ["--config.train.steps=4", "--config.train.log_every=1"]
    first = train(*run, "--stop_at=2")
    assert first.returncode == 0, first.stderr
    assert "step 2/4" in first.stdout

    # No file may grow beyond a few kilobytes: the checkpoint of step 4 does not fit.
    full = train(*run, shell_limit="ulimit -f 16")
    assert full.returncode == 1
    assert full.stdout.splitlines()[0] == "resumed from step 2"
    # A write cut off halfway makes threads of the storage library remark on it as well.
    (line,) = [line for line in full.stderr.splitlines() if "mmllm.train: " in line]
    assert "checkpoint 4 could not be written" in line
    assert "free space and resume" in line

    again = train(*run)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0] == "resumed from step 2"
    assert "step 4/4" in again.stdout

    other = train(*run, "--config.train.learning_rate=0.5")
    assert_one_line(other, "run of another config", "train")


@pytest.mark.slow
def test_without_corpora_the_command_that_builds_them_is_named(tmp_path):
    done = train("--config=configs/tiny.py", f"--workdir={tmp_path}")
    assert_one_line(done, "corpora not built: emoji", "mmllm data build")
