"""The same model behind what one writes first: a FastAPI handler without batching.

Command:  python -m experiments.serving.baselines PORT {lock,threads}

`lock` has one model with a thread a core behind a lock, for LiteRT's interpreter is not safe to
share; `threads` has a model a worker thread, as many as cores.
"""

import argparse
import os
import threading
from typing import Annotated, Any

import anyio.to_thread
import fastapi
import uvicorn

from mmllm.runtime.model import MobileMultiModalLLM

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plain(shared: bool) -> fastapi.FastAPI:
    """A handler that calls the model: one behind a lock, or one a thread."""
    app = fastapi.FastAPI()
    lock, own = threading.Lock(), threading.local()
    one = MobileMultiModalLLM.from_pretrained("nano", threads=CORES) if shared else None

    def call(method: str, data: bytes) -> Any:
        if one is not None:
            with lock:
                return getattr(one, method)(data)
        if not hasattr(own, "model"):
            own.model = MobileMultiModalLLM.from_pretrained("nano", threads=1)
        return getattr(own.model, method)(data)

    @app.get("/ready")
    async def ready() -> str:
        if not shared:
            anyio.to_thread.current_default_thread_limiter().total_tokens = CORES
        return "ready"

    @app.post("/v1/caption")
    def caption(image: Annotated[bytes, fastapi.File()]) -> dict[str, str]:
        return {"caption": call("caption", image)}

    @app.post("/v1/embed/image")
    def embed(image: Annotated[bytes, fastapi.File()]) -> dict[str, list[float]]:
        return {"embedding": call("embed_image", image).tolist()}

    return app


def main() -> None:
    """Serves one of them."""
    parser = argparse.ArgumentParser(description="Serves the model without mmllm.serve.")
    parser.add_argument("port", type=int)
    parser.add_argument("kind", choices=("lock", "threads"))
    args = parser.parse_args()
    app = plain(args.kind == "lock")
    uvicorn.run(app, port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
