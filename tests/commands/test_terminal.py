"""Tables, progress and argument types."""

import argparse
import io
import sys

import pytest

from mmllm.commands import terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_line_up_with_wide_characters(capsys):
    terminal.print_table(("a", "b"), [("红色巴士", "1"), ("é", "2"), ("e\u0301", "3")])
    header, rule, first, second, third = capsys.readouterr().out.splitlines()
    assert header == "a         b"
    assert rule == "--------  -"
    assert first == "红色巴士  1"
    assert second == "é         2"
    assert third == "e\u0301         3"


def test_control_characters_are_shown_not_obeyed():
    assert terminal.printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"
    assert terminal.printable("bus 🚌 ü") == "bus 🚌 ü"


def test_a_warning_is_one_line(capsys):
    terminal.warn("first\nsecond")
    assert capsys.readouterr().err == "mmllm: first second\n"


def test_progress_is_for_people_only(monkeypatch, capsys):
    terminal.progress("pictures")(1, 2)
    assert capsys.readouterr().err == ""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    show = terminal.progress("pictures")
    show(1, 2)
    show(2, 2)
    assert "pictures 1/2" in screen.getvalue()
    assert screen.getvalue().endswith("\r\033[K")


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", ""])
def test_a_positive_number_is_asked_for(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
        terminal.positive(text)
    assert terminal.positive("3") == 3
