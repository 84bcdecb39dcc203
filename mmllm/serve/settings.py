"""Every setting of the HTTP service, once: its default, unit, bounds, and what it is for.

    MMLLM_PORT=9000 MMLLM_CORS_ORIGINS=https://a.example,https://b.example mmllm serve

Read from environment variables `MMLLM_<NAME>` when a process starts, and the first thing that the
rest of the service is given.
"""

import difflib
import ipaddress
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import limits
import pydantic
import pydantic_settings
from pydantic import Field, SecretStr
from pydantic_settings import NoDecode

from mmllm.common import paths

PREFIX = "MMLLM_"
Task = Literal["caption", "ocr", "vqa", "embed_image", "embed_text"]
Scope = Literal["caption", "ocr", "vqa", "embed", "search", "index", "admin"]
TASKS: tuple[Task, ...] = ("caption", "ocr", "vqa", "embed_image", "embed_text")
SCOPES: tuple[Scope, ...] = ("caption", "ocr", "vqa", "embed", "search", "index", "admin")
FORMATS = ("JPEG", "PNG", "WEBP")
HMAC = ("HS256", "HS384", "HS512")
PUBLIC_KEY = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
LOOPBACK = ("127.0.0.1", "::1", "[::1]", "localhost")
MIN_SECRET_BYTES = 32  # RFC 7518: as long as the hash
MIN_TOKEN_BYTES = 16
BODIES_BYTES = 200_000_000
_HOST = re.compile(r"\*|(\*\.)?[\w-]+(\.[\w-]+)*\.?|\[?[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*\]?")
_URLS_WITH_PASSWORDS = {"redis_url", "otlp_endpoint"}


def _split(value: Any) -> Any:
    """Takes "a, b" as well as the JSON list ["a", "b"] from an environment variable."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _rate(value: str) -> str:
    rates = limits.parse_many(value)  # raises ValueError
    if len(rates) != 1 or rates[0].amount < 1:
        raise ValueError("must be one rate over 0, such as 600/minute")
    return value


def _of_at_least(least: int) -> Any:
    def checked(secret: SecretStr) -> SecretStr:
        size = len(secret.get_secret_value().encode())
        if size < least:
            raise ValueError(f"must have at least {least} bytes, has {size}")
        return secret

    return pydantic.AfterValidator(checked)


Items = Annotated[tuple[str, ...], NoDecode, pydantic.BeforeValidator(_split)]
Scopes = Annotated[tuple[Scope, ...], NoDecode, pydantic.BeforeValidator(_split)]
Rate = Annotated[str, pydantic.AfterValidator(_rate)]
Side = Annotated[int, Field(ge=1, le=65_535)]


class Batching(NamedTuple):
    """How requests of one task gather: rows of a batch, longest wait, places in the queue."""

    max_batch: int
    max_wait_ms: float
    queue_size: int


class BatchOverride(pydantic.BaseModel):
    """What one task does differently; None: as all tasks do."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")
    max_batch: int | None = Field(None, ge=1, le=64)
    max_wait_ms: float | None = Field(None, ge=0, le=1000)
    queue_size: int | None = Field(None, ge=1, le=10_000)


def _has_credentials(data: Mapping[str, Any]) -> bool:
    return any(data.get(n) for n in ("api_keys_file", "jwt_secret", "jwt_public_key_file"))


def _anonymous(data: Mapping[str, Any]) -> tuple[Scope, ...]:
    if _has_credentials(data):
        return ()
    # Whoever comes from another machine without a key may ask, but not put in another model. A
    # loopback address alone does not keep others away: a proxy on this machine brings them.
    names = {data["host"], *data["trusted_hosts"]}
    is_private = names <= set(LOOPBACK) and not data["trusted_proxies"]
    return SCOPES if is_private else tuple(scope for scope in SCOPES if scope != "admin")


def _algorithms(data: Mapping[str, Any]) -> tuple[str, ...]:
    if data.get("jwt_secret"):
        return ("HS256",)
    return ("RS256", "ES256", "EdDSA") if data.get("jwt_public_key_file") else ()


