"""How often intervals by group hold the truth, and tests by group and by row promote nothing: simulated.

Groups have 1 to 40 rows (as Chorus's queries do) and share a rate. Figures are in LOG.md.

Run: python -m benchmarks.coverage [RUNS]
"""

import json
import sys
from collections.abc import Iterator

import numpy as np

from store.stats import bootstrap_by_group, group_sums, mcnemar, paired_gain, sign_flip_test

Shares = tuple[float, float, float]  # of rows that the second judge fixes, breaks, leaves
HALF_FULL = 0.45  # share of groups with all 40 rows


def sizes(rng: np.random.Generator, groups: int) -> np.ndarray:
    """Rows of each group: nearly half of the groups full, the others of any size."""
    return np.where(rng.random(groups) < HALF_FULL, 40, rng.integers(1, 41, groups))


def pairs(rng: np.random.Generator, groups: int, shares: Shares) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correctness before and after and the group of each row; each group has rates of its own."""
    codes = np.repeat(np.arange(groups), sizes(rng, groups))
    rates = rng.dirichlet(shares, groups)[codes]
    draw = rng.random(len(codes))
    fixed, broke = draw < rates[:, 0], draw > 1 - rates[:, 1]
    right = rng.random(len(codes)) < 0.5
    return (
        np.where(fixed, False, np.where(broke, True, right)),
        np.where(fixed, True, np.where(broke, False, right)),
        codes,
    )


def coverage_of_accuracy(rng: np.random.Generator, groups: int, rate: float, runs: int) -> Iterator[bool]:
    """Whether the interval of an accuracy holds the true one."""
    for _ in range(runs):
        shared = rng.beta(rate * 1.3, (1 - rate) * 1.3, groups)
        codes = np.repeat(np.arange(groups), sizes(rng, groups))
        found = bootstrap_by_group(rng.random(len(codes)) < shared[codes], codes)
        yield found.low is not None and found.high is not None and found.low <= rate <= found.high


def coverage_of_gain(rng: np.random.Generator, groups: int, runs: int) -> Iterator[bool]:
    """Whether the interval of a gain of ten points holds it."""
    for _ in range(runs):
        gain = paired_gain(*pairs(rng, groups, (0.35, 0.25, 0.4)))
        yield gain.low is not None and gain.high is not None and gain.low <= 0.1 <= gain.high


def false_promotions(rng: np.random.Generator, groups: int, runs: int) -> tuple[float, float]:
    """Share of null worlds in which the test by group, and by row, finds a gain at 5 %."""
    by_group = by_row = 0
    for _ in range(runs):
        before, after, codes = pairs(rng, groups, (0.3, 0.3, 0.4))
        sums = group_sums(after.astype(float) - before, codes, groups)[:, 0]
        by_group += sign_flip_test(sums) <= 0.05
        by_row += mcnemar(before, after) <= 0.05
    return by_group / runs, by_row / runs


def main(runs: int) -> dict[str, dict[str, float]]:
    """Percentages by number of groups."""
    rng = np.random.default_rng(0)
    table = {}
    for groups in (10, 27, 40, 80):
        flip, row = false_promotions(rng, groups, runs)
        table[f"{groups} groups"] = {
            "interval of accuracy .65 covers": float(np.mean(list(coverage_of_accuracy(rng, groups, 0.65, runs)))),
            "interval of accuracy .90 covers": float(np.mean(list(coverage_of_accuracy(rng, groups, 0.9, runs)))),
            "interval of a gain covers": float(np.mean(list(coverage_of_gain(rng, groups, runs)))),
            "sign-flip by group promotes falsely": flip,
            "McNemar by row promotes falsely": row,
        }
    return table


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 400), indent=1))
