"""How often intervals by group hold the truth, and tests by group and by row promote nothing: simulated.

Groups are of several shapes (Chorus-like, all alike, a few very large) and share a rate; gains are nothing, ten points,
near the ceiling (hardly anything broken), and rare (nine rows in ten untouched in most groups).
Figures: docs/experiments/intervals.md.

Run: python -m benchmarks.coverage [WORLDS]
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.stats import binomtest

from store.stats import Interval, bootstrap_by_group, group_sums, sign_flip_test

Shares = tuple[float, float, float]  # of rows that the second judge fixes, breaks, leaves
Draw = Callable[[np.random.Generator, int], np.ndarray]

GROUPS = (10, 27, 50, 100)
GAINS: dict[str, Shares] = {
    "nothing": (0.3, 0.3, 0.4),
    "ten points": (0.35, 0.25, 0.4),
    "near the ceiling": (0.37, 0.02, 0.61),
    "rare": (0.05, 0.01, 0.94),
}
RATES = (0.65, 0.9)


def chorus_like(rng: np.random.Generator, groups: int) -> np.ndarray:
    """Rows of each group: nearly half of the groups full (40 rows), the others of any size."""
    return np.where(rng.random(groups) < 0.45, 40, rng.integers(1, 41, groups))


def alike(rng: np.random.Generator, groups: int) -> np.ndarray:
    """Six rows in every group."""
    return np.full(groups, 6)


def few_large(rng: np.random.Generator, groups: int) -> np.ndarray:
    """Median 20 rows; one group in twenty has more than 140 (DBpedia's queries are like this)."""
    return np.minimum(np.exp(rng.normal(3, 1.2, groups)).astype(int) + 1, 600)


SIZES: dict[str, Draw] = {"Chorus-like": chorus_like, "all alike": alike, "a few large": few_large}


def gained(rng: np.random.Generator, sizes: np.ndarray, shares: Shares) -> tuple[np.ndarray, np.ndarray]:
    """(N,) -1, 0 or 1 for each row, and its group; each group has rates of its own."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    rates = rng.dirichlet(shares, len(sizes))[codes]
    draw = rng.random(len(codes))
    return (draw < rates[:, 0]).astype(float) - (draw > 1 - rates[:, 1]), codes


def right(rng: np.random.Generator, sizes: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """(N,) whether each row is right, and its group."""
    shared = rng.beta(rate * 1.3, (1 - rate) * 1.3, len(sizes))
    codes = np.repeat(np.arange(len(sizes)), sizes)
    return (rng.random(len(codes)) < shared[codes]).astype(float), codes


def covered(draws: Iterator[tuple[np.ndarray, np.ndarray]], true: float) -> str:
    """Share of intervals that hold the truth, and their mean width in points."""
    found: list[Interval] = [bootstrap_by_group(rows, codes) for rows, codes in draws]
    known = [(i.low, i.high) for i in found if i.low is not None and i.high is not None]
    held = sum(low <= true <= high for low, high in known)
    return f"{100 * held / len(found):.1f} % ({100 * float(np.mean([h - low for low, h in known])):.0f} wide)"


def false_promotions(rng: np.random.Generator, draw: Draw, groups: int, runs: int) -> dict[str, float]:
    """Share of null worlds in which the test by group, the test and the interval, and the test by row find a gain."""
    by_group = both = by_row = 0
    for _ in range(runs):
        difference, codes = gained(rng, draw(rng, groups), GAINS["nothing"])
        passed = sign_flip_test(group_sums(difference, codes, groups)[:, 0]) <= 0.05
        by_group += passed
        both += passed and (bootstrap_by_group(difference, codes).low or 0) > 0
        fixed, broke = int((difference > 0).sum()), int((difference < 0).sum())
        by_row += binomtest(fixed, max(1, fixed + broke), alternative="greater").pvalue <= 0.05  # McNemar's, exact
    return {"sign-flip by group": by_group / runs, "and the interval": both / runs, "McNemar by row": by_row / runs}


def main(runs: int) -> dict[str, Any]:
    """Percentages by shape and number of groups."""
    rng = np.random.default_rng(0)
    table: dict[str, Any] = {}
    for shape, draw in SIZES.items():
        for groups in GROUPS:
            told: dict[str, Any] = {
                f"gain: {name}": covered((gained(rng, draw(rng, groups), s) for _ in range(runs)), s[0] - s[1])
                for name, s in GAINS.items()
            }
            for rate in RATES:
                told[f"accuracy {rate}"] = covered((right(rng, draw(rng, groups), rate) for _ in range(runs)), rate)
            told["promotes nothing"] = false_promotions(rng, draw, groups, runs)
            table[f"{shape}, {groups} groups"] = told
            print(f"{shape}, {groups} groups", file=sys.stderr, flush=True)
    return table


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 400), indent=1))