class Settings(pydantic_settings.BaseSettings):
    """Settings of one service; frozen. A keyword wins over an environment variable."""

    model_config = pydantic_settings.SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    # What is served, and where
    model: str = Field("nano", min_length=1, description="shipped name or bundle folder")
    engine: Literal["litert", "jax"] | None = Field(None, description="None: the bundle's best")
    host: str = Field("127.0.0.1", min_length=1, description="address listened on")
    port: int = Field(8000, ge=0, le=65_535, description="0: any free one")
    workers: int = Field(1, ge=1, le=128, description="processes")
    root_path: str = Field("", pattern=r"^(/[^/?#\s]+)*$", description="prefix a proxy cuts off")
    engine_threads: int = Field(
        default_factory=lambda data: max(1, (os.cpu_count() or 1) // data["workers"]),
        ge=1,
        le=64,
        description="threads with a model each, in one process; default: cores / workers",
    )

    # What a request may hold
    max_body_bytes: int = Field(10_000_000, ge=1_000, le=1_000_000_000, description="bytes")
    max_bodies_bytes: int = Field(
        default_factory=lambda data: max(BODIES_BYTES, 2 * data["max_body_bytes"]),
        description="bodies read and not answered yet, a process; bytes; default: 200 MB, or two",
    )
    max_pixels: int = Field(25_000_000, ge=1, le=50_000_000, description="width x height")
    max_side: Side = Field(10_000, description="pixels of the longer side")
    min_side: Side = Field(1, description="pixels of the shorter side")
    formats: Annotated[
        tuple[Literal["JPEG", "PNG", "WEBP"], ...], NoDecode, pydantic.BeforeValidator(_split)
    ] = Field(FORMATS, min_length=1, description="picture formats read")
    max_texts: int = Field(64, ge=1, le=1024, description="texts of one embed call")
    max_images: int = Field(16, ge=1, le=256, description="pictures of one call")

    # How long things may take
    body_timeout_s: float = Field(15.0, gt=0, le=600, description="a whole request body; s")
    deadline_s: float = Field(10.0, gt=0, le=600, description="queue and execution; s")
    keep_alive_s: int = Field(5, ge=1, le=600, description="an idle connection; s")
    drain_s: float = Field(20.0, ge=0, le=3600, description="open requests after SIGTERM; s")
    max_connections: int = Field(1024, ge=1, le=100_000, description="open at once, a process")
    max_connections_per_address: int = Field(
        256, ge=1, le=100_000, description="of those; trusted_proxies may have any number"
    )

    # Batches
    max_batch: int = Field(8, ge=1, le=64, description="requests of one batch")
    # LiteRT runs a batch row by row: an idle worker gains nothing by waiting for more rows.
    max_wait_ms: float = Field(0.0, ge=0, le=1000, description="for a batch to fill; ms")
    queue_size: int = Field(64, ge=1, le=10_000, description="waiting requests, a task")
    batching: dict[Task, BatchOverride] = Field({}, description="differences by task, JSON")

    # Who may ask
    api_keys_file: Path | None = Field(None, description="JSON file of keys and argon2 hashes")
    jwt_secret: Annotated[SecretStr, _of_at_least(MIN_SECRET_BYTES)] | None = Field(
        None, description=f"of HS algorithms, at least {MIN_SECRET_BYTES} bytes"
    )
    jwt_public_key_file: Path | None = Field(None, description="PEM file of RS, PS, ES, EdDSA")
    jwt_algorithms: Items = Field(default_factory=_algorithms, description="accepted ones")
    jwt_issuer: str | None = Field(None, min_length=1, description="required `iss`")
    jwt_audience: str | None = Field(None, min_length=1, description="required `aud`")
    # Without Redis each process counts for itself, and allows its share of them.
    rate_per_key: Rate = Field("600/minute", description="requests of one key")
    rate_per_address: Rate = Field("300/minute", description="requests of one address")
    redis_url: str | None = Field(
        None, pattern=r"^(rediss?|unix)://", repr=False, description="shared limits and cache"
    )
    cors_origins: Items = Field((), description="web origins that may call; none: closed")
    trusted_hosts: Items = Field(
        ("localhost", "127.0.0.1", "[::1]", "::1"),
        min_length=1,
        description="Host headers answered",
    )
    trusted_proxies: Items = Field((), description="addresses or networks of own proxies")
    anonymous_scopes: Scopes = Field(
        default_factory=_anonymous,
        description="without a key; default: none if there are keys, and all but admin if others "
        "than this machine may come",
    )

    # What is kept
    cache_items: int = Field(2048, ge=0, le=10_000_000, description="answers kept; 0: none")
    cache_ttl_s: float = Field(3600.0, gt=0, le=31_536_000, description="life of an answer; s")
    index_path: Path = Field(
        default_factory=lambda: paths.data_dir() / "serve" / "index.sqlite",
        description="SQLite file of the search index",
    )
    index_items: int = Field(100_000, ge=0, le=10_000_000, description="most entries")

    # When things break
    breaker_failures: int = Field(5, ge=1, le=1000, description="in a row, until it opens")
    breaker_open_s: float = Field(10.0, gt=0, le=3600, description="until a probe; s")
    engine_timeout_s: float = Field(5.0, gt=0, le=600, description="one batch, then stuck; s")
    max_rss_mb: int | None = Field(None, ge=64, description="memory; then drain, restart; MB")

    # What is told
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least")
    log_file: Path | None = Field(None, description="None: standard output")
    log_bytes: int = Field(50_000_000, ge=100_000, description="of one file; then rotated")
    log_backups: int = Field(5, ge=1, le=100, description="rotated files kept")
    metrics: bool = Field(True, description="serve /metrics")
    metrics_token: Annotated[SecretStr, _of_at_least(MIN_TOKEN_BYTES)] | None = Field(
        None, description=f"bearer token of /metrics, at least {MIN_TOKEN_BYTES} bytes"
    )
    otlp_endpoint: str | None = Field(
        None, pattern=r"^https?://", repr=False, description="OpenTelemetry collector; URL"
    )
    docs: bool = Field(True, description="serve /docs")
    page: bool = Field(True, description="serve the page at /")
    hsts: bool = Field(False, description="send Strict-Transport-Security over https")

    def batch_of(self, task: str) -> Batching:
        """How requests of one of TASKS gather, its own differences applied."""
        own = self.batching.get(task)  # pyrefly: ignore[bad-argument-type]
        changed = {} if own is None else own.model_dump(exclude_none=True)
        return Batching(self.max_batch, self.max_wait_ms, self.queue_size)._replace(**changed)

    @pydantic.field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            ipaddress.ip_network(proxy, strict=False)  # raises ValueError
        return proxies

    @pydantic.field_validator("trusted_hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(
                    "must hold names without scheme and port, such as api.example.org, "
                    f"*.example.org or *, has {host!r}"
                )
        return hosts

    @pydantic.field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            scheme, _, host = origin.partition("://")
            if scheme not in ("http", "https") or not host or set(host) & set("/*?#@ "):
                raise ValueError(f"must hold origins such as https://a.example, has {origin!r}")
        return origins

    @pydantic.model_validator(mode="after")
    def _together(self) -> "Settings":
        if self.jwt_secret and self.jwt_public_key_file:
            raise ValueError("set jwt_secret or jwt_public_key_file, not both")
        fitting = HMAC if self.jwt_secret else PUBLIC_KEY if self.jwt_public_key_file else ()
        wrong = [name for name in self.jwt_algorithms if name not in fitting]
        if wrong or (fitting and not self.jwt_algorithms):
            allowed = f"of {', '.join(fitting)}" if fitting else "empty without a JWT key"
            raise ValueError(f"jwt_algorithms must be {allowed}, got {', '.join(wrong) or 'none'}")
        if self.max_bodies_bytes < self.max_body_bytes:
            raise ValueError(f"max_bodies_bytes must be at least {self.max_body_bytes}, a body")
        if self.min_side > self.max_side:
            raise ValueError(f"min_side must be at most max_side, {self.max_side}")
        return self


def load(**overrides: Any) -> Settings:
    """Reads the settings from the environment.

    Args:
      **overrides: settings that win over it; None means not given.

    Raises:
      ValueError: a wrong value, or a variable that is almost a setting's; in one line that names
        the variable, what it holds unless it may be secret, and what is allowed.
    """
    _check_spelling()
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except pydantic.ValidationError as error:
        wrong = [_line(found) for found in error.errors(include_url=False, include_context=False)]
        # A default that depends on a wrong value is not computed: the wrong value is the news.
        raise ValueError("; ".join(filter(None, wrong))) from None
    except pydantic_settings.SettingsError as error:
        reason = error.__cause__ or error
        raise ValueError(f"{_variable(error)} must be JSON: {reason}") from None


def _line(found: Any) -> str | None:
    if found["type"] == "default_factory_not_called":
        return None
    place = [str(part) for part in found["loc"]]
    name = place[0] if place else ""
    reason = found["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if found["type"] == "extra_forbidden" and len(place) == 1:
        return f"no setting is called {name!r}{_meant(name)}"
    if not name:
        return reason
    path = "".join(f"[{part!r}]" for part in place[1:])
    annotation = Settings.model_fields[name].annotation
    if name in _URLS_WITH_PASSWORDS or "SecretStr" in str(annotation):
        return f"{PREFIX}{name.upper()}: {reason}"
    line = f"{PREFIX}{name.upper()}{path}: {reason}, got {repr(found['input'])[:100]}"
    if str(found["input"]).startswith("tcp://"):
        # What a Service called mmllm injects into every pod beside it.
        line += " (from Kubernetes: set enableServiceLinks: false)"
    return line


def _variable(error: Exception) -> str:
    """The variable that a message such as 'error parsing value for field "x"' speaks of."""
    named = [name for name in Settings.model_fields if f'"{name}"' in str(error)]
    return PREFIX + named[0].upper() if named else "a setting"


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.85)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_spelling() -> None:
    """Refuses MMLLM_MAX_PIXLES, which would be passed over in silence."""
    for variable in os.environ:
        name = variable.upper().removeprefix(PREFIX).lower()
        if not variable.upper().startswith(PREFIX) or name in Settings.model_fields:
            continue
        if hint := _meant(name):
            raise ValueError(f"no setting is called {variable}{hint}")
