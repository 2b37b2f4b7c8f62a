"""What answers cost: the price table, and budgets that are reserved before asking and never overshot."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from store.settings import Settings
from store.types import Completion, Usage

if TYPE_CHECKING:
    from piar.llm.base import Request

REPAIR_TOKENS = 300  # most tokens of the words that ask for a repair


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


@dataclass(frozen=True, slots=True)
class Charge:
    """What requests cost, or may cost at most."""

    usd: float = 0.0
    tokens: int = 0
    calls: int = 1


def charged(completion: Completion) -> Charge:
    """What one answer cost."""
    return Charge(completion.cost_usd, completion.usage.prompt + completion.usage.completion)


def ceiling(request: "Request", price: Price) -> Charge:
    """What one request may cost at most, one repair included: a token holds at least one byte."""
    prompt, answer = sum(len(m.content.encode()) for m in request.messages), request.max_tokens
    most = Usage(2 * prompt + answer + REPAIR_TOKENS, 0, 2 * answer)
    return Charge(price.cost(most), most.prompt + most.completion)


ONE_CALL = Charge()


class Budget:
    """A hard cap on calls, dollars and tokens. Reserve before asking, settle when the answer is here.

    Args:
        max_calls: calls that may be made in all, None for no cap.
        max_usd: dollars that may be spent in all, None for no cap.
        max_tokens: tokens of prompts and answers together, None for no cap.
    """

    def __init__(
        self, max_calls: int | None = None, max_usd: float | None = None, max_tokens: int | None = None
    ) -> None:
        self.max_calls = max_calls
        self.max_usd = max_usd
        self.max_tokens = max_tokens
        self.calls = 0
        self.usd = 0.0
        self.tokens = 0
        self._held_usd = 0.0
        self._held_tokens = 0
        self._lock = threading.Lock()

    def reserve(self, most: Charge = ONE_CALL) -> bool:
        """Set aside what a request may cost at most; False, and nothing held, when it would overshoot."""
        with self._lock:
            if self.max_calls is not None and self.calls + most.calls > self.max_calls:
                return False
            if self.max_usd is not None and self.usd + self._held_usd + most.usd > self.max_usd + 1e-12:
                return False
            if self.max_tokens is not None and self.tokens + self._held_tokens + most.tokens > self.max_tokens:
                return False
            self.calls += most.calls
            self._held_usd += most.usd
            self._held_tokens += most.tokens
            return True

    def settle(self, reserved: Charge, actual: Charge) -> None:
        """Replace a reservation by what was paid."""
        with self._lock:
            self._held_usd -= reserved.usd
            self._held_tokens -= reserved.tokens
            self.usd += actual.usd
            self.tokens += actual.tokens

    @property
    def answers_left(self) -> int | None:
        """Answers that what is left will pay for: calls for certain, dollars and tokens at their mean so far.

        None for no cap, and while nothing has been paid to go by.
        """
        left = [] if self.max_calls is None else [self.max_calls - self.calls]
        paid = ((self.max_usd, self.usd), (self.max_tokens, self.tokens))
        left += [int((most - spent) * self.calls / spent) for most, spent in paid if most is not None and spent]
        return max(0, min(left)) if left else None
