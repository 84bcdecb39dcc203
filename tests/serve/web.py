"""The service as its clients see it: an application with the shipped model, called in process."""

import base64
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from mmllm.serve import metrics
from mmllm.serve import settings as settings_lib
from mmllm.serve.api import app as app_lib
from mmllm.serve.engine import bundles
from mmllm.serve.engine import pool as pool_lib
from mmllm.serve.engine import service as service_lib
from mmllm.serve.process import coordination, server
from tests.serve import waiting

HOST = "http://test"


@contextlib.contextmanager
def serving(
    folder: Path, make: pool_lib.Make = bundles.Bundle.maker, **changes: Any
) -> Iterator[TestClient]:
    """Yields a client of a service that has started.

    Args:
      folder: for the index.
      make: of models, see `engines.Faults.maker`.
      **changes: of the settings.
    """
    defaults: dict[str, Any] = {
        "engine_threads": 1,
        "index_path": folder / "index.sqlite",
        "trusted_hosts": ("test",),
        "rate_per_address": "100000/minute",
        "rate_per_key": "100000/minute",
        "drain_s": 5.0,
    }
    settings = settings_lib.Settings(**{**defaults, **changes})
    service = service_lib.Service(settings, metrics.Metrics(), make)
    app = app_lib.create_app(settings, service)
    with TestClient(app, HOST, raise_server_exceptions=False) as client:
        yield client


@contextlib.contextmanager
def listening(settings: settings_lib.Settings) -> Iterator[str]:
    """Yields the URL of a service on a socket, under the server that it has in production."""
    ready = threading.Event()
    service = service_lib.Service(settings, metrics.Metrics())
    config = server.configuration(app_lib.create_app(settings, service), settings)
    with coordination.listen("127.0.0.1", 0) as listener:
        running = server.Server(config, service.health, settings.drain_s, announce=ready.set)
        thread = threading.Thread(target=running.run, args=([listener],), daemon=True)
        thread.start()
        assert ready.wait(waiting.BOUND_S)
        yield coordination.address(listener)
        running.should_exit = True
        thread.join(waiting.BOUND_S)
    assert not thread.is_alive()


def data_uri(picture: bytes, kind: str = "png") -> str:
    """A picture as clients send it in JSON."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def scope(path: str, content_type: str) -> dict[str, Any]:
    """A POST request as a server hands it to the application."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"test"), (b"content-type", content_type.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
    }
