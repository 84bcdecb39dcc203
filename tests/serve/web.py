"""The service as its clients see it: an application with the shipped model, called in process."""

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from mmllm.serve import app as app_lib
from mmllm.serve import bundles, metrics
from mmllm.serve import pool as pool_lib
from mmllm.serve import service as service_lib
from mmllm.serve import settings as settings_lib

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


def data_uri(picture: bytes, kind: str = "png") -> str:
    """A picture as clients send it in JSON."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
