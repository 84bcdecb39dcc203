"""The engines by name: which one runs a bundle, and how it is loaded.

A new engine is one module beside this one and one entry of ENGINES. This module imports none of
them: the command line reads the names.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmllm.export.targets.registry import TARGETS

if TYPE_CHECKING:
    from mmllm.common.config import ModelConfig
    from mmllm.runtime.engines.base import Engine

MAX_THREADS = 256
DEFAULT_THREADS = 4  # more only wait for one another on a model of this size


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """How an engine comes to a bundle.

    Attributes:
      target: of `mmllm export --to`, whose file the engine runs; None: it runs the weights, which
        every bundle has.
      threads: whether it takes a number of CPU threads.
      load: folder, config and that number -> the engine. It imports what the engine needs.
    """

    target: str | None = None
    threads: bool = False
    load: Callable[..., Any]

    @property
    def file(self) -> str | None:
        """Name of the target's file in a bundle."""
        return TARGETS[self.target].file if self.target else None


def _load_litert(folder: Path, config: "ModelConfig", threads: int | None) -> "Engine":
    from mmllm.runtime.engines.litert import LiteRtEngine

    threads = threads or min(os.cpu_count() or 1, DEFAULT_THREADS)
    return LiteRtEngine(folder / TARGETS["litert"].file, config, threads)


def _load_jax(folder: Path, config: "ModelConfig", threads: int | None) -> "Engine":
    from mmllm import bundle

    try:
        from mmllm.runtime.engines.jax import JaxEngine
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"engine 'jax' needs {error.name}: pip install 'mmllm[jax]'", name=error.name
        ) from error
    return JaxEngine(bundle.load(folder))


ENGINES: dict[str, EngineSpec] = {
    "litert": EngineSpec(target="litert", threads=True, load=_load_litert),
    "jax": EngineSpec(load=_load_jax),
}
"""In the order in which a bundle that has the file is run by them."""


def engine_of(manifest: Mapping[str, Any], engine: str | None = None) -> str:
    """The engine that runs a bundle: the one asked for, else the first whose file the bundle has.

    Raises:
      ValueError: an unknown engine, or one that the bundle has no file for.
    """

    def runs(spec: EngineSpec) -> bool:
        return spec.file is None or spec.file in manifest["files"]

    if engine is None:
        return next(name for name, spec in ENGINES.items() if runs(spec))
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if not runs(ENGINES[engine]):
        raise ValueError(
            f"bundle {manifest['name']} has no {ENGINES[engine].file}: make it with "
            f"`mmllm export BUNDLE --to {ENGINES[engine].target}`"
        )
    return engine


def checked_threads(threads: Any) -> int | None:
    """Returns a number of threads that can be.

    Raises:
      ValueError: not a whole number from 1 to MAX_THREADS.
    """
    if threads is not None and not (type(threads) is int and 1 <= threads <= MAX_THREADS):
        raise ValueError(f"threads must be a whole number from 1 to {MAX_THREADS}, got {threads!r}")
    return threads


def load(name: str, folder: Path, config: "ModelConfig", threads: int | None = None) -> "Engine":
    """Loads an engine with a bundle whose files were verified.

    Args:
      name: of ENGINES.
      folder: of the bundle.
      config: of the model.
      threads: CPU threads; by default one a core, at most DEFAULT_THREADS.

    Raises:
      ModuleNotFoundError: the engine is not installed; the message says what to install.
      ValueError: threads for an engine that takes what it finds, or a damaged bundle.
    """
    spec = ENGINES[name]
    if threads is not None and not spec.threads:
        takers = " or ".join(repr(other) for other, each in ENGINES.items() if each.threads)
        raise ValueError(f"threads goes with engine {takers}, got {threads} with {name!r}")
    return spec.load(folder, config, threads)
