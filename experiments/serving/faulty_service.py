"""`mmllm serve` whose engine fails on demand: the real model with a fault in front of it.

Command:  python -m experiments.serving.faulty_service PORT FOLDER

While FOLDER holds a file `raise`, every call of the engine raises; with `hang` it does not return
until the file is gone. Settings come from the environment, as for `mmllm serve`.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmllm.serve import metrics
from mmllm.serve import settings as settings_lib
from mmllm.serve.engine import bundles, service
from mmllm.serve.process import coordination, server


class Faulty:
    """An engine that does what it should unless a file says otherwise."""

    def __init__(self, engine: Any, folder: Path) -> None:
        self._engine, self._folder = engine, folder

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._engine, name)
        if not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            while (self._folder / "hang").exists():
                time.sleep(0.05)
            if (self._folder / "raise").exists():
                raise RuntimeError("the engine is broken")
            return value(*arguments)

        return call


def maker(folder: Path) -> Callable[[bundles.Bundle, str], Callable[[], Any]]:
    """Stands in the place of `Bundle.maker`: the preferred engine is faulty, no other is."""

    def make(bundle: bundles.Bundle, engine: str) -> Callable[[], Any]:
        made = bundle.maker(engine)

        def faulty() -> Any:
            model: Any = made()
            if engine == bundle.engines[0]:
                model.engine = Faulty(model.engine, folder)
            return model

        return faulty

    return make


def main() -> int:
    """Serves until a signal."""
    settings = settings_lib.load(port=int(sys.argv[1]))
    made = service.Service(settings, metrics.Metrics(), maker(Path(sys.argv[2])))
    with coordination.listen(settings.host, settings.port) as listener:
        return server.run(settings, listener, service=made)


if __name__ == "__main__":
    sys.exit(main())
