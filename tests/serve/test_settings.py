"""Defaults that work, bounds that hold, and errors in one line that keep secrets."""

from typing import Any

import pydantic
import pytest

from mmllm.common import paths
from mmllm.serve import settings as settings_lib

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings_lib.Settings.model_fields:
        monkeypatch.delenv(settings_lib.PREFIX + name.upper(), raising=False)


def refusal(**overrides: Any) -> str:
    with pytest.raises(ValueError, match=".") as caught:
        settings_lib.load(**overrides)
    assert not isinstance(caught.value, pydantic.ValidationError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_has_to_be_set():
    settings = settings_lib.load()
    assert (settings.model, settings.host, settings.port) == ("nano", "127.0.0.1", 8000)
    assert settings.engine_threads >= 1
    assert settings.index_path == paths.data_dir() / "serve" / "index.sqlite"
    assert settings.cors_origins == ()
    assert "*" not in settings.trusted_hosts


def test_every_setting_says_what_it_is():
    bare = [n for n, f in settings_lib.Settings.model_fields.items() if not f.description]
    assert not bare


def test_an_override_wins_over_a_variable_and_none_means_not_given(monkeypatch):
    monkeypatch.setenv("MMLLM_PORT", "9000")
    assert settings_lib.load(port=None).port == 9000
    assert settings_lib.load(port=9001).port == 9001


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("MMLLM_REDIS_URL", "")
    assert settings_lib.load().redis_url is None


@pytest.mark.parametrize(
    "text", ["https://a.example, http://b:80", '["https://a.example","http://b:80"]']
)
def test_lists_are_split_at_commas_or_read_as_json(monkeypatch, text):
    monkeypatch.setenv("MMLLM_CORS_ORIGINS", text)
    assert settings_lib.load().cors_origins == ("https://a.example", "http://b:80")


def test_a_task_may_differ_from_the_others(monkeypatch):
    monkeypatch.setenv("MMLLM_BATCHING", '{"caption": {"max_batch": 3}}')
    settings = settings_lib.load(max_wait_ms=4)
    assert settings.batch_of("caption") == settings_lib.Batching(3, 4.0, 64)
    assert settings.batch_of("ocr") == settings_lib.Batching(8, 4.0, 64)


def test_settings_cannot_be_changed():
    with pytest.raises(pydantic.ValidationError):
        settings_lib.load().port = 1


def test_more_workers_leave_fewer_threads(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert settings_lib.load().engine_threads == 8
    assert settings_lib.load(workers=3).engine_threads == 2
    assert settings_lib.load(workers=100).engine_threads == 1
    assert settings_lib.load(workers=3, engine_threads=5).engine_threads == 5


def test_without_credentials_everybody_on_this_machine_may_do_everything():
    assert settings_lib.load().anonymous_scopes == settings_lib.SCOPES


def test_a_public_address_without_credentials_has_no_anonymous_admin():
    scopes = settings_lib.load(host="0.0.0.0").anonymous_scopes
    assert set(settings_lib.SCOPES) - set(scopes) == {"admin"}


@pytest.mark.parametrize(
    "overrides",
    [
        {"trusted_hosts": "*"},
        {"trusted_hosts": "localhost,api.example.org"},
        {"trusted_proxies": "127.0.0.1"},
    ],
)
def test_a_private_address_that_a_proxy_opens_to_others_has_no_anonymous_admin(overrides):
    scopes = settings_lib.load(**overrides).anonymous_scopes
    assert set(settings_lib.SCOPES) - set(scopes) == {"admin"}


def test_who_names_it_gives_anonymous_admin_anywhere():
    settings = settings_lib.load(host="0.0.0.0", anonymous_scopes="admin")
    assert settings.anonymous_scopes == ("admin",)


@pytest.mark.parametrize(
    "host", ["*", "*.example.org", "a.example.", "mmllm-1", "10.0.0.7", "::1", "[fe80::1]"]
)
def test_names_and_addresses_are_trusted_hosts(host):
    assert settings_lib.load(trusted_hosts=(host,)).trusted_hosts == (host,)


def test_with_credentials_nobody_is_anonymous_unless_allowed():
    assert settings_lib.load(jwt_secret=SECRET).anonymous_scopes == ()
    assert settings_lib.load(api_keys_file="keys.json").anonymous_scopes == ()
    settings = settings_lib.load(jwt_secret=SECRET, anonymous_scopes="caption,ocr")
    assert settings.anonymous_scopes == ("caption", "ocr")


def test_the_algorithms_follow_the_kind_of_key():
    assert settings_lib.load().jwt_algorithms == ()
    assert settings_lib.load(jwt_secret=SECRET).jwt_algorithms == ("HS256",)
    public = settings_lib.load(jwt_public_key_file="key.pem").jwt_algorithms
    assert public
    assert not set(public) & set(settings_lib.HMAC)


@pytest.mark.parametrize(
    "overrides",
    [
        {"jwt_secret": SECRET, "jwt_algorithms": "none"},
        {"jwt_secret": SECRET, "jwt_algorithms": "HS256,RS256"},
        {"jwt_public_key_file": "key.pem", "jwt_algorithms": "HS256"},
        {"jwt_algorithms": "HS256"},
    ],
)
def test_algorithms_that_would_confuse_the_kinds_of_key_are_refused(overrides):
    assert "jwt_algorithms" in refusal(**overrides)


def test_two_kinds_of_jwt_key_at_once_are_refused():
    assert "not both" in refusal(jwt_secret=SECRET, jwt_public_key_file="key.pem")


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"port": 99_999}, ["MMLLM_PORT", "65535", "99999"]),
        ({"workers": 0}, ["MMLLM_WORKERS", "1", "0"]),
        ({"max_pixels": 50_000_001}, ["MMLLM_MAX_PIXELS", "50000000"]),
        ({"deadline_s": float("nan")}, ["MMLLM_DEADLINE_S"]),
        ({"deadline_s": float("inf")}, ["MMLLM_DEADLINE_S", "600"]),
        ({"engine": "tensorrt"}, ["MMLLM_ENGINE", "litert", "jax", "tensorrt"]),
        ({"formats": "JPEG,GIF"}, ["MMLLM_FORMATS", "PNG", "GIF"]),
        ({"rate_per_key": "often"}, ["MMLLM_RATE_PER_KEY", "often"]),
        ({"rate_per_key": "10/minute;5/second"}, ["MMLLM_RATE_PER_KEY", "one rate"]),
        ({"rate_per_address": "0/minute"}, ["MMLLM_RATE_PER_ADDRESS", "over 0"]),
        ({"root_path": "https://x/"}, ["MMLLM_ROOT_PATH"]),
        ({"cors_origins": "*"}, ["MMLLM_CORS_ORIGINS", "https://a.example", "*"]),
        ({"trusted_proxies": "10.0.0.0/99"}, ["MMLLM_TRUSTED_PROXIES", "10.0.0.0/99"]),
        ({"trusted_hosts": ""}, ["MMLLM_TRUSTED_HOSTS"]),
        ({"trusted_hosts": "http://a"}, ["MMLLM_TRUSTED_HOSTS", "api.example.org", "http://a"]),
        ({"trusted_hosts": "a.example:8000"}, ["MMLLM_TRUSTED_HOSTS", "a.example:8000"]),
        ({"trusted_hosts": "a.*"}, ["MMLLM_TRUSTED_HOSTS", "*.example.org", "a.*"]),
        ({"anonymous_scopes": "root"}, ["MMLLM_ANONYMOUS_SCOPES", "caption", "root"]),
        ({"batching": {"caption": {"max_batch": 0}}}, ["MMLLM_BATCHING", "caption", "max_batch"]),
        ({"batching": {"caption": {"size": 1}}}, ["MMLLM_BATCHING", "size"]),
        ({"batching": {"speech": {}}}, ["MMLLM_BATCHING", "speech", "embed_text"]),
        ({"min_side": 100, "max_side": 10}, ["min_side", "10"]),
        ({"max_pixles": 1}, ["max_pixles", "max_pixels"]),
        ({"port": "tcp://10.0.0.1:80"}, ["MMLLM_PORT", "enableServiceLinks"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(overrides, parts):
    message = refusal(**overrides)
    assert not [part for part in parts if part not in message], message


def test_a_wrong_value_does_not_drag_its_dependents_along():
    assert "default" not in refusal(workers=0, host="")


def test_a_misspelt_variable_is_not_passed_over(monkeypatch):
    monkeypatch.setenv("MMLLM_MAX_PIXLES", "1000")
    message = refusal()
    assert "MMLLM_MAX_PIXLES" in message
    assert "max_pixels" in message


def test_variables_of_other_parts_are_left_alone(monkeypatch):
    monkeypatch.setenv("MMLLM_DATA", "/somewhere")
    monkeypatch.setenv("MMLLM_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("MMLLM_TYPECHECK", "1")
    settings_lib.load()


@pytest.mark.parametrize("variable", ["MMLLM_BATCHING", "MMLLM_TRUSTED_HOSTS"])
def test_broken_json_names_its_variable(monkeypatch, variable):
    monkeypatch.setenv(variable, "[broken")
    assert variable in refusal()


@pytest.mark.parametrize(
    "overrides",
    [
        {"jwt_secret": "hunter2"},
        {"metrics_token": "hunter2"},
        {"redis_url": "http://user:hunter2@host"},
        {"otlp_endpoint": "ftp://user:hunter2@host"},
    ],
)
def test_errors_keep_secrets(overrides):
    assert "hunter2" not in refusal(**overrides)


def test_what_is_printed_keeps_secrets():
    settings = settings_lib.load(
        jwt_secret="hunter2" * 5,
        metrics_token="hunter2" * 5,
        redis_url="redis://:hunter2@localhost",
        otlp_endpoint="https://u:hunter2@collector",
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)


def test_bodies_in_all_are_no_smaller_than_one():
    assert settings_lib.load().max_bodies_bytes == settings_lib.BODIES_BYTES
    assert settings_lib.load(max_body_bytes=10**9).max_bodies_bytes == 2 * 10**9
    told = refusal(max_body_bytes=10_000, max_bodies_bytes=9_999)
    assert told == "max_bodies_bytes must be at least 10000, a body"
