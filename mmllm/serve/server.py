"""One process of the service: uvicorn with bounds, a drain that loses nothing, and exit codes.

Stands around the application: `mmllm serve` or `mmllm.serve.supervisor` -> here ->
`mmllm.serve.app`. On SIGTERM readiness turns false, requests in flight and those that a balancer
still sends are answered, then the process ends with 0. A process that is ill (memory over its
limit, threads stuck for good) drains in the same way and ends with
process.EXIT_RESTART; one of several that can still serve waits for its heir first.
"""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from mmllm.serve import acceptor, connection, logs, metrics, preflight, process
from mmllm.serve import app as app_lib
from mmllm.serve import service as service_lib
from mmllm.serve import settings as settings_lib

HEAD_S = 10.0
WRITE_S = 20.0
LEAD_SHARE = 0.05  # of drain_s: time for a balancer to see that the process is not ready
TICK_S = 0.1
HEIR_S = 60.0  # a process that asked for an heir waits so long; others may be served before


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
        share: process.Share | None = None,
        announce: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self.code = process.EXIT_OK
        self._asked_s = 0.0
        self._health, self._drain_s, self._share, self._announce = health, drain_s, share, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, then accepts."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(process.EXIT_START)
        self.servers: list[Any] = [
            acceptor.Acceptor(one, self._connection, self._is_ahead) for one in sockets or ()
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
        if self._share is not None and not process.is_supervised():
            self.should_exit = True  # nobody would restart or stop an orphan
        if self._health.must_exit:
            self.code = process.EXIT_RESTART
            self.should_exit = self.should_exit or self._may_leave()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains: not ready, then no new connections, then no requests."""
        self._health.drain()
        # A client that is told leaves by itself: no request of its crosses the end of a connection.
        self.server_state.default_headers.append((b"connection", b"close"))
        bound = _end_in(self._drain_s + 2 * process.GRACE_S, self.code or process.EXIT_STUCK)
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

    async def _beat(self, share: process.Share) -> None:
        while True:  # also while draining; the runner cancels it
            share.beat(-1 if self.should_exit else len(self.server_state.connections))
            await asyncio.sleep(TICK_S)

    def _may_leave(self) -> bool:
        """Whether nobody misses this process: it is alone, of no use, or asked long ago."""
        if self._share is None or not self._health.live().ok:
            return True
        if not self._share.wants_heir:
            self._share.ask_for_heir()
            self._asked_s = time.monotonic()
        return time.monotonic() - self._asked_s > HEIR_S

    def _is_ahead(self) -> bool:
        if self._share is None or self.should_exit:
            return False
        return self._share.is_ahead(len(self.server_state.connections))


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
        body_s=settings.body_timeout_s + process.GRACE_S,
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
        backlog=process.BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
    )


def run(
    settings: settings_lib.Settings,
    listener: socket.socket,
    share: process.Share | None = None,
    announce: Callable[[], None] | None = None,
    service: service_lib.Service | None = None,
) -> int:
    """Serves on a socket until a signal, or until the process should be replaced.

    It is the last that a process does: a few seconds later it ends, whatever it does then.

    Args:
      settings: of the service.
      listener: from `process.listen`.
      share: see `Server`.
      announce: called once requests are accepted.
      service: one of its own by default.

    Returns:
      The exit code: 0, EXIT_START when it could not start, or EXIT_RESTART, see `process`.
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
            _end_in(process.GRACE_S, server.code)
    except SystemExit:  # uvicorn: the application did not start
        return process.EXIT_START
    return server.code


def check(settings: settings_lib.Settings) -> None:
    """Starts all that serves but the socket, and ends it.

    Raises:
      OSError: a file that cannot be read.
      ValueError: a damaged model, a wrong file of keys, or a place that cannot be written.
    """
    preflight.check(settings)

    async def once() -> None:
        service = service_lib.Service(settings, metrics.Metrics())
        app_lib.create_app(settings, service)
        try:
            await service.start()
        finally:
            await service.close()

    asyncio.run(once())
