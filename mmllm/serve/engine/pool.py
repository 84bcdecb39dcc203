"""The engines of one process: the chosen one, its fallback, and the change to another model.

Batchers and streams run their functions here; each goes through a breaker to a thread with a
model. When the chosen engine rests, the other one answers and every answer says so. A reload
warms the new model beside the old and swaps; a request that was checked against the old one also
runs on it, so it is freed once the last of these is answered.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mmllm.serve import metrics as metrics_lib
from mmllm.serve import problems
from mmllm.serve import settings as settings_lib
from mmllm.serve.engine import breaker as breaker_lib
from mmllm.serve.engine import bundles
from mmllm.serve.engine import workers as workers_lib

Function = Callable[[Any, list[Any]], Sequence[Any]]
"""Runs a batch with a model in its thread: one answer an item, an Exception where one failed."""

Make = Callable[[bundles.Bundle, str], Callable[[], Any]]
"""Gives what makes the models of an engine."""

JOIN_S = 5.0  # for a thread to end after its last batch

log = logging.getLogger(__name__)


class BatchResult(NamedTuple):
    """A batch that was run.

    Attributes:
      values: one an item, an Exception where one failed.
      bundle: the model.
      engine: what ran it.
      degraded: not the chosen engine.
      run_s: seconds, the wait for an idle thread included.
    """

    values: list[Any]
    bundle: bundles.Bundle
    engine: str
    degraded: bool
    run_s: float


@dataclasses.dataclass(eq=False)
class _Engine:
    name: str
    workers: workers_lib.Workers[Any]
    breaker: breaker_lib.Breaker
    retired: bool = False

    def lets_through(self) -> bool:
        """Whether a batch would be tried now."""
        return self.workers.alive > 0 and self.breaker.lets_through()


@dataclasses.dataclass(eq=False)
class ModelVersion:
    """One loaded model with its engines; a `with` around it puts its release off."""

    bundle: bundles.Bundle
    chosen: _Engine
    fallback: _Engine | None = None
    loading: "asyncio.Task[None] | None" = None
    users: int = 0
    unused: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def __enter__(self) -> "ModelVersion":
        self.users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.users -= 1
        if self.users == 0:
            self.unused.set()

    def engines(self) -> list[_Engine]:
        return [self.chosen, *([self.fallback] if self.fallback else [])]


class Pool:
    """Runs batches on whichever engine is well.

    Args:
      settings: of the process.
      metrics: told of breakers, stuck threads, fallbacks and reloads.
      make: gives what makes the models of an engine.
    """

    def __init__(
        self,
        settings: settings_lib.Settings,
        metrics: metrics_lib.Metrics,
        make: Make = bundles.Bundle.maker,
    ) -> None:
        self._settings, self._metrics, self._make = settings, metrics, make
        self._current: ModelVersion | None = None
        self._reloading = asyncio.Lock()
        self._releases: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def bundle(self) -> bundles.Bundle:
        """The model that serves now.

        Raises:
          Problem: "model-unavailable" before `start` and after `close`.
        """
        return self.serving().bundle

    @property
    def degraded(self) -> bool:
        """Whether the chosen engine rests."""
        return self.serving().chosen.breaker.state != "closed"

    @property
    def fatal(self) -> str | None:
        """Why the process should be restarted, or None."""
        engines = [] if self._current is None else self._current.engines()
        return next((engine.workers.fatal for engine in engines if engine.workers.fatal), None)

    @property
    def blocked(self) -> str | None:
        """Why no batch would be tried now, or None; it may pass."""
        engines = [] if self._current is None else self._current.engines()
        # Before the start and after the end others say that nothing is served.
        if not engines or any(engine.lets_through() for engine in engines):
            return None
        if not any(engine.workers.alive for engine in engines):
            return "no engine thread is at work"
        return f"engine {engines[0].name} rests after failures, and no other is well"

    def serving(self) -> ModelVersion:
        """The model that serves now, for a request to hold from its checks to its answer.

        Raises:
          Problem: "model-unavailable" before `start` and after `close`.
        """
        if self._current is None:
            raise problems.Problem("model-unavailable", retry_after_s=1.0)
        return self._current

    async def start(self) -> None:
        """Loads, verifies and warms the model.

        Raises:
          FileNotFoundError: no such bundle.
          ModuleNotFoundError: the engine is not installed.
          ValueError: a damaged bundle or one without a file for the engine.
        """
        self._current = await self._load(self._settings.model)
        self._announce()

    async def run(
        self, task: str, function: Function, items: list[Any], version: ModelVersion | None = None
    ) -> BatchResult:
        """Runs a batch.

        Args:
          task: for the metrics.
          function: runs in a thread with a model; may be run again on the fallback.
          items: of the batch.
          version: what the items were made for; None: the model that serves now.

        Raises:
          Problem: "model-unavailable" if no engine is well, "engine-stuck" if it just hung.
          Exception: what the function raised.
        """
        with version or self.serving() as held:
            return await self._run(held, task, function, items)

    async def reload(self, model: str) -> bundles.Bundle:
        """Puts another model in the place of the one that serves.

        Args:
          model: a shipped name or a folder.

        Raises:
          Problem: "reload-running", or "model-refused" if it is missing, damaged or does not run;
            then the old one goes on serving.
        """
        # Refused and not queued: two reloads at once would have three models in memory.
        if self._reloading.locked():
            raise problems.Problem("reload-running", retry_after_s=5.0)
        async with self._reloading:
            old = self.serving()
            try:
                new = await self._load(model)
            # Any error: an operator's mistake must not end a service that works.
            except Exception as error:
                log.error("the new model is refused, the old one serves on: %s", error)
                self._metrics.reload(False)
                raise problems.Problem("model-refused") from error
            if self._closed:  # while it was loading
                await self._release(new)
                raise problems.Problem("draining", retry_after_s=1.0)
            self._current = new
            self._announce()
            self._metrics.reload(True)
            # Beside the answer to the reload: requests on the old model may go on for a while.
            release = asyncio.create_task(
                self._release(old, self._settings.deadline_s), name="release-model"
            )
            self._releases.add(release)
            release.add_done_callback(self._releases.discard)
            return new.bundle

    async def close(self) -> None:
        """Frees all models; batches that still run are waited for as long as one may take."""
        self._closed = True
        # None from here on, so that `serving` refuses what comes while the models are freed.
        current, self._current = self._current, None
        releases = [*self._releases]
        if current is not None:
            releases.append(asyncio.create_task(self._release(current), name="release-model"))
        await asyncio.gather(*releases, return_exceptions=True)

    def _announce(self) -> None:
        version = self.serving()
        bundle, engine = version.bundle, version.chosen.name
        self._metrics.model(bundle.name, bundle.fingerprint, engine)
        self._metrics.breaker(engine, "closed")
        log.info("model %s (%s) serves on %s", bundle.name, bundle.fingerprint[:12], engine)

    async def _load(self, model: str) -> ModelVersion:
        # In a thread: to verify a bundle is to hash all its files.
        bundle = await asyncio.to_thread(bundles.open_bundle, model, self._settings.engine)

        # The other engine costs as much memory as the first, so it is loaded when it is needed.
        def on_state(state: str) -> None:
            if state == "opened":
                self._request_fallback(version)

        version = ModelVersion(bundle, self._engine(bundle, bundle.engines[0], on_state))
        await version.chosen.workers.start()
        return version

    def _engine(
        self, bundle: bundles.Bundle, name: str, listen: Callable[[str], None] = lambda state: None
    ) -> _Engine:
        workers = workers_lib.Workers(
            self._make(bundle, name),
            self._settings.engine_threads,
            name=name,
            stuck=lambda: self._metrics.stuck_thread(name),
        )

        def on_state(state: str) -> None:
            log.warning("the breaker of engine %s is %s", name, state)
            if not engine.retired:  # else the metric is another's, and no fallback worth a load
                self._metrics.breaker(name, state)
                listen(state)

        breaker = breaker_lib.Breaker(
            name,
            self._settings.breaker_failures,
            self._settings.breaker_open_s,
            on_state,
            ignored=(ValueError,),  # of an input that the checks should have refused
        )
        engine = _Engine(name, workers, breaker)
        return engine

    def _request_fallback(self, version: ModelVersion) -> None:
        """Fetches the other engine, now that the chosen one is given a rest."""
        # The breaker opens again after each failed probe; one load is enough.
        missing = version.fallback is None and version.loading is None
        if missing and len(version.bundle.engines) > 1 and not self._closed:
            version.loading = asyncio.create_task(
                self._load_fallback(version), name="load-fallback"
            )

    async def _load_fallback(self, version: ModelVersion) -> None:
        engine = self._engine(version.bundle, version.bundle.engines[1])
        try:
            await engine.workers.start()
        except Exception as error:
            log.error("no fallback: engine %s does not start: %r", engine.name, error)
        else:
            log.warning("engine %s is ready to answer in the place of the other", engine.name)
            version.fallback = engine
        finally:
            version.loading = None
            # A load that failed or was cancelled must not leave its threads behind.
            if version.fallback is None:
                engine.workers.close()

    async def _run(
        self, version: ModelVersion, task: str, function: Function, items: list[Any]
    ) -> BatchResult:
        loop = asyncio.get_running_loop()
        started = loop.time()

        async def run_on(engine: _Engine) -> BatchResult:
            # The breaker around the workers: a thread that hangs counts as a failure of the engine.
            values = await engine.breaker.run(
                lambda: engine.workers.run(
                    lambda model: function(model, items), self._settings.engine_timeout_s
                )
            )
            degraded = engine is not version.chosen
            return BatchResult(
                list(values), version.bundle, engine.name, degraded, loop.time() - started
            )

        try:
            return await run_on(version.chosen)
        except Exception as error:
            # A batch that an item may have spoiled comes back item by item.
            spoiled = len(items) > 1 and not isinstance(error, problems.Problem)
            if spoiled or version.fallback is None:
                raise
            log.info("engine %s answers in the place of the other", version.fallback.name)
        ran = await run_on(version.fallback)
        self._metrics.fallback(task, ran.engine)  # once it has answered, not once it was asked
        return ran

    async def _release(self, version: ModelVersion, request_s: float = 0.0) -> None:
        """Frees a model once nothing uses it; `request_s` is what a request may still take."""
        for engine in version.engines():
            engine.retired = True  # its breaker may still speak, but no longer for the service
        if version.loading is not None:
            version.loading.cancel()
            await asyncio.gather(version.loading, return_exceptions=True)
        try:
            async with asyncio.timeout(request_s + self._settings.engine_timeout_s + JOIN_S):
                while version.users:  # again and again: a request may take hold of it meanwhile
                    version.unused.clear()
                    await version.unused.wait()
        except TimeoutError:
            log.error("batches still run on a model that should be freed")
        for engine in version.engines():
            engine.workers.close()
            if not await engine.workers.join(JOIN_S):
                log.error("a thread of engine %s did not end", engine.name)
