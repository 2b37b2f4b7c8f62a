"""How fast to ask: a pure state machine, told what happened and what time it is.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), as in TCP: the limit doubles every round
until the first sign of congestion, then grows by one slot a round. A 429 halves it, at most once a
round, and holds everyone back for as long as an answer takes, then longer while nothing succeeds.
A 5xx, a timeout or a reset takes half a slot: a round in which all fail halves the limit, one in
which 1 % fail hardly moves it. When nothing succeeds any more, everyone pauses and one request probes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from math import inf

START = 16.0  # slots before anything is known
PAUSE_SECONDS = 0.5  # first pause of an outage, at most that of a 429 without Retry-After; doubles up to PAUSE_MOST
PAUSE_MOST = 30.0
OUTAGE_STREAK = 8  # failures in a row, with no success between, that make an outage

EPOCH = 1e9  # a larger number of seconds is a point in time: there is none so long ago, and nobody waits so long

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|s|m|h|d)(?:s?econd|s?ec|inute|in|our|r|ay)?s?(?![a-z])", re.I)
_UNITS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass
class Allowance:
    """What an endpoint says may still be used in its window (requests or tokens a minute), refilled evenly.

    `level` may fall below zero by what was already on its way when the endpoint spoke.
    """

    level: float = inf
    capacity: float = inf
    rate: float = 0.0  # units a second
    at: float = 0.0

    def told(self, now: float, limit: float, remaining: float, reset: float | None, on_the_way: float) -> None:
        """Take over what a reply's headers say; `reset` is the seconds until the window is full again."""
        missing = limit - remaining
        self.rate = missing / reset if reset and missing > 0 else limit / 60
        self.capacity, self.level, self.at = limit, remaining - on_the_way, now

    def wait(self, now: float, amount: float) -> float:
        """Seconds until `amount` may be used; a request larger than the whole window waits for a full one."""
        self._refill(now)
        lacking = min(amount, self.capacity) - self.level
        return lacking / self.rate if lacking > 0 and self.rate > 0 else 0.0

    def take(self, now: float, amount: float) -> None:
        """Use `amount`."""
        self._refill(now)
        self.level -= amount

    def _refill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + self.rate * max(0.0, now - self.at))
        self.at = now


