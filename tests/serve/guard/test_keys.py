"""The file of keys: what is in it opens, what is not does not, and changes count at once."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from mmllm.serve import problems
from mmllm.serve.guard import keys

KEY, ENTRY = keys.new_key("shop", ("caption", "ocr"))
OTHER_KEY, OTHER = keys.new_key("lab", ("admin",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "keys.json", ENTRY)


def write(path: Path, *entries: dict) -> Path:
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(json.dumps({"keys": list(entries)}))
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))  # clocks may be coarse
    return path


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The secrets that argon2 was asked about."""
    verified: list[str] = []
    matches = keys._matches

    def counted(hashed: str, secret: str) -> bool:
        verified.append(secret)
        return matches(hashed, secret)

    monkeypatch.setattr(keys, "_matches", counted)
    return verified


def find(ring: keys.KeyRing, *given: str, at_once: bool = False) -> list[str | None]:
    async def look() -> list[str | None]:
        if at_once:
            found = await asyncio.gather(*(ring.find(key) for key in given))
        else:
            found = [await ring.find(key) for key in given]
        return [None if entry is None else entry.id for entry in found]

    return asyncio.run(look())


def test_a_key_opens_and_what_is_close_to_it_does_not(path):
    ring = keys.KeyRing(path)
    assert find(ring, KEY) == ["shop"]
    wrong = [KEY[:-1], KEY + "A", KEY.upper(), "lab" + KEY[4:], KEY[5:], "shop", "shop.", ".", ""]
    wrong += [
        ENTRY["hash"],
        f"shop.{ENTRY['hash']}",
        KEY + " ",
        "shop." + "A" * 10**6,
        "shop.\ud800",
    ]
    assert find(ring, *wrong) == [None] * len(wrong)


def test_a_key_is_checked_once_a_turn_however_many_ask(path, checks):
    ring = keys.KeyRing(path)
    assert find(ring, *[KEY] * 20, at_once=True) == ["shop"] * 20
    assert len(checks) <= keys.CHECKS_AT_ONCE
    checks.clear()
    assert find(ring, KEY) == ["shop"]
    assert not checks


def test_a_wrong_key_is_remembered_apart_from_good_ones(path, checks):
    ring = keys.KeyRing(path)
    find(ring, KEY)
    assert find(ring, *["shop.wrong"] * 5) == [None] * 5
    assert len(checks) == 2
    for i in range(keys.MAX_REMEMBERED + 10):
        ring._bad[i.to_bytes(8)] = True
    assert find(ring, KEY) == ["shop"]
    assert len(checks) == 2


def test_an_unknown_id_costs_no_check(path, checks):
    assert find(keys.KeyRing(path), *(f"id{i}.x" for i in range(100))) == [None] * 100
    assert not checks


def test_a_flood_of_wrong_keys_is_shed(path, monkeypatch):
    monkeypatch.setattr(keys, "CHECK_WAIT_S", 0.01)
    ring = keys.KeyRing(path)

    async def flood() -> None:
        for _ in range(keys.CHECKS_AT_ONCE):
            await ring._turns.acquire()
        with pytest.raises(problems.Problem) as error:
            await ring.find("shop.wrong")
        assert error.value.code == "queue-full"

    asyncio.run(flood())


def test_a_changed_file_counts_at_once(path):
    ring = keys.KeyRing(path, recheck_s=0.0)
    assert find(ring, KEY, OTHER_KEY) == ["shop", None]
    write(path, OTHER)
    assert find(ring, KEY, OTHER_KEY) == [None, "lab"]


def test_a_file_is_looked_at_only_so_often(path):
    ring = keys.KeyRing(path, recheck_s=3600.0)
    write(path, OTHER)
    assert find(ring, KEY) == ["shop"]


@pytest.mark.parametrize("damage", ["{", "", '{"keys": 5}', "missing"])
def test_a_damaged_file_leaves_the_old_keys(path, damage):
    ring = keys.KeyRing(path, recheck_s=0.0)
    if damage == "missing":
        path.unlink()
    elif damage:
        path.write_text(damage)
    else:
        path.write_bytes(b"\xff\xfe")
    assert find(ring, KEY) == ["shop"]
    write(path, OTHER)
    assert find(ring, KEY, OTHER_KEY) == [None, "lab"]


def test_one_entry_a_line_reads_the_same(path):
    whole = keys.read(write(path, ENTRY, OTHER))
    path.write_text(f"{json.dumps(ENTRY)}\n\n{json.dumps(OTHER)}\n")
    assert keys.read(path) == whole
    path.write_text(json.dumps(ENTRY))
    assert list(keys.read(path)) == ["shop"]
    path.write_text("\n")
    assert keys.read(path) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "a.b"}, "id must be"),
        ({"id": ""}, "id must be"),
        ({"id": "shop"}, "has the id 'shop' of another"),
        ({"hash": "plain"}, "hash must be an argon2 hash"),
        ({"hash": 5}, "hash must be an argon2 hash"),
        ({"scopes": ["fly"]}, "scopes must be of caption"),
        ({"scopes": "admin"}, "scopes must be of caption"),
        ({"scopes": [["admin"]]}, "scopes must be of caption"),
        ({"extra": 1}, "and nothing else"),
    ],
)
def test_a_wrong_entry_is_named(path, change, message):
    with pytest.raises(ValueError, match=rf"entry 2 of .*{message}"):
        keys.read(write(path, ENTRY, OTHER | change))


def test_a_file_out_of_all_bounds_is_refused(path, monkeypatch):
    monkeypatch.setattr(keys, "MAX_FILE_BYTES", 100)
    with pytest.raises(ValueError, match="at most 100 bytes"):
        keys.read(path)


def test_a_new_key_is_long_and_its_entry_does_not_hold_it():
    secret = KEY.partition(".")[2]
    assert len(secret) >= 43  # 256 bits
    assert secret not in json.dumps(ENTRY)
    assert keys.new_key("shop", ())[0] != KEY


@pytest.mark.parametrize(("name", "scopes"), [("a b", ()), ("", ()), ("a", ("fly",))])
def test_a_new_key_of_a_wrong_name_or_scope_is_refused(name, scopes):
    with pytest.raises(ValueError, match="the new key"):
        keys.new_key(name, scopes)
