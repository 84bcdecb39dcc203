"""Answers that are sent while they are made: pieces go from an engine's thread to a reader.

The pieces wait for a slow reader in a queue that an answer's length bounds, so the engine does
not. `service` makes the generator and passes on what it yields.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator

from mmllm.serve import bundles, lanes, problems
from mmllm.serve import pool as pool_lib

Generate = Callable[[bundles.Model], Iterator[str]]


async def pieces(
    lane: lanes.Lanes,
    generate: Generate,
    deadline: float,
    count: Callable[[int], None],
    on: pool_lib.Generation | None = None,
) -> AsyncGenerator[str, None]:
    """Yields what `generate` does in a thread with a model.

    Closing the iterator stops the work.

    Args:
      lane: runs it.
      generate: gives the pieces with a model.
      deadline: in the event loop's time, for the making; the reader takes its own time.
      count: told how many pieces there were.
      on: see `Lanes.run`.

    Raises:
      Problem: see `Lanes.run`; "model-unavailable" if the engine failed on the way.
      Exception: what `generate` raised.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[str | None] = asyncio.Queue()
    stop, begun = threading.Event(), threading.Event()

    def send(model: bundles.Model) -> int:
        sent = 0
        if begun.is_set():  # on the fallback, when the reader may have pieces of the first engine
            raise problems.Problem("model-unavailable", retry_after_s=1.0)
        for piece in generate(model):
            if stop.is_set():
                break
            begun.set()
            loop.call_soon_threadsafe(waiting.put_nowait, piece)
            sent += 1
        return sent

    work = asyncio.create_task(lane.run("stream", send, deadline, on), name="stream")
    work.add_done_callback(lambda _: waiting.put_nowait(None))
    try:
        while (piece := await waiting.get()) is not None:
            yield piece
        count((await work).value)
    finally:
        stop.set()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
