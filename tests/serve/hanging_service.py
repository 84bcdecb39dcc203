"""A process of the service that falls ill: `python -m tests.serve.hanging_service WHERE FOLDER`.

WHERE says what hangs from then on: "engine", each thread of the model that is used, or "decode",
the threads that decode pictures, whose queue then stands still. Prints the port first.
"""

import asyncio
import sys
import threading
from pathlib import Path

from mmllm.serve import metrics
from mmllm.serve import settings as settings_lib
from mmllm.serve.engine import service as service_lib
from mmllm.serve.process import coordination, server
from tests.serve import engines

HOUR_S = 3600.0


def main() -> int:
    """Serves until it finds that it is ill; returns the exit code."""
    where, folder = sys.argv[1], Path(sys.argv[2])
    settings = settings_lib.Settings(
        engine_threads=1,
        index_path=folder / "index.sqlite",
        log_file=folder / "log",
        # A batch may take a second: on a busy machine a sound one shall not count as stuck.
        deadline_s=0.5,
        engine_timeout_s=1.0,
        breaker_failures=1000,
        drain_s=1.0,
    )
    faults = engines.Faults()
    service = service_lib.Service(settings, metrics.Metrics(), faults.maker)
    decoding: list[asyncio.Future] = []

    def fall_ill() -> None:
        if where == "engine":
            faults.hanging.update(("litert", "jax"))
            return
        loop = asyncio.get_running_loop()
        hang = service._queues.decode("caption", threading.Event().wait, loop.time() + HOUR_S)
        decoding.append(loop.create_task(hang))

    with coordination.listen("127.0.0.1", 0) as listener:
        print(listener.getsockname()[1], flush=True)
        return server.run(settings, listener, announce=fall_ill, service=service)


if __name__ == "__main__":
    sys.exit(main())
