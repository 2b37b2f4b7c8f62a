"""What answers cost: the price table, and budgets that are reserved before asking and never overshot."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from store.settings import Settings
from store.types import Completion, Usage

if TYPE_CHECKING:
    from piar.llm.base import Request

OVERHEAD = 16  # tokens that a chat template may put around each message
CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")  # where servers put that count
BESIDE = ("cache_read_input_tokens", "cache_creation_input_tokens")  # which Anthropic does not count as input
ABSURD = 10**8  # no answer takes so many tokens: such a count is none


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


@dataclass(frozen=True, slots=True)
class Charge:
    """What requests cost, or may cost at most."""

    usd: float = 0.0
    tokens: int = 0
    calls: int = 1


NOTHING = Charge(calls=0)
ONE_CALL = Charge()


def charge(usage: Usage, price: Price, calls: int = 1) -> Charge:
    """What some usage costs."""
    return Charge(price.cost(usage), usage.prompt + usage.completion, calls)


def charged(completion: Completion) -> Charge:
    """What one answer cost, every attempt that may have been paid for included."""
    return Charge(completion.cost_usd, completion.usage.prompt + completion.usage.completion, completion.attempts)


def most_usage(request: "Request", extra: Mapping[str, Any] | None = None) -> Usage:
    """Tokens that one attempt at a request may take at most: a token holds at least one byte.

    Args:
        extra: keys of the body beside the request's own; limits and a number of answers among them count.
    """
    extra = extra or {}
    shown = [*(m.content for m in request.messages), *([json.dumps(request.schema)] if request.schema else [])]
    told = json.dumps(extra, default=str) if extra else ""
    prompt = sum(len(text.encode(errors="replace")) for text in (*shown, told)) + OVERHEAD * (len(request.messages) + 1)
    named = [_count(extra.get(name)) for name in ("max_tokens", "max_completion_tokens")]
    limit = max((n for n in named if n is not None), default=request.max_tokens)
    answers = max(_count(extra.get(name)) or 1 for name in ("n", "best_of"))
    return Usage(prompt, 0, limit * answers)


def ceiling(request: "Request", price: Price, extra: Mapping[str, Any] | None = None) -> Charge:
    """What one attempt at a request may cost at most; see `most_usage`."""
    return charge(most_usage(request, extra), price)


def read_usage(reply: object, most: Usage) -> tuple[Usage, bool]:
    """The tokens that a reply says it took, and whether it says so whole.

    What is missing, negative or no number is taken at its most. A total larger than its parts wins, for some
    endpoints leave the tokens of thinking out of the parts. Tokens of a cache are of the prompt, also where they
    are counted beside it.

    Args:
        reply: decoded; its `usage` is looked at.
        most: what the attempt may have taken.
    """
    found = reply.get("usage") if isinstance(reply, Mapping) else None
    told = found if isinstance(found, Mapping) else {}
    prompt = _count(told.get("prompt_tokens", told.get("input_tokens")))
    answer = _count(told.get("completion_tokens", told.get("output_tokens")))
    total = _count(told.get("total_tokens")) or 0
    if answer == 0 and total <= (prompt or 0) and _speaks(reply):
        answer = None  # some proxies count no answers: a text of no tokens is none
    whole = bool(prompt) and answer is not None
    beside = sum(_count(told.get(name)) or 0 for name in BESIDE)
    if (
        prompt
        and answer is not None
        and beside
        and ("prompt_tokens" not in told or beside > prompt or total == prompt + answer + beside)
    ):
        prompt += beside
    prompt, answer = prompt or most.prompt, most.completion if answer is None else answer
    thinking = _inner(told, "completion_tokens_details", "reasoning_tokens") or 0
    answer = max(answer, total - prompt if whole else 0, answer + thinking if thinking > answer else 0)
    inner = (_inner(told, f"{name}_tokens_details", "cached_tokens") for name in ("prompt", "input"))
    cached = next(filter(None, (*inner, *(_count(told.get(name)) for name in CACHED))), 0)
    return Usage(prompt, min(prompt, cached) if whole else 0, answer), whole


def _speaks(reply: object) -> bool:
    """Whether a reply holds an answer with some text in it."""
    choices = reply.get("choices") if isinstance(reply, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, Mapping) else None
    return isinstance(message, Mapping) and bool(message.get("content"))


def _inner(told: Mapping[str, Any], outer: str, name: str) -> int | None:
    details = told.get(outer)
    return _count(details.get(name)) if isinstance(details, Mapping) else None


def _count(value: object) -> int | None:
    """A number of tokens, also where it is written as a float or as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if 0 <= number <= ABSURD else None


