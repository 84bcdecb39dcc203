"""API keys: a file of names, argon2 hashes and scopes, read again whenever it changes.

    {"keys": [{"id": "shop", "hash": "$argon2id$...", "scopes": ["caption", "ocr"]}]}

or one such entry a line. A key is `ID.SECRET`, so that one hash is checked and not all of them.
`auth` asks here; `mmllm serve --new-key` makes entries.
"""

import asyncio
import hashlib
import json
import re
import secrets
import time
from pathlib import Path
from typing import Any, NamedTuple

import argon2
import cachetools
import structlog

from mmllm.serve import problems
from mmllm.serve import settings as settings_lib

SECRET_BYTES = 32
MAX_KEY = 256  # characters
REMEMBERED_S, MAX_REMEMBERED = 60.0, 10_000
RECHECK_S = 1.0
CHECKS_AT_ONCE, CHECK_WAIT_S = 2, 5.0
MAX_FILE_BYTES = 10_000_000
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# OWASP's smaller setting, 20 MB and 20 ms a check: a secret of 256 random bits cannot be guessed
# anyway, and a larger one would give a flood of wrong keys more of the machine.
_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)

log = structlog.get_logger(__name__)


class Entry(NamedTuple):
    """A key as the file has it."""

    id: str
    hash: str
    scopes: frozenset[str]


def new_key(name: str, scopes: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Makes a key.

    Args:
      name: the key's id: letters, digits, "_" and "-", at most 64.
      scopes: what it allows, of `settings.SCOPES`.

    Returns:
      The key, which is stored nowhere, and the entry for the file.

    Raises:
      ValueError: another name or scope.
    """
    secret = secrets.token_urlsafe(SECRET_BYTES)
    entry = {"id": name, "hash": _HASHER.hash(secret), "scopes": list(scopes)}
    _entry(entry, "the new key")
    return f"{name}.{secret}", entry


def read(path: Path) -> dict[str, Entry]:
    """Reads a file of keys.

    Raises:
      OSError: it cannot be read.
      ValueError: it is damaged; the message names the entry.
    """
    entries: dict[str, Entry] = {}
    for i, item in enumerate(items(path)):
        entry = _entry(item, f"entry {i + 1} of {path}")
        if entry.id in entries:
            raise ValueError(f"entry {i + 1} of {path} has the id {entry.id!r} of another")
        entries[entry.id] = entry
    return entries


def items(path: Path) -> list[Any]:
    """What a file of keys lists, in either of its forms, as it stands there.

    Raises:
      OSError: it cannot be read.
      ValueError: it has neither form.
    """
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{path} must have at most {MAX_FILE_BYTES} bytes")
    try:
        text = data.decode()
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            parsed = json.loads(text) if lines else {"keys": []}
            if isinstance(parsed, dict) and "keys" not in parsed:
                parsed = {"keys": [parsed]}  # a single line
        except json.JSONDecodeError:
            parsed = {"keys": [json.loads(line) for line in lines]}
    except ValueError as error:
        raise ValueError(f"{path} must be JSON, or a JSON object a line: {error}") from None
    if not isinstance(parsed, dict) or not isinstance(parsed["keys"], list):
        raise ValueError(f'{path} must be of the form {{"keys": [...]}}')
    return parsed["keys"]


def _entry(item: Any, where: str) -> Entry:
    if not isinstance(item, dict) or set(item) != {"id", "hash", "scopes"}:
        raise ValueError(f"{where} must have id, hash and scopes, and nothing else")
    if not isinstance(item["id"], str) or not _ID.fullmatch(item["id"]):
        raise ValueError(f"{where}: id must be 1 to 64 letters, digits, '_' and '-'")
    scopes = item["scopes"]
    if not isinstance(scopes, list) or not set(map(str, scopes)) <= set(settings_lib.SCOPES):
        raise ValueError(f"{where}: scopes must be of {', '.join(settings_lib.SCOPES)}")
    try:
        argon2.extract_parameters(item["hash"])
    except (argon2.exceptions.InvalidHashError, AttributeError, TypeError):
        raise ValueError(f"{where}: hash must be an argon2 hash") from None
    return Entry(item["id"], item["hash"], frozenset(map(str, scopes)))


class KeyRing:
    """The keys of a file, checked without holding up the event loop.

    Args:
      path: of the file.
      recheck_s: seconds between looks at whether it has changed.

    Raises:
      OSError: it cannot be read.
      ValueError: it is damaged.
    """

    def __init__(self, path: Path, recheck_s: float = RECHECK_S) -> None:
        self._path, self._recheck_s = path, recheck_s
        self._stamp = _stamp(path)
        self._entries = read(path)
        self._looked = time.monotonic()
        self._trouble: str | None = None
        self._forget()
        self._turns = asyncio.Semaphore(CHECKS_AT_ONCE)

    def _forget(self) -> None:
        # Apart, so that made-up keys cannot push out good ones.
        self._good: cachetools.TTLCache[bytes, Entry] = cachetools.TTLCache(
            MAX_REMEMBERED, REMEMBERED_S
        )
        self._bad: cachetools.TTLCache[bytes, bool] = cachetools.TTLCache(
            MAX_REMEMBERED, REMEMBERED_S
        )

    async def find(self, key: str) -> Entry | None:
        """The entry of a key, or None if it is no key.

        Raises:
          Problem: "queue-full" where too many unknown keys come at once.
        """
        await self._read_again()
        id, dot, secret = key.partition(".")
        entry = self._entries.get(id)
        # Ids are no secrets: that a wrong one is refused faster tells nothing that matters.
        if entry is None or not dot or len(key) > MAX_KEY:
            return None
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        if digest in self._bad:
            return None
        if (known := self._good.get(digest)) is not None:
            return known
        good, bad = self._good, self._bad  # of this state of the file
        try:
            async with asyncio.timeout(CHECK_WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            raise problems.Problem("queue-full", retry_after_s=CHECK_WAIT_S) from None
        try:
            if digest not in good and digest not in bad:  # not checked while this one waited
                if await asyncio.to_thread(_matches, entry.hash, secret):
                    good[digest] = entry
                else:
                    bad[digest] = True
            return good.get(digest)
        finally:
            self._turns.release()

    async def _read_again(self) -> None:
        """Takes over a changed file; keeps the old keys where the new file is damaged."""
        if time.monotonic() - self._looked < self._recheck_s:
            return
        self._looked = time.monotonic()
        try:
            stamp = await asyncio.to_thread(_stamp, self._path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._entries = await asyncio.to_thread(read, self._path)
        except (OSError, ValueError) as error:
            if str(error) != self._trouble:  # once, not each second
                self._trouble = str(error)
                log.error("the file of keys cannot be used; the old ones stay", reason=str(error))
            return
        self._trouble = None
        self._forget()
        log.info("the file of keys was read again", entries=len(self._entries))


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _matches(hashed: str, secret: str) -> bool:
    try:
        return _HASHER.verify(hashed, secret.encode("utf-8", "surrogatepass"))
    except argon2.exceptions.VerificationError:
        return False
