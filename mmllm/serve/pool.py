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

from mmllm.serve import breaker as breaker_lib
from mmllm.serve import bundles, problems
from mmllm.serve import metrics as metrics_lib
from mmllm.serve import settings as settings_lib
from mmllm.serve import workers as workers_lib

Function = Callable[[Any, list[Any]], Sequence[Any]]
"""Runs a batch with a model in its thread: one answer an item, an Exception where one failed."""

Make = Callable[[bundles.Bundle, str], Callable[[], Any]]
"""Gives what makes the models of an engine."""

JOIN_S = 5.0  # for a thread to end after its last batch

log = logging.getLogger(__name__)


class Ran(NamedTuple):
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
class Generation:
    """One model with its engines, from load to release; not freed as long as a `with` holds it."""

    bundle: bundles.Bundle
    chosen: _Engine
    fallback: _Engine | None = None
    loading: "asyncio.Task[None] | None" = None
    users: int = 0
    unused: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def __enter__(self) -> "Generation":
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
        self._current: Generation | None = None
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
        if not engines or any(engine.lets_through() for engine in engines):
            return None
        if not any(engine.workers.alive for engine in engines):
            return "no engine thread is at work"
        return f"engine {engines[0].name} rests after failures, and no other is well"

    def serving(self) -> Generation:
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
        self, task: str, function: Function, items: list[Any], on: Generation | None = None
    ) -> Ran:
        """Runs a batch.

        Args:
          task: for the metrics.
          function: runs in a thread with a model; may be run again on the fallback.
          items: of the batch.
          on: what the items were made for; None: the model that serves now.

        Raises:
          Problem: "model-unavailable" if no engine is well, "engine-stuck" if it just hung.
          Exception: what the function raised.
        """
        with on or self.serving() as generation:
            return await self._run(generation, task, function, items)

    async def reload(self, model: str) -> bundles.Bundle:
        """Puts another model in the place of the one that serves.

        Args:
          model: a shipped name or a folder.

        Raises:
          Problem: "reload-running", or "model-refused" if it is missing, damaged or does not run;
            then the old one goes on serving.
        """
        if self._reloading.locked():
            raise problems.Problem("reload-running", retry_after_s=5.0)
        async with self._reloading:
            old = self.serving()
            try:
                new = await self._load(model)
            except Exception as error:
                log.error("the new model is refused, the old one serves on: %s", error)
                self._metrics.reload(False)
                raise problems.Problem("model-refused") from error
            if self._closed:
                await self._release(new)
                raise problems.Problem("draining", retry_after_s=1.0)
            self._current = new
            self._announce()
            self._metrics.reload(True)
            release = asyncio.create_task(
                self._release(old, self._settings.deadline_s), name="release-model"
            )
            self._releases.add(release)
            release.add_done_callback(self._releases.discard)
            return new.bundle

    async def close(self) -> None:
        """Frees all models; batches that still run are waited for as long as one may take."""
        self._closed = True
        current, self._current = self._current, None
        releases = [*self._releases]
        if current is not None:
            releases.append(asyncio.create_task(self._release(current), name="release-model"))
        await asyncio.gather(*releases, return_exceptions=True)

    def _announce(self) -> None:
        generation = self.serving()
        bundle, engine = generation.bundle, generation.chosen.name
        self._metrics.model(bundle.name, bundle.fingerprint, engine)
        self._metrics.breaker(engine, "closed")
        log.info("model %s (%s) serves on %s", bundle.name, bundle.fingerprint[:12], engine)

    async def _load(self, model: str) -> Generation:
        bundle = await asyncio.to_thread(bundles.open_bundle, model, self._settings.engine)

        def heard(state: str) -> None:
            if state == "opened":
                self._want_fallback(generation)

        generation = Generation(bundle, self._engine(bundle, bundle.engines[0], heard))
        await generation.chosen.workers.start()
        return generation

    def _engine(
        self, bundle: bundles.Bundle, name: str, listen: Callable[[str], None] = lambda state: None
    ) -> _Engine:
        workers = workers_lib.Workers(
            self._make(bundle, name),
            self._settings.engine_threads,
            name=name,
            stuck=lambda: self._metrics.stuck_thread(name),
        )

        def heard(state: str) -> None:
            log.warning("the breaker of engine %s is %s", name, state)
            if not engine.retired:  # else the metric is another's, and no fallback worth a load
                self._metrics.breaker(name, state)
                listen(state)

        breaker = breaker_lib.Breaker(
            name,
            self._settings.breaker_failures,
            self._settings.breaker_open_s,
            heard,
            innocent=(ValueError,),  # of an input that the checks should have refused
        )
        engine = _Engine(name, workers, breaker)
        return engine

    def _want_fallback(self, generation: Generation) -> None:
        """Fetches the other engine, now that the chosen one is given a rest."""
        wanted = generation.fallback is None and generation.loading is None
        if wanted and len(generation.bundle.engines) > 1 and not self._closed:
            generation.loading = asyncio.create_task(
                self._load_fallback(generation), name="load-fallback"
            )

    async def _load_fallback(self, generation: Generation) -> None:
        engine = self._engine(generation.bundle, generation.bundle.engines[1])
        try:
            await engine.workers.start()
        except Exception as error:
            log.error("no fallback: engine %s does not start: %r", engine.name, error)
        else:
            log.warning("engine %s is ready to answer in the place of the other", engine.name)
            generation.fallback = engine
        finally:
            generation.loading = None
            if generation.fallback is None:
                engine.workers.close()

    async def _run(
        self, generation: Generation, task: str, function: Function, items: list[Any]
    ) -> Ran:
        loop = asyncio.get_running_loop()
        started = loop.time()

        async def on(engine: _Engine) -> Ran:
            values = await engine.breaker.run(
                lambda: engine.workers.run(
                    lambda model: function(model, items), self._settings.engine_timeout_s
                )
            )
            degraded = engine is not generation.chosen
            return Ran(
                list(values), generation.bundle, engine.name, degraded, loop.time() - started
            )

        try:
            return await on(generation.chosen)
        except Exception as error:
            # A batch that an item may have spoiled comes back item by item.
            spoiled = len(items) > 1 and not isinstance(error, problems.Problem)
            if spoiled or generation.fallback is None:
                raise
            log.info("engine %s answers in the place of the other", generation.fallback.name)
        ran = await on(generation.fallback)
        self._metrics.fallback(task, ran.engine)
        return ran

    async def _release(self, generation: Generation, request_s: float = 0.0) -> None:
        """Frees a model once nothing uses it; `request_s` is what a request may still take."""
        for engine in generation.engines():
            engine.retired = True
        if generation.loading is not None:
            generation.loading.cancel()
            await asyncio.gather(generation.loading, return_exceptions=True)
        try:
            async with asyncio.timeout(request_s + self._settings.engine_timeout_s + JOIN_S):
                while generation.users:
                    generation.unused.clear()
                    await generation.unused.wait()
        except TimeoutError:
            log.error("batches still run on a model that should be freed")
        for engine in generation.engines():
            engine.workers.close()
            if not await engine.workers.join(JOIN_S):
                log.error("a thread of engine %s did not end", engine.name)
