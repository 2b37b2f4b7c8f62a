"""`python -m benchmarks.metric_worlds 1000`: how often each metric promotes where nothing is gained, and where it is.

*Simulated*, without a search: two judges of one skill, alike within a group, and a second that is better. What is
promoted has passed sign flips and the interval by group, at 5 %, without guards.
"""

import sys

import numpy as np

from store.gain_metrics import METRICS, rows_of
from store.stats import Floats, Ints

GROUPS, SIZE, GRADES = 30, 8, 4
LEVEL = 0.05


def world(seed: int, gain: float) -> tuple[Ints, Ints, Ints, Ints]:
    """Groups, truth and two judges' grades: the truth, seen through noise that a group shares, less of it by `gain`."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(GROUPS), SIZE)
    truth = rng.integers(0, GRADES, GROUPS * SIZE)

    def judge(noise: float) -> Ints:
        shared = rng.normal(0, noise / 2, GROUPS)[group]
        return np.clip(np.rint(truth + shared + rng.normal(0, noise, len(truth))), 0, GRADES - 1).astype(np.int64)

    return group, truth, judge(1.0), judge(1.0 - gain)


def promoted(name: str, seed: int, gain: float) -> bool:
    """Whether the second judge of a world passes."""
    group, truth, before, after = world(seed, gain)
    metric, values = METRICS[name], [float(v) for v in range(GRADES)]
    sums: list[Floats] = [
        metric.sums(rows_of(group, truth, said, (said == truth).astype(float), values)) for said in (before, after)
    ]
    found = metric.gain(sums[0], sums[1], seed=seed)
    return found.p_value <= LEVEL and found.above


def main() -> None:
    """Print the shares, with exact upper bounds of the first."""
    from scipy.stats import binomtest

    worlds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for name in METRICS:
        false = sum(promoted(name, seed, 0.0) for seed in range(worlds))
        high = binomtest(false, worlds).proportion_ci().high
        real = [sum(promoted(name, seed, gain) for seed in range(worlds)) / worlds for gain in (0.1, 0.2)]
        told = ", ".join(f"{100 * share:.0f} %" for share in real)
        print(f"{name}: nothing gained {100 * false / worlds:.1f} % (up to {100 * high:.1f})")
        print(f"  noise a tenth, a fifth less: {told}")


if __name__ == "__main__":
    main()
