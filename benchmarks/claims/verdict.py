"""From rows to a verdict, by a rule that is fixed before anything runs.

An arm's gain over another is a difference on the same held-out rows of the same world. Two intervals are taken:
by group over all worlds (these students, other queries: `store.stats`), and over seeds (other students and worlds: the
t interval of the seeds' mean gains). The wider end of both counts:

- *holds*: the gain is above minus the margin (0 where the claim is that one arm is better);
- *fails*: it is below;
- *ties*: neither, and it lies within ±3 points;
- *open*: neither, and the interval is wider than that, or there are fewer than two seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from store.stats import GroupBootstrap, ratio, t_quantile

TIE = 0.03


@dataclass(frozen=True)
class Contrast:
    """`better` is claimed to beat `worse`, or not to fall behind it by `margin` or more."""

    better: str
    worse: str
    margin: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """A contrast's gains by seed, its interval, and what that means."""

    contrast: Contrast
    gains: tuple[float, ...]
    mean: float
    low: float
    high: float
    verdict: str


def outcome(contrast: Contrast, rows: Sequence[Mapping[str, Any]]) -> Outcome | None:
    """The verdict on a contrast from an experiment's rows; None when no seed has both arms."""
    by_arm = {(row["arm"], row["seed"]): row for row in rows}
    seeds = sorted({seed for arm, seed in by_arm if (contrast.worse, seed) in by_arm and arm == contrast.better})
    if not seeds:
        return None
    sums = [_paired(by_arm[contrast.better, s], by_arm[contrast.worse, s]) for s in seeds]
    gains = [float(one[:, 0].sum() / one[:, 1].sum()) for one in sums]
    every = np.concatenate(sums)
    found = GroupBootstrap(len(every)).interval(every, ratio)
    mean = float(np.mean(gains))
    reach = np.inf
    if len(seeds) > 1:
        reach = t_quantile(0.975, len(seeds) - 1) * float(np.std(gains, ddof=1)) / len(seeds) ** 0.5
    # Without an interval by group (all groups alike) the seeds alone decide.
    low = min(mean - reach, mean if found.low is None else found.low)
    high = max(mean + reach, mean if found.high is None else found.high)
    return Outcome(contrast, tuple(gains), mean, low, high, said(low, high, contrast.margin))


def _paired(better: Mapping[str, Any], worse: Mapping[str, Any]) -> Any:
    """[groups, 2] summed differences, and rows."""
    if better["sizes"] != worse["sizes"]:
        raise ValueError(f"{better['arm']} and {worse['arm']} were not measured on the same rows")
    return np.stack([np.subtract(better["sums"], worse["sums"]), np.array(better["sizes"], dtype=float)], axis=1)


def said(low: float, high: float, margin: float) -> str:
    """The verdict that an interval means."""
    if low > -margin:
        return "holds"
    if high < -margin:
        return "fails"
    return "ties" if low > -TIE and high < TIE else "open"