class Budget:
    """A hard cap on calls, dollars and tokens. Reserve before asking, settle when the answer is here.

    Args:
        max_calls: attempts that may be paid for in all, None for no cap.
        max_usd: dollars that may be spent in all, None for no cap.
        max_tokens: tokens of prompts and answers together, None for no cap.

    Attributes:
        swell: the most that an attempt has cost, held against its ceiling; at least 1. An endpoint that does not
            keep to the limit of an answer makes it grow, and what is reserved with it.
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
        self.swell = 1.0
        self._held_usd = 0.0
        self._held_tokens = 0
        self._lock = threading.Lock()

    def reserve(self, most: Charge = ONE_CALL) -> bool:
        """Set aside what an attempt may cost at most; False, and nothing held, when it would overshoot."""
        return self.exchange(NOTHING, most)

    def exchange(self, old: Charge, new: Charge) -> bool:
        """Set aside `new` in the place of `old`; False, and `old` still held, when it would overshoot."""
        with self._lock:
            calls = self.calls - old.calls + new.calls
            usd = self._held_usd - old.usd + new.usd
            tokens = self._held_tokens - old.tokens + new.tokens
            if self.max_calls is not None and calls > self.max_calls:
                return False
            if self.max_usd is not None and self.usd + usd > self.max_usd + 1e-12:
                return False
            if self.max_tokens is not None and self.tokens + tokens > self.max_tokens:
                return False
            self.calls, self._held_usd, self._held_tokens = calls, usd, tokens
            return True

    def settle(self, reserved: Charge, actual: Charge) -> None:
        """Replace a reservation by what was paid."""
        with self._lock:
            self.calls += actual.calls - reserved.calls
            self._held_usd -= reserved.usd
            self._held_tokens -= reserved.tokens
            self.usd += actual.usd
            self.tokens += actual.tokens

    def hold(self, most: Charge) -> "Hold | None":
        """Set aside a first attempt at a request; None when the budget cannot hold it."""
        return Hold(self, most) if self.reserve(most) else None

    def learn(self, most: Charge, actual: Charge) -> None:
        """Take in what an attempt cost, held against its ceiling."""
        pairs = ((most.usd, actual.usd), (most.tokens, actual.tokens))
        with self._lock:
            self.swell = max([self.swell, *(paid / limit for limit, paid in pairs if limit)])

    @property
    def answers_left(self) -> int | None:
        """Answers that what is left will pay for: calls for certain, dollars and tokens at their mean so far.

        None for no cap, and while nothing has been paid to go by.
        """
        left = [] if self.max_calls is None else [self.max_calls - self.calls]
        paid = ((self.max_usd, self.usd), (self.max_tokens, self.tokens))
        left += [int((most - spent) * self.calls / spent) for most, spent in paid if most is not None and spent]
        return max(0, min(left)) if left else None


class Hold:
    """What is set aside in a budget for one request, attempt by attempt.

    A client that may send a request several times calls `attempt` before each and `paid` after each that may have
    been paid for. One that sends it once need not: `settle` is called for every request at its end.
    """

    def __init__(self, budget: Budget, most: Charge) -> None:
        self._budget = budget
        self._held = most
        self._paid = NOTHING

    @property
    def capped(self) -> bool:
        """Whether dollars or tokens are limited."""
        return self._budget.max_usd is not None or self._budget.max_tokens is not None

    def attempt(self, most: Charge) -> bool:
        """Set aside one more attempt, or keep what is set aside for one that nobody paid; False: it would overshoot."""
        swell = self._budget.swell
        wanted = Charge(most.usd * swell, round(most.tokens * swell), most.calls)
        if not self._budget.exchange(self._held, wanted):
            return False
        self._held = wanted
        return True

    def paid(self, most: Charge, actual: Charge) -> None:
        """Put what an attempt cost in the place of what was set aside for it.

        Args:
            most: what the attempt was taken to cost at most.
        """
        self._budget.settle(self._held, actual)
        self._budget.learn(most, actual)
        total = self._paid
        self._paid = Charge(total.usd + actual.usd, total.tokens + actual.tokens, total.calls + actual.calls)
        self._held = NOTHING

    def settle(self, completion: Completion) -> None:
        """Let go of what is still set aside: the request is over, and the completion tells what it cost in all."""
        actual, before = charged(completion), self._paid
        rest = Charge(actual.usd - before.usd, actual.tokens - before.tokens, actual.calls - before.calls)
        self._budget.settle(self._held, rest)
        self._held = NOTHING
