"""Settings that every test runs under: CPU, eight virtual devices, strict shapes, its own cache."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# pytest-xdist's workers inherit this environment, where MMLLM_DATA is already the empty cache.
REAL_CACHE = os.environ.setdefault("MMLLM_REAL_DATA", os.environ.get("MMLLM_DATA", ""))
SESSION_CACHE = Path(tempfile.mkdtemp(prefix="mmllm-tests-"))
os.environ["MMLLM_DATA"] = str(SESSION_CACHE)
# One for all workers: what one of them has compiled, the others load. Its maker removes it.
MAKES_COMPILED = "MMLLM_TESTS_COMPILED" not in os.environ
COMPILED = os.environ.setdefault("MMLLM_TESTS_COMPILED", str(SESSION_CACHE / "jax"))

if os.environ.get("MMLLM_TYPECHECK", "1") != "0":
    # Before the first import of mmllm: checks every annotated shape and type at run time.
    from jaxtyping import install_import_hook

    install_import_hook("mmllm", "beartype.beartype")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
# Runs of one config compile one step, once.
jax.config.update("jax_compilation_cache_dir", COMPILED)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests run beside others: how long an example takes says nothing.
hypothesis.settings.register_profile(
    "unhurried",
    parent=hypothesis.settings(),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("unhurried")
flags.FLAGS.mark_as_parsed()  # grain reads absl flags and refuses to before they are parsed


@pytest.fixture
def key() -> jax.Array:
    """Returns the random key that tests share."""
    return jax.random.key(0)


@pytest.fixture(autouse=True)
def data_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points MMLLM_DATA to an empty folder, unless the test is marked `real_cache`."""
    if request.node.get_closest_marker("real_cache") is not None:
        monkeypatch.setenv("MMLLM_DATA", REAL_CACHE)


@pytest.fixture(scope="session", autouse=True)
def session_cache() -> Iterator[Path]:
    """Yields the cache folder of this run and removes it afterwards."""
    yield SESSION_CACHE
    if not MAKES_COMPILED:
        shutil.rmtree(SESSION_CACHE, ignore_errors=True)


def pytest_unconfigure() -> None:
    """Removes the cache folder, once no worker needs what was compiled."""
    if MAKES_COMPILED:
        shutil.rmtree(SESSION_CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns a tiny bundle with its LiteRT file, see `tests.tiny_litert`."""
    from tests import tiny_litert  # after the import hook

    return tiny_litert.make(tmp_path_factory.mktemp("litert") / "tiny")
