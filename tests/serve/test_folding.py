"""Folding: what ended processes counted stays counted, in one file a kind."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmllm.serve import folding

ROOT = Path(__file__).parents[2]
COUNT = (
    "import prometheus_client as p; "
    "p.Counter('calls', 'Calls.', ('by',)).labels('a').inc(2); "
    "p.Histogram('seconds', 'Times.', buckets=(1.0,)).observe(.5); "
    "p.Gauge('queue', 'Waiting.', multiprocess_mode='livesum').set(3)"
)


def end_a_process(folder: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", COUNT], env=environment, cwd=ROOT, check=True)


def test_what_ended_processes_counted_is_kept_in_one_file_a_kind(tmp_path: Path):
    for number in range(1, 4):
        end_a_process(tmp_path)
        for _ in range(2):  # to look does not count again
            text = folding.exposed(tmp_path).decode()
            assert f'calls_total{{by="a"}} {2.0 * number}' in text
            assert f'seconds_bucket{{le="1.0"}} {1.0 * number}' in text
            assert f"seconds_sum {0.5 * number}" in text
        found = {path.name for path in tmp_path.iterdir() if not path.name.startswith("gauge")}
        assert found == {"counter_ended.db", "histogram_ended.db", "scrape.lock"}


def test_files_of_the_living_are_left_alone(tmp_path: Path):
    end_a_process(tmp_path)
    for path in tmp_path.glob("*.db"):
        path.rename(path.with_stem(f"{path.stem.rpartition('_')[0]}_{os.getpid()}"))
    text = folding.exposed(tmp_path).decode()
    assert 'calls_total{by="a"} 2.0' in text
    assert "queue 3.0" in text
    assert len([*tmp_path.glob(f"*_{os.getpid()}.db")]) == 3


def test_a_scrape_does_not_wait_for_another_without_end(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(folding, "LOCK_S", 0.02)
    with (tmp_path / "scrape.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match="another process"):
            folding.exposed(tmp_path)