@dataclass
class Pacer:
    """Decides when the next request may start. Times are seconds of one monotonic clock.

    Attributes:
        most: never more requests in flight than this.
        limit: requests that may be in flight now.
        last_success: when an answer last came, None before the first.
    """

    most: int
    limit: float = 0.0
    in_flight: int = 0
    last_success: float | None = None
    requests: Allowance = field(default_factory=Allowance)
    tokens: Allowance = field(default_factory=Allowance)
    _tokens_in_flight: float = 0.0
    _slow_start: bool = True
    _closed_until: float = 0.0
    _last_cut: float = -inf
    _streak: int = 0
    _pauses: int = 0
    _usual: float = inf  # smoothed seconds of an answer

    def __post_init__(self) -> None:
        self.limit = self.limit or min(float(self.most), START)

    def wait(self, now: float, tokens: int) -> float:
        """Seconds until a request of this many tokens may start: 0 now, infinite when a slot must free up first."""
        if self.in_flight >= max(1, int(self.limit)):
            return inf
        return max(self._closed_until - now, self.requests.wait(now, 1), self.tokens.wait(now, tokens), 0.0)

    def started(self, now: float, tokens: int) -> None:
        """A request is on its way."""
        self.in_flight += 1
        self._tokens_in_flight += tokens
        self.requests.take(now, 1)
        self.tokens.take(now, tokens)

    def ended(self, tokens: int) -> None:
        """A request came back, whatever became of it."""
        self.in_flight -= 1
        self._tokens_in_flight -= tokens

    def succeeded(self, now: float, started_at: float) -> None:
        """An answer came: open up."""
        took = now - started_at
        self._usual = took if self._usual == inf else 0.9 * self._usual + 0.1 * took
        self.limit = min(float(self.most), self.limit + (1.0 if self._slow_start else 1.0 / self.limit))
        self.last_success, self._streak, self._pauses = now, 0, 0

    def limited(self, now: float, started_at: float, retry_after: float | None) -> None:
        """A 429: halve once a round; pause for as long as the endpoint says, or for an answer's time and growing."""
        self._slow_start = False
        if started_at > self._last_cut:
            self.limit, self._last_cut = max(1.0, self.limit / 2), now
            self._pause(now, min(PAUSE_SECONDS, self._usual), retry_after)
        elif retry_after is not None:
            self._closed_until = max(self._closed_until, now + retry_after)

    def failed(self, now: float, started_at: float, retry_after: float | None = None) -> None:
        """A 5xx, a timeout or a reset: half a slot less; many in a row are an outage: pause, then probe with one."""
        self._slow_start = False
        self._streak += 1
        self.limit = max(1.0, self.limit - 0.5)
        if retry_after is not None:
            self._closed_until = max(self._closed_until, now + retry_after)
        if self._streak >= OUTAGE_STREAK and started_at > self._last_cut:
            self.limit, self._last_cut, self._slow_start = 1.0, now, True
            self._pause(now, PAUSE_SECONDS, retry_after)

    def told(self, now: float, headers: Mapping[str, str]) -> None:
        """Read `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, where the endpoint sends them."""
        for allowance, name, on_the_way in (
            (self.requests, "requests", float(self.in_flight)),
            (self.tokens, "tokens", self._tokens_in_flight),
        ):
            limit = _number(headers.get(f"x-ratelimit-limit-{name}"))
            remaining = _number(headers.get(f"x-ratelimit-remaining-{name}"))
            if limit and remaining is not None:
                reset = duration(headers.get(f"x-ratelimit-reset-{name}", ""))
                allowance.told(now, limit, remaining, reset if reset and reset < EPOCH else None, on_the_way)

    def _pause(self, now: float, first: float, retry_after: float | None) -> None:
        pause = min(PAUSE_MOST, first * 2.0**self._pauses) if retry_after is None else retry_after
        self._pauses += 1
        self._closed_until = max(self._closed_until, now + pause)


def duration(text: str) -> float | None:
    """Seconds of `20ms`, `6m0s`, `1.5`, `1h2m` or `2 minutes`; None for anything else."""
    number = _number(text)
    if number is not None:
        return number
    parts = _DURATION.findall(text)
    return sum(float(n) * _UNITS[unit.lower()] for n, unit in parts) if parts else None


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds after which an endpoint wants to be asked again, as its headers say; None when none does.

    `retry-after-ms` comes before `Retry-After` (seconds or an HTTP date), and that before the reset of a limit of
    which nothing remains: a duration, an ISO date, or seconds or milliseconds since 1970.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        millis = _number(headers.get(name))
        if millis is not None:
            return millis / 1000
    text = headers.get("retry-after", "")
    seconds = _until(text, now)
    if seconds is not None:
        return seconds
    try:
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (TypeError, ValueError):
        pass
    spent = [_until(headers.get(name.replace("remaining", "reset"), ""), now) for name in _used_up(headers)]
    return max((reset for reset in spent if reset is not None), default=None)


def _used_up(headers: Mapping[str, str]) -> list[str]:
    return [name for name, value in headers.items() if "ratelimit-remaining" in name and _number(value) == 0.0]


def _until(text: str, now: datetime) -> float | None:
    """Seconds until a duration is over or a point in time is reached."""
    seconds = _number(text)
    if seconds is None:
        try:
            return max(0.0, (datetime.fromisoformat(text) - now).total_seconds())
        except (TypeError, ValueError):
            return duration(text)
    if seconds < EPOCH:
        return seconds
    return max(0.0, (seconds if seconds < 1000 * EPOCH else seconds / 1000) - now.timestamp())


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is None or 0 <= value < inf else None
