"""What deploy/ says of the service is true of it: names of settings, times, sizes, probes."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from mmllm.serve import settings as settings_lib

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
DEFAULTS = settings_lib.Settings()
OTHER_VARIABLES = {"MMLLM_DATA"}
PAUSE_S = 5  # of preStop in mmllm.yaml


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, pattern
    return int(found[1])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_variable_is_a_setting(path: Path):
    named = set(re.findall(r"\bMMLLM_[A-Z_]+", path.read_text())) - OTHER_VARIABLES
    known = {f"MMLLM_{name.upper()}" for name in settings_lib.Settings.model_fields}
    assert named <= known


def test_nginx_waits_longer_than_the_service_and_takes_larger_bodies():
    text = (DEPLOY / "nginx.conf").read_text()
    upstream = text[text.index("upstream") : text.index("limit_conn_zone")]
    assert number(r"keepalive_timeout (\d+)s", upstream) < DEFAULTS.keep_alive_s
    assert number(r"proxy_read_timeout (\d+)s", text) > DEFAULTS.deadline_s
    assert number(r"client_max_body_size (\d+)m", text) * 2**20 > DEFAULTS.max_body_bytes


def test_nginx_hands_on_the_port_that_a_pages_origin_has():
    text = (DEPLOY / "nginx.conf").read_text()
    assert set(re.findall(r"proxy_set_header Host (\S+);", text)) == {"$http_host"}


def test_containers_have_time_to_drain():
    bound = DEFAULTS.drain_s + 10
    assert number(r"stop_grace_period: (\d+)s", (DEPLOY / "compose.yaml").read_text()) >= bound
    pods = (DEPLOY / "kubernetes" / "mmllm.yaml").read_text()
    assert f"sleep({PAUSE_S})" in pods
    assert number(r"terminationGracePeriodSeconds: (\d+)", pods) >= bound + PAUSE_S


def test_containers_of_one_machine_share_an_index_and_pods_have_none():
    compose = (DEPLOY / "compose.yaml").read_text()
    assert 'volumes: ["index:/data"]' in compose
    assert "MMLLM_INDEX_PATH: /data/index.sqlite" in compose
    assert "install -d -o 10001 /data" in (DEPLOY / "Dockerfile").read_text()
    pods = (DEPLOY / "kubernetes" / "mmllm.yaml").read_text()
    assert number(r"replicas: (\d+)", pods) > 1
    assert 'MMLLM_INDEX_ITEMS: "0"' in pods


def test_pods_without_their_secret_do_not_start():
    pods = (DEPLOY / "kubernetes" / "mmllm.yaml").read_text()
    assert "secret: {secretName: mmllm-keys}" in pods
    assert "optional" not in pods
    assert "everyone may ask" not in pods


def test_under_ray_whoever_comes_without_a_key_is_no_admin(monkeypatch: pytest.MonkeyPatch):
    text = (DEPLOY / "ray_app.py").read_text()
    defaults = re.search(r"^DEFAULTS = (\{.*\})$", text, re.MULTILINE)
    assert defaults
    for name, value in json.loads(defaults[1]).items():
        monkeypatch.setenv(name, value)
    settings = settings_lib.load()
    assert settings.host == "0.0.0.0"
    assert "admin" not in settings.anonymous_scopes


def test_ray_is_an_extra_that_no_lock_has():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    locked = re.search(r"^EXTRAS = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert locked
    assert set(extras) - set(locked[1].split()) == {"ray"}
    assert set(locked[1].split()) <= set(extras)
    for lock in ROOT.glob("requirements*.lock"):
        assert not re.search(r"^ray==", lock.read_text(), re.MULTILINE)


def test_memory_ends_a_process_before_the_system_does():
    pods = (DEPLOY / "kubernetes" / "mmllm.yaml").read_text()
    assert number(r'MMLLM_MAX_RSS_MB: "(\d+)"', pods) * 1e6 < 2**30
    assert "memory: 1Gi" in pods


def test_alerts_name_metrics_that_exist():
    source = (ROOT / "mmllm" / "serve" / "metrics.py").read_text()
    rules = (DEPLOY / "prometheus" / "rules.yaml").read_text()
    for name in set(re.findall(r"\bmmllm_([a-z_]+)", rules)):
        assert f'"{re.sub("_(total|count|bucket)$", "", name)}"' in source, name


def test_the_serve_lock_is_a_part_of_the_whole_lock():
    def pins(lock: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9.-]+==\S+", (ROOT / lock).read_text(), re.MULTILINE))

    serve = pins("requirements-serve.lock")
    assert pins("requirements-runtime.lock") <= serve <= pins("requirements.lock")
    assert "://" not in (ROOT / "requirements-serve.lock").read_text()


def test_nginx_takes_its_configuration(tmp_path: Path):
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    text = re.sub(r"mmllm-\d:8000", "127.0.0.1:8000", (DEPLOY / "nginx.conf").read_text())
    text = text.replace("/tmp/nginx", f"{tmp_path}/nginx")
    (tmp_path / "nginx.conf").write_text(text)
    command = [nginx, "-t", "-c", str(tmp_path / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_alerts_fire_when_they_should():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    folder = DEPLOY / "prometheus"
    for command in (["check", "config", "prometheus.yaml"], ["test", "rules", "rules_test.yaml"]):
        done = subprocess.run(
            [promtool, *command], cwd=folder, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
