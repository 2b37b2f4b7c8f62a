"""What answers cost: the price table, and budgets that are reserved before asking and never overshot."""

import threading
from collections.abc import Mapping

from store.settings import Settings
from store.types import Usage


class Price(Settings):
    """US dollars per million tokens of one model."""

    input: float = 0.0
    cached_input: float | None = None
    output: float = 0.0

    def cost(self, usage: Usage) -> float:
        """Dollars for one answer; cached prompt tokens at their own price where there is one."""
        cached = self.input if self.cached_input is None else self.cached_input
        return (
            (usage.prompt - usage.cached) * self.input + usage.cached * cached + usage.completion * self.output
        ) / 1e6


Prices = Mapping[str, Price]


class Budget:
    """A hard cap on calls and dollars. Reserve before asking, settle when the answer is here.

    Args:
        max_calls: calls that may be made in all, None for no cap.
        max_usd: dollars that may be spent in all, None for no cap.
    """

    def __init__(self, max_calls: int | None = None, max_usd: float | None = None) -> None:
        self.max_calls = max_calls
        self.max_usd = max_usd
        self.calls = 0
        self.usd = 0.0
        self._held_usd = 0.0
        self._lock = threading.Lock()

    def reserve(self, usd: float = 0.0, calls: int = 1) -> bool:
        """Set aside what a request may cost at most; False, and nothing held, when it would overshoot."""
        with self._lock:
            if self.max_calls is not None and self.calls + calls > self.max_calls:
                return False
            if self.max_usd is not None and self.usd + self._held_usd + usd > self.max_usd + 1e-12:
                return False
            self.calls += calls
            self._held_usd += usd
            return True

    def settle(self, reserved_usd: float, actual_usd: float) -> None:
        """Replace a reservation by what was paid."""
        with self._lock:
            self._held_usd -= reserved_usd
            self.usd += actual_usd

    @property
    def calls_left(self) -> int | None:
        """Calls that may still be reserved, None for no cap."""
        return None if self.max_calls is None else max(0, self.max_calls - self.calls)
