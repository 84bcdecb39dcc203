"""The search index: exact hits, files that several processes share, and damage."""

import fcntl
import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmllm.serve import problems
from mmllm.serve.engine import index as index_lib

WIDTH = 4
MODEL = "f" * 64
# Two unit vectors in float32: each product is off by about 1e-7 of 1, however near 0 the sum lies.
COSINE_TOLERANCE = 5e-7


def opened(folder: Path, model: str = MODEL, limit: int = 100_000) -> index_lib.Index:
    return index_lib.Index(folder / "index.sqlite", model, WIDTH, limit)


def vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def ids(found: list[index_lib.Found]) -> list[str]:
    return [hit.id for hit in found]


X, Y, XY = vector(1, 0, 0, 0), vector(0, 1, 0, 0), vector(1, 1, 0, 0)


def test_the_closest_comes_first_with_its_cosine_and_metadata(tmp_path: Path):
    index = opened(tmp_path)
    index.add("x", 3 * X, {"title": "ein Kürbis"})
    index.add("y", Y, {})
    found = index.search(vector(2, 1, 0, 0), 5)
    assert ids(found) == ["x", "y"]
    assert found[0].score == pytest.approx(2 / 5**0.5)
    assert found[0].metadata == {"title": "ein Kürbis"}
    assert ids(index.search(Y, 1)) == ["y"]
    index.close()


def test_equals_come_in_the_order_they_were_added(tmp_path: Path):
    index = opened(tmp_path)
    for name in "edcba":
        index.add(name, X, {})
    assert ids(index.search(X, 3)) == ["e", "d", "c"]
    index.remove("e")  # the last takes its place in memory, and not its age
    assert ids(index.search(X, 4)) == ["d", "c", "b", "a"]
    index.close()


def test_the_same_id_is_put_in_the_place_of_the_old(tmp_path: Path):
    index = opened(tmp_path, limit=1)
    index.add("a", X, {"n": 1})
    index.add("a", Y, {"n": 2})
    assert len(index) == 1
    (found,) = index.search(Y, 5)
    assert found == index_lib.Found("a", 1.0, {"n": 2})
    assert index.remove("a")
    assert not index.remove("a")
    assert index.search(X, 5) == []
    index.close()


def test_a_full_index_refuses_new_ids_only(tmp_path: Path):
    index = opened(tmp_path, limit=2)
    index.add("a", X, {})
    index.add("b", X, {})
    with pytest.raises(problems.Problem, match="index-full"):
        index.add("c", X, {})
    index.add("a", Y, {})
    index.remove("b")
    index.add("c", X, {})
    assert len(index) == 2
    index.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (vector(1, 2, 3), "shape"),
        (vector(0, 0, 0, 0), "above zero"),
        (vector(float("nan"), 0, 0, 0), "finite"),
        (vector(float("inf"), 0, 0, 0), "finite"),
    ],
)
def test_a_vector_without_direction_is_refused(tmp_path: Path, wrong: np.ndarray, message: str):
    index = opened(tmp_path)
    with pytest.raises(ValueError, match=message):
        index.add("a", wrong, {})
    with pytest.raises(ValueError, match=message):
        index.search(wrong, 1)
    with pytest.raises(ValueError, match="k must be at least 1"):
        index.search(X, 0)
    with pytest.raises(ValueError, match="metadata must have at most"):
        index.add("a", X, {"text": "x" * index_lib.MAX_METADATA_BYTES})
    assert len(index) == 0
    index.close()


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 2**32 - 1), st.booleans()),
        max_size=30,
    )
)
def test_it_answers_as_a_naive_search_does(tmp_path_factory, steps: list[tuple[str, int, bool]]):
    folder = tmp_path_factory.mktemp("index")
    index, naive = opened(folder), {}
    for name, seed, adds in steps:
        if adds:
            made = np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
            index.add(name, made, {})
            naive[name] = made / np.linalg.norm(made)
        else:
            assert index.remove(name) == (naive.pop(name, None) is not None)
    found = index.search(XY, 3)
    query = XY / np.linalg.norm(XY)
    expected = sorted((float(each @ query) for each in naive.values()), reverse=True)[:3]
    assert [hit.score for hit in found] == pytest.approx(expected, abs=COSINE_TOLERANCE)
    index.close()
    again = opened(folder)
    assert again.search(XY, 3) == found
    again.close()


