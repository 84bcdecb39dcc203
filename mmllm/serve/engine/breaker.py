"""Stops calling an engine that keeps failing, and lets one call at a time find out if it is back.

The pool holds one breaker an engine. The states and thresholds are purgatory's, which lets every
waiting call through once its time is over; the single permit of the probe is added here.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import purgatory

from mmllm.serve import problems

Answer = TypeVar("Answer")

STATES = ("closed", "half-opened", "opened")


class Breaker:
    """Counts failures in a row of one engine.

    A cancelled call counts neither way, and neither does one that began before the breaker opened
    and ended after, however late.

    Args:
      name: of the engine.
      failures: how many in a row open it.
      open_s: how long it stays open before a probe.
      listen: told of each new state, one of STATES.
      ignored: errors that say nothing about the engine; they count neither way.
    """

    def __init__(
        self,
        name: str,
        failures: int,
        open_s: float,
        listen: Callable[[str], None] = lambda state: None,
        ignored: tuple[type[Exception], ...] = (),
    ) -> None:
        self.name, self._open_s, self._listen = name, open_s, listen
        self._factory = purgatory.AsyncCircuitBreakerFactory(failures, open_s)
        self._ignored = ignored
        self._breaker: Any = None
        self._probing = False
        self._openings = 0
        self._notified = "closed"

    @property
    def state(self) -> str:
        """One of STATES; "opened" lasts until the probe itself."""
        return "closed" if self._breaker is None else self._breaker.context.state

    def lets_through(self) -> bool:
        """Whether a call would be tried now."""
        if self.state == "closed":
            return True
        return not self._probing and self._remaining_s() <= 0

    async def run(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Runs `work` unless the engine is given a rest.

        Raises:
          Problem: "model-unavailable" while it is, with the time until the next probe.
          Exception: what `work` raised; counted as a failure.
        """
        if self._breaker is None:
            self._breaker = await self._factory.get_breaker(self.name)
        if not self.lets_through():  # purgatory's own refusal raises one object again and again
            raise problems.Problem("model-unavailable", retry_after_s=max(1.0, self._remaining_s()))
        probe, openings = self.state != "closed", self._openings
        self._probing = self._probing or probe
        try:
            await self._breaker.__aenter__()
            self._notify()
            try:
                answer = await work()
            except Exception as error:
                counts = probe or (self.state == "closed" and self._openings == openings)
                if counts and not isinstance(error, self._ignored):
                    await self._breaker.__aexit__(type(error), error, error.__traceback__)
                raise
            if probe or (self.state == "closed" and self._openings == openings):
                await self._breaker.__aexit__(None, None, None)
            return answer
        finally:
            if probe:
                self._probing = False
            self._notify()

    def _remaining_s(self) -> float:
        opened_at = None if self._breaker is None else self._breaker.context.opened_at
        # Strictly more than purgatory asks for, which compares with >.
        return 0.0 if opened_at is None else opened_at + self._open_s + 1e-3 - time.time()

    def _notify(self) -> None:
        if self.state != self._notified:
            self._notified = self.state
            self._openings += self._notified == "opened"
            self._listen(self._notified)
