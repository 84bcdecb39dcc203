"""The `mmllm` command: parses arguments, runs one command, and turns every failure into one line.

Commands live in `mmllm.commands`, one file a family; each adds its parser and imports what it needs
when it runs, so that `mmllm --help` is instant.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 reader of the output gone.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import mmllm
from mmllm.commands import bench, data, demo, export, info, pictures, search, serve, terminal

DEBUG_VARIABLE = "MMLLM_DEBUG"
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_PIPE = 1, 2, 130, 141

DESCRIPTION = (
    "Captions pictures, reads text in them, answers questions about them and finds them by words."
)
EPILOG = """examples:
  mmllm caption cat.png                      what is in the picture
  mmllm caption *.jpg --language de --json   many pictures, in German, for machines
  mmllm read receipt.png                     its lines of text
  mmllm ask shapes.png "how many circles are there?"
  mmllm search "a red bus" ~/Pictures --html found.html
  mmllm serve                                the same over HTTP, with a page
  mmllm demo                                 all of it, on pictures that ship with mmllm
"""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the message on one line and exits with EXIT_USAGE."""
        self.exit(EXIT_USAGE, f"{self.prog}: {_one_line(message)} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each subcommand sets `run`, a function of the parsed arguments."""
    parser = OneLineParser(
        prog="mmllm",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mmllm {mmllm.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="<command>", required=True)
    for family in (pictures, search, serve, demo, info, bench, export, data):
        family.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      arguments: without the program's name; sys.argv by default.

    Returns:
      The exit code.
    """
    _write_any_character()
    try:
        parsed = build_parser().parse_args(arguments)
        code = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: --help, --version or wrong usage
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    except terminal.UsageError as error:
        print(f"mmllm: {describe(error)}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("mmllm: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Nobody reads on: leave quietly, and keep Python from flushing into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print(f"mmllm: {describe(error)}", file=sys.stderr)
        return EXIT_FAILED


def describe(error: Exception) -> str:
    """One line that says what failed."""
    message = _one_line(str(error))
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    if isinstance(error, ModuleNotFoundError) and message.startswith("No module named"):
        return f"{error.name} is not installed: pip install 'mmllm[train]' brings what is needed"
    ours = type(error).__module__.partition(".")[0] == "mmllm"
    if message and (ours or isinstance(error, ValueError | TypeError | OSError | ImportError)):
        return message
    name = type(error).__name__
    return f"internal error, {name}: {message} ({DEBUG_VARIABLE}=1 shows where)"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _write_any_character() -> None:
    """A terminal that lacks a character shows a stand-in instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