def test_it_grows_past_its_first_rows(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(index_lib, "FIRST_ROWS", 2)
    index = opened(tmp_path)
    for number in range(9):
        index.add(str(number), vector(1, number, 0, 0), {})
    assert ids(index.search(Y, 2)) == ["8", "7"]
    index.close()


def test_another_open_index_sees_what_was_added_and_removed(tmp_path: Path):
    one, other = opened(tmp_path), opened(tmp_path)
    one.add("a", X, {})
    one.add("b", Y, {})
    assert ids(other.search(X, 5)) == ["a", "b"]
    other.remove("a")
    other.add("c", X, {})
    assert ids(one.search(X, 5)) == ["c", "b"]
    one.close()
    other.close()


def test_one_that_missed_many_removals_reads_all_again(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(index_lib, "KEPT_REMOVALS", 2)
    one, other = opened(tmp_path), opened(tmp_path)
    for name in "abcde":
        one.add(name, X, {})
    assert len(other.search(X, 9)) == 5
    for name in "abcd":
        one.remove(name)
    assert ids(other.search(X, 9)) == ["e"]
    one.close()
    other.close()


def _add_many(folder: str, prefix: str) -> None:
    index = opened(Path(folder))
    for number in range(20):
        index.add(f"{prefix}{number}", vector(1, number, 0, 0), {})
    index.close()


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_add_many, args=(str(tmp_path), "a"))
    process.start()
    index, count = opened(tmp_path), 0
    while process.is_alive() or count < 20:
        index.add(f"b{count}", Y, {})
        index.search(X, 1)
        count += 1
    process.join(60)
    assert process.exitcode == 0
    assert len(index.search(X, 10_000)) == len(index) == 20 + count
    index.close()


def test_another_model_has_an_index_of_its_own(tmp_path: Path):
    one = opened(tmp_path)
    one.add("a", X, {})
    other = opened(tmp_path, "e" * 64)
    assert other.search(X, 5) == []
    other.close()
    one.close()
    again = opened(tmp_path)
    assert ids(again.search(X, 5)) == ["a"]
    again.close()


def test_a_damaged_file_is_set_aside_and_an_empty_index_begun(tmp_path: Path, caplog):
    index = opened(tmp_path)
    index.add("a", X, {})
    index.close()
    index.path.write_bytes(b"no database at all" * 100)
    again = opened(tmp_path)
    assert len(again) == 0
    again.add("b", X, {})
    again.close()
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_bytes().startswith(b"no database")
    assert "is kept as" in caplog.text


def test_an_index_of_a_like_named_model_is_not_mixed_up(tmp_path: Path):
    index = opened(tmp_path)
    index.add("a", X, {})
    index.close()
    other = opened(tmp_path, MODEL[:16] + "0" * 48)  # the same file name
    assert len(other) == 0
    other.close()


def test_damage_while_it_is_open_is_a_problem_and_then_mended(tmp_path: Path):
    index = opened(tmp_path)
    index.add("a", X, {})
    connection = sqlite3.connect(index.path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with index.path.open("r+b") as file:
        file.write(b"\0" * index.path.stat().st_size)
    index._disconnect()  # its pages would come from memory
    assert index.search(X, 5) == []
    assert list(tmp_path.glob("*.damaged-*"))
    index.close()


def test_a_full_disk_is_a_problem_and_nothing_half_written(tmp_path: Path):
    index = opened(tmp_path)
    index.add("a", X, {})
    assert index._connection is not None
    (pages,) = index._connection.execute("PRAGMA page_count").fetchone()
    index._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(problems.Problem, match="index-unavailable"):  # noqa: PT012
        for number in range(100):
            index.add(str(number), X, {"text": "x" * 8000})
    assert ids(index.search(X, 500))[0] == "a"
    index.add("b", X, {})  # opened anew, where there is room
    assert index.remove("b")
    index.close()


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(problems.Problem, match="index-unavailable") as raised:
        index_lib.Index(tmp_path / "file" / "index.sqlite", MODEL, WIDTH, 10)
    assert raised.value.retry_after_s == 1.0


def test_a_repair_that_another_process_is_at_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(index_lib, "BUSY_S", 0.02)
    index = opened(tmp_path)
    index.close()
    with index.path.with_suffix(".lock").open() as other:
        fcntl.flock(other.fileno(), fcntl.LOCK_EX)
        with pytest.raises(problems.Problem, match="index-unavailable"):
            index.search(X, 1)
    assert index.search(X, 1) == []
    index.close()


def test_a_lock_that_another_holds_is_not_waited_for_without_end(tmp_path: Path, monkeypatch):
    index = opened(tmp_path)
    monkeypatch.setattr(index_lib, "BUSY_S", 0.05)
    index.close()
    other = sqlite3.connect(index.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(problems.Problem, match="index-unavailable"):
        index.add("a", X, {})
    other.execute("ROLLBACK")
    other.close()
    index.add("a", X, {})
    assert len(index) == 1
    index.close()


def _begin_anew(folder: str) -> None:
    """Finds the index damaged, as another process does, and adds an entry to the new one."""
    index = opened(Path(folder))
    index.add("theirs", Y, {})
    index.close()


def test_after_a_repair_by_another_process_both_use_the_new_file(tmp_path: Path):
    index = opened(tmp_path)
    index.add("lost", X, {})
    assert index._connection is not None
    index._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # nothing heals the damage
    with index.path.open("r+b") as file:
        file.write(b"damage" * 100)
    process = multiprocessing.get_context("spawn").Process(
        target=_begin_anew, args=(str(tmp_path),)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    index.add("ours", X, {})
    assert ids(index.search(X, 5)) == ["ours", "theirs"]
    other = opened(tmp_path)
    assert ids(other.search(X, 5)) == ["ours", "theirs"]
    for each in (index, other):
        each.close()
    assert [*tmp_path.glob("*.damaged-*")]


def test_a_write_to_a_file_that_was_just_set_aside_is_not_said_to_be_kept(tmp_path: Path):
    index = opened(tmp_path)
    index.add("a", X, {})
    connected = index._connect

    def overtaken() -> sqlite3.Connection:
        connection = connected()
        index.path.rename(tmp_path / "aside")
        return connection

    index._connect = overtaken
    with pytest.raises(problems.Problem, match="index-unavailable"):
        index.add("b", Y, {})
    index._connect = connected
    index.add("b", Y, {})
    assert ids(index.search(Y, 5)) == ["b"]
    index.close()
