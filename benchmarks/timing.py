"""Interleaved timing: rivals take turns, so that a busy machine slows them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ratio:
    """One way against the bare one, over all rounds."""

    name: str
    seconds: float  # median
    ratio: float  # median of the ratios within each round
    low: float
    high: float

    def __str__(self) -> str:
        return f"  {self.name:<44} {self.seconds:8.2f} s   {self.ratio:5.2f} × ({self.low:.2f}–{self.high:.2f})"


def compare(
    ways: Mapping[str, Callable[[], object]], rounds: int = 5, clock: Callable[[], float] = time.perf_counter
) -> list[Ratio]:
    """Time each way in turn, `rounds` times; the first is the bare one that the others are divided by.

    Args:
        clock: `time.process_time` for work of one thread on a machine that others use, too.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            start = clock()
            work()
            seconds[name].append(clock() - start)
    bare = next(iter(seconds.values()))
    return [_ratio(name, taken, bare) for name, taken in seconds.items()]


def _ratio(name: str, taken: list[float], bare: list[float]) -> Ratio:
    ratios = [one / other for one, other in zip(taken, bare, strict=True)]
    return Ratio(name, statistics.median(taken), statistics.median(ratios), min(ratios), max(ratios))
