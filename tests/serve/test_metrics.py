"""What the service counts: right numbers, bounded labels, one answer for several processes."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import parser

from mmllm.serve import metrics as metrics_lib

ROOT = Path(__file__).parents[2]
COUNT = (
    "import prometheus_client as p; "
    "p.Counter('calls', 'Calls.', ('by',)).labels('a').inc(2); "
    "p.Histogram('seconds', 'Times.', buckets=(1.0,)).observe(.5); "
    "p.Gauge('queue', 'Waiting.', multiprocess_mode='livesum').set(3)"
)


def samples(text: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    """Values by name and label values, in the order of the labels' names."""
    found = {}
    for family in parser.text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found[sample.name, tuple(value for _, value in sorted(sample.labels.items()))] = (
                sample.value
            )
    return found


@pytest.fixture
def metrics() -> metrics_lib.Metrics:
    return metrics_lib.Metrics()


def test_every_method_shows_in_what_prometheus_reads(metrics):
    metrics.request("/v1/caption", "POST", 200, 0.03)
    metrics.in_flight(1)
    metrics.problem("queue-full")
    metrics.rate_limited("address")
    metrics.store_error("limits")
    metrics.queue_wait("caption", 0.002)
    metrics.queue_depth("ocr", 7)
    metrics.batch_size("vqa", 4)
    metrics.items_dropped("vqa", 2)
    metrics.cache("caption", "joined")
    metrics.fallback("caption", "jax")
    metrics.tokens("caption", 5)
    metrics.breaker("litert", "open")
    metrics.stuck_thread("litert")
    metrics.reload(False)
    metrics.ready(True)
    metrics.draining(True)
    metrics.log_dropped(3)
    text, kind = metrics.expose()
    assert kind.startswith("text/plain")
    found = samples(text)
    expected = {
        ("mmllm_request_seconds_count", ("POST", "/v1/caption", "2xx")): 1,
        ("mmllm_requests_in_flight", ()): 1,
        ("mmllm_problems_total", ("queue-full",)): 1,
        ("mmllm_rate_limited_total", ("address",)): 1,
        ("mmllm_store_errors_total", ("limits",)): 1,
        ("mmllm_stage_seconds_sum", ("queue", "caption")): 0.002,
        ("mmllm_queue_depth", ("ocr",)): 7,
        ("mmllm_batch_size_sum", ("vqa",)): 4,
        ("mmllm_items_dropped_total", ("vqa",)): 2,
        ("mmllm_cache_total", ("joined", "caption")): 1,
        ("mmllm_fallback_answers_total", ("jax", "caption")): 1,
        ("mmllm_tokens_generated_total", ("caption",)): 5,
        ("mmllm_breaker_state", ("litert",)): 2,
        ("mmllm_stuck_threads_total", ("litert",)): 1,
        ("mmllm_reloads_total", ("failed",)): 1,
        ("mmllm_ready_processes", ()): 1,
        ("mmllm_draining_processes", ()): 1,
        ("mmllm_log_lines_dropped_total", ()): 3,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["mmllm_resident_memory_bytes", ()] > 1e6


def test_a_status_is_counted_by_its_class_and_a_lost_client_as_gone(metrics):
    for status in (200, 204, 404, 503, 0):
        metrics.request("/v1/ocr", "POST", status, 0.1)
    found = samples(metrics.expose()[0])
    counts = {
        kind: found["mmllm_request_seconds_count", ("POST", "/v1/ocr", kind)]
        for kind in ("2xx", "4xx", "5xx", "gone")
    }
    assert counts == {"2xx": 2, "4xx": 1, "5xx": 1, "gone": 1}


def test_what_a_client_invents_becomes_no_series(metrics):
    for i in range(3 * metrics_lib.MAX_VALUES):
        metrics.request(f"/{i}", f"M{i}", 200, 0.1)
        metrics.stage(f"task{i}", f"stage{i}", 0.1)
        metrics.cache(f"task{i}", f"result{i}")
        metrics.problem(f"code{i}")
    found = samples(metrics.expose()[0])
    routes = {labels for name, labels in found if name == "mmllm_request_seconds_count"}
    assert len(routes) == metrics_lib.MAX_VALUES + 1
    assert {method for method, _, _ in routes} == {"other"}
    assert found["mmllm_stage_seconds_count", ("other", "other")] == 600
    assert len([1 for name, _ in found if name == "mmllm_problems_total"]) <= 201


def test_one_model_answers_after_a_reload(metrics):
    metrics.model("nano", "a" * 64, "litert")
    metrics.model("nano", "b" * 64, "litert")
    found = samples(metrics.expose()[0])
    answering = [labels for (name, labels), value in found.items() if "info" in name and value]
    assert [labels[1] for labels in answering] == ["b" * 12]


def test_an_unknown_breaker_state_is_refused(metrics):
    with pytest.raises(KeyError):
        metrics.breaker("litert", "ajar")


def test_several_processes_answer_as_one(tmp_path):
    """Two processes count, one of them ends, a third answers for both."""
    count = (
        "from mmllm.serve.metrics import Metrics; m = Metrics(); "
        "m.request('/v1/caption', 'POST', 200, .1); m.queue_depth('caption', 3); m.ready(True); "
        "m.model('nano', 'f' * 64, 'litert'); "
        "import sys; print('counted', flush=True); sys.stdin.read()"
    )
    expose = (
        "import sys; from mmllm.serve import metrics as m; "
        "from mmllm.serve.process import supervisor; "
        "supervisor._drop_gauges(int(sys.argv[1])); "
        "sys.stdout.buffer.write(m.Metrics().expose()[0])"
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdin=pipe, stdout=pipe)

    both = [start(count) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == b"counted\n"
    both[0].communicate()
    found = samples(start(expose, str(both[0].pid)).communicate()[0])
    both[1].communicate()
    assert found["mmllm_request_seconds_count", ("POST", "/v1/caption", "2xx")] == 2
    assert found["mmllm_queue_depth", ("caption",)] == 3  # the ended one has no queue
    assert found["mmllm_ready_processes", ()] == 1
    assert found["mmllm_model_info", ("litert", "f" * 12, "nano")] == 1


def end_a_process(folder: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", COUNT], env=environment, cwd=ROOT, check=True)


def test_what_ended_processes_counted_is_kept_in_one_file_a_kind(tmp_path: Path):
    for number in range(1, 4):
        end_a_process(tmp_path)
        for _ in range(2):  # to look does not count again
            text = metrics_lib._exposed_by_all(tmp_path).decode()
            assert f'calls_total{{by="a"}} {2.0 * number}' in text
            assert f'seconds_bucket{{le="1.0"}} {1.0 * number}' in text
            assert f"seconds_sum {0.5 * number}" in text
        found = {path.name for path in tmp_path.iterdir() if not path.name.startswith("gauge")}
        assert found == {"counter_ended.db", "histogram_ended.db", "scrape.lock"}


def test_files_of_the_living_are_left_alone(tmp_path: Path):
    end_a_process(tmp_path)
    for path in tmp_path.glob("*.db"):
        path.rename(path.with_stem(f"{path.stem.rpartition('_')[0]}_{os.getpid()}"))
    text = metrics_lib._exposed_by_all(tmp_path).decode()
    assert 'calls_total{by="a"} 2.0' in text
    assert "queue 3.0" in text
    assert len([*tmp_path.glob(f"*_{os.getpid()}.db")]) == 3


def test_a_scrape_does_not_wait_for_another_without_end(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(metrics_lib, "LOCK_S", 0.02)
    with (tmp_path / "scrape.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match="another process"):
            metrics_lib._exposed_by_all(tmp_path)
