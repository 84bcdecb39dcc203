"""Schemathesis over the whole OpenAPI document of a service on a socket: no 5xx, no broken word."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmllm.serve import settings as settings_lib
from tests.serve import web

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
)
FEWEST = 500  # requests, else it did not see the service
EXAMPLES = 25  # of each operation and phase: about 1,100 requests in all
TIMEOUT_S = 540.0


@pytest.mark.slow
def test_no_request_that_can_be_derived_from_the_document_breaks_the_service(tmp_path: Path):
    settings = settings_lib.Settings(
        engine_threads=1,
        index_path=tmp_path / "index.sqlite",
        rate_per_address="1000000/minute",
        deadline_s=60.0,  # other tests run beside
        engine_timeout_s=60.0,
        log_file=tmp_path / "log",
    )
    with web.listening(settings) as url:
        command = [
            sys.executable,
            *("-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(EXAMPLES), "--seed", "1", "--no-color"),
            "--continue-on-failure",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, timeout=TIMEOUT_S
        )
    assert done.returncode == 0, done.stdout[-6000:]
    counted = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counted, done.stdout[-6000:]
    assert counted[1] == counted[2]
    assert int(counted[1]) > FEWEST
