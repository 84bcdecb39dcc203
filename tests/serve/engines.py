"""Engines that fail as tests ask: the real model, with a fault in front of it."""

import threading
from collections.abc import Callable
from typing import Any

from mmllm.serve.engine import bundles
from tests.serve.waiting import BOUND_S


class Faults:
    """What goes wrong in the engines of a pool, by name; set while they run.

    Attributes:
      raising: engines that raise.
      hanging: engines that hang until `release`.
      unmakeable: engines whose model cannot be made.
      calls: how often each engine was called.
    """

    def __init__(self) -> None:
        self.raising: set[str] = set()
        self.hanging: set[str] = set()
        self.unmakeable: set[str] = set()
        self.release = threading.Event()
        self.calls: dict[str, int] = {}
        self.made = 0

    def maker(self, bundle: bundles.Bundle, engine: str) -> Callable[[], Any]:
        """Stands in the place of `Bundle.maker`; the fallback is LiteRT as well, to be quick."""
        make = bundle.maker("litert")

        def made() -> Any:
            if engine in self.unmakeable:
                raise RuntimeError("no such engine here")
            self.made += 1
            model = make()
            model.engine = Faulty(model.engine, engine, self)
            return model

        return made


class Faulty:
    """An engine that does what it should, unless its faults say otherwise."""

    def __init__(self, engine: Any, name: str, faults: Faults) -> None:
        self._engine, self._name, self._faults = engine, name, faults

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._engine, attribute)
        if not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            self._faults.calls[self._name] = self._faults.calls.get(self._name, 0) + 1
            if self._name in self._faults.hanging:
                self._faults.release.wait(BOUND_S)
            if self._name in self._faults.raising:
                raise RuntimeError("the engine is broken")
            return value(*arguments)

        return call
