"""One process of the service: uvicorn with bounds, a drain that loses nothing, and exit codes.

Stands around the application: `mmllm serve` or `supervisor` -> here -> `api.app`. On SIGTERM
readiness turns false, requests in flight and those that a balancer still sends are answered, then
the process ends with 0. A process that is ill (memory over its limit, threads stuck for good)
drains in the same way and ends with EXIT_RESTART; one of several that can still serve waits for its
replacement first.
"""

import asyncio
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from mmllm.serve import logs, metrics
from mmllm.serve import settings as settings_lib
from mmllm.serve.api import app as app_lib
from mmllm.serve.engine import service as service_lib
from mmllm.serve.guard import connection
from mmllm.serve.process import acceptor, coordination

HEAD_S = 10.0
WRITE_S = 20.0
LEAD_SHARE = 0.05  # of drain_s: time for a balancer to see that the process is not ready
TICK_S = 0.1
REPLACEMENT_S = 60.0  # the longest wait for a replacement; other processes may come first


class Server(uvicorn.Server):
    """uvicorn's server that beats, obeys `health` and drains.

    Args:
      config: from `configuration`.
      health: what readiness says; it is told of the drain and asked whether to go on.
      drain_s: seconds for requests in flight.
      share: told ten times a second that the event loop turns.
      announce: called once requests are accepted.

    Attributes:
      code: the exit code.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        health: Any,
        drain_s: float,
        share: coordination.SharedState | None = None,
        announce: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self.code = coordination.EXIT_OK
        self._asked_s = 0.0
        self._health, self._drain_s, self._share, self._announce = health, drain_s, share, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, then accepts."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(coordination.EXIT_START)
        self.servers: list[Any] = [
            acceptor.Acceptor(one, self._connection, self._should_yield) for one in sockets or ()
        ]
        self.started = True
        if self._share is not None:
            self._beating = asyncio.create_task(self._beat(self._share))
        if self._announce is not None:
            self._announce()

    def _connection(self) -> asyncio.Protocol:
        made: Any = self.config.http_protocol_class
        return made(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop; called ten times a second."""
        if self._share is not None and not coordination.is_supervised():
            self.should_exit = True  # nobody would restart or stop an orphan
        if self._health.must_exit:
            self.code = coordination.EXIT_RESTART
            self.should_exit = self.should_exit or self._may_leave()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains: not ready, then no new connections, then no requests."""
        self._health.drain()
        # A client that is told leaves by itself: no request of its crosses the end of a connection.
        self.server_state.default_headers.append((b"connection", b"close"))
        bound = _end_in(
            self._drain_s + 2 * coordination.GRACE_S, self.code or coordination.EXIT_STUCK
        )
        for _ in range(round(LEAD_SHARE * self._drain_s / TICK_S)):
            if not self.force_exit:
                await asyncio.sleep(TICK_S)
        # What waits in the socket is accepted and read before idle connections are closed.
        for one in self.servers:
            one.close()
        for closing in sockets or ():
            closing.close()
        for one in self.servers:
            await one.wait_closed()
        await asyncio.sleep(TICK_S)
        await super().shutdown(sockets)
        bound.cancel()

    async def _beat(self, share: coordination.SharedState) -> None:
        while True:  # also while draining; the runner cancels it
            share.beat(-1 if self.should_exit else len(self.server_state.connections))
            await asyncio.sleep(TICK_S)

    def _may_leave(self) -> bool:
        """Whether nobody misses this process: it is alone, of no use, or asked long ago."""
        if self._share is None or not self._health.live().ok:
            return True
        if not self._share.wants_replacement:
            self._share.ask_for_replacement()
            self._asked_s = time.monotonic()
        return time.monotonic() - self._asked_s > REPLACEMENT_S

    def _should_yield(self) -> bool:
        if self._share is None or self.should_exit:
            return False
        return self._share.should_yield(len(self.server_state.connections))


def _end_in(seconds: float, code: int) -> threading.Timer:
    """Ends this process, unless it is done before or the timer cancelled."""

    def end() -> None:
        logs.close()  # writes what waits
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer


def configuration(app: Any, settings: settings_lib.Settings) -> uvicorn.Config:
    """Options of uvicorn: nothing is believed that a client says about itself, all is bounded."""
    limits = connection.Limits(
        connections=settings.max_connections,
        head_s=HEAD_S,
        body_s=settings.body_timeout_s + coordination.GRACE_S,
        write_s=WRITE_S,
        from_address=settings.max_connections_per_address,
        trusted=settings.trusted_proxies,
    )
    return uvicorn.Config(
        app,
        http=connection.bounded(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        root_path=settings.root_path,
        backlog=coordination.BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
    )


def run(
    settings: settings_lib.Settings,
    listener: socket.socket,
    share: coordination.SharedState | None = None,
    announce: Callable[[], None] | None = None,
    service: service_lib.Service | None = None,
) -> int:
    """Serves on a socket until a signal, or until the process should be replaced.

    It is the last that a process does: a few seconds later it ends, whatever it does then.

    Args:
      settings: of the service.
      listener: from `coordination.listen`.
      share: see `Server`.
      announce: called once requests are accepted.
      service: one of its own by default.

    Returns:
      The exit code: 0, EXIT_START when it could not start, or EXIT_RESTART, see `coordination`.
    """
    service = service or service_lib.Service(settings, metrics.Metrics())
    logs.configure(settings, service.metrics.log_dropped)
    app = app_lib.create_app(settings, service)
    server = Server(configuration(app, settings), service.health, settings.drain_s, share, announce)
    # uvicorn raises the signal once more after the drain; by then it has been obeyed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve([listener]))
            # The interpreter would wait for a thread that hangs, and nobody would replace it.
            _end_in(coordination.GRACE_S, server.code)
    except SystemExit:  # uvicorn: the application did not start
        return coordination.EXIT_START
    return server.code


def check(settings: settings_lib.Settings) -> None:
    """Starts all that serves but the socket, and ends it.

    Raises:
      OSError: a file that cannot be read.
      ValueError: a damaged model, a wrong file of keys, or a place that cannot be written.
    """
    check_places(settings)

    async def once() -> None:
        service = service_lib.Service(settings, metrics.Metrics())
        app_lib.create_app(settings, service)
        try:
            await service.start()
        finally:
            await service.close()

    asyncio.run(once())


def check_places(settings: settings_lib.Settings) -> None:
    """Writes beside the log and beside the index, and leaves nothing there.

    A service that runs already loses log lines rather than requests, and answers
    "index-unavailable", so a wrong path would be noticed late.

    Args:
      settings: log_file and index_path.

    Raises:
      ValueError: a place that cannot be written; the message names the setting.
    """
    if settings.log_file is not None:
        logs.check_place(settings.log_file)
        _check_writable("log_file", settings.log_file)
    if settings.index_items:
        _check_writable("index_path", settings.index_path, make_folder=True)  # as the index does


def _check_writable(name: str, path: Path, make_folder: bool = False) -> None:
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with path.open("ab"):
                pass
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(b"\0")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        variable = settings_lib.PREFIX + name.upper()
        raise ValueError(f"{variable}: cannot write {str(path)!r}: {reason}") from None
