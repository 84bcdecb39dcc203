"""`mmllm serve`: the HTTP service, a check of its settings, and new API keys.

Options are the few settings that change from call to call; all others are environment variables
that begin with MMLLM_, see `mmllm.serve.settings`.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmllm.commands import terminal
from mmllm.runtime.engines.registry import ENGINES

if TYPE_CHECKING:
    from mmllm.serve.settings import Settings

EPILOG = """examples:
  mmllm serve                                    http://127.0.0.1:8000, for this machine alone
  mmllm serve --host 0.0.0.0 --workers 2         two processes, for others too
  mmllm serve --check                            verify model and settings, then end
  mmllm serve --new-key alice --scopes caption vqa --keys keys.json
SIGTERM drains; SIGHUP replaces the workers one by one (--workers 2 and more)."""


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "serve",
        help="answer over HTTP: an API, a web page, metrics",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="N", help="port, 0 for any (default 8000)")
    parser.add_argument(
        "--workers", type=terminal.positive, metavar="N", help="processes (default 1)"
    )
    parser.add_argument(
        "--model", metavar="NAME|FOLDER", help="a model that ships with mmllm, or a bundle folder"
    )
    parser.add_argument("--engine", choices=tuple(ENGINES), help="what runs the model")
    parser.add_argument("--keys", metavar="FILE", help="the file of API keys")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="verify model and settings, then end")
    action.add_argument("--new-key", metavar="NAME", help="print a new API key, and keep its hash")
    parser.add_argument(
        "--scopes",
        nargs="+",
        metavar="SCOPE",
        help="what the new key may do (default: all but admin)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves, checks, or makes a key."""
    if args.scopes and not args.new_key:
        raise terminal.UsageError("--scopes goes with --new-key")
    try:
        from mmllm.serve import settings as settings_lib

        settings = settings_lib.load(**_overrides(args))
        if args.new_key:
            return _new_key(settings, args.new_key, args.scopes)
        return _check(settings) if args.check else _serve(settings)
    except ModuleNotFoundError as error:
        # That a module of this package is missing is a bug: no extra would bring it.
        if (error.name or "").partition(".")[0] == "mmllm":
            raise
        raise ModuleNotFoundError(
            f"mmllm serve needs {error.name}: pip install 'mmllm[serve]'", name=error.name
        ) from error


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(args, name) for name in ("host", "port", "workers", "model", "engine")}
    given["api_keys_file"] = args.keys
    return {name: value for name, value in given.items() if value is not None}


def _serve(settings: "Settings") -> int:
    from mmllm.serve.process import coordination, supervisor

    def announce(url: str) -> None:
        print(f"mmllm: {settings.model} at {url} (Ctrl+C drains and ends)", file=sys.stderr)

    # Notes about the processor are not for the log.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if settings.workers > 1:
        return supervisor.run(settings, announce)
    from mmllm.serve.process import server

    with coordination.listen(settings.host, settings.port) as listener:
        url = coordination.address(listener)
        return server.run(settings, listener, announce=lambda: announce(url))


def _check(settings: "Settings") -> int:
    """Loads and warms what would serve, and reads every file that the settings name."""
    from mmllm.serve.process import server

    server.check(settings)
    print(f"ok: {settings.model} loads and answers; the settings are sound")
    return 0


def _new_key(settings: "Settings", name: str, scopes: list[str] | None) -> int:
    from mmllm.serve.guard import auth

    chosen = scopes or [scope for scope in auth.SCOPES if scope != "admin"]
    key, entry = auth.new_key(name, tuple(chosen))
    if settings.api_keys_file is None:
        print(json.dumps({"keys": [entry]}, indent=2))
        terminal.warn("put this into the file that MMLLM_API_KEYS_FILE names; the key, shown once:")
    else:
        _append(Path(settings.api_keys_file), entry)
        terminal.warn(f"added to {settings.api_keys_file}; the key, shown once:")
    # Alone on stdout, so that a script can take it.
    print(key)
    return 0


def _append(file: Path, entry: dict[str, Any]) -> None:
    """Adds an entry to the file of keys, which stays readable for its owner alone."""
    from mmllm.common import paths
    from mmllm.serve.guard import keys

    if file.exists():
        if entry["id"] in keys.read(file):
            raise ValueError(
                f"{file} has a key {entry['id']!r} already: choose another --new-key NAME"
            )
        known = {"keys": [*keys.items(file), entry]}
    else:
        known = {"keys": [entry]}
    with paths.written_whole(file) as partial:
        # Before a byte is in it: others could open it in between.
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(known, indent=2) + "\n")
