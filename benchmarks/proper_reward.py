"""What each reward of the grade makes of a linear student with noisy grades, *simulated*: accuracy and calibration.

    OMP_NUM_THREADS=1 python -m benchmarks.proper_reward [--worlds 20]

A world has four grades in order, each a cut of a line through six features plus noise as wide, 400 rows to learn from
and 2,000 to report on. The student is a softmax of the features, taught by nothing but the exact gradient of one reward
(`trainers.rewards.GRADE_REWARDS`), or by cross-entropy (*nats*), for as many steps at one rate. It says how the losses
behave where the truth is noisy, not what a language model does: that is claim 9 (`benchmarks.claims`).
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from store.stats import t_quantile
from trainers.rewards import GRADE_REWARDS

FEATURES, CUTS, LEARNT, TOLD = 6, (-1.2, 0.0, 1.2), 400, 2_000
STEPS, RATE, BINS = 300, 0.05, 10
Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    **{name: (lambda p, y, reward=reward: -reward(p, y)) for name, reward in GRADE_REWARDS.items()},
    "nats": lambda p, y: -p.gather(1, y[:, None])[:, 0].log(),
}


def world(seed: int) -> tuple[Tensor, Tensor]:
    """Features [N, 6] and grades [N]; the first `LEARNT` rows teach."""
    draw = torch.Generator().manual_seed(seed)
    line = torch.randn(FEATURES, generator=draw)
    rows = torch.randn(LEARNT + TOLD, FEATURES, generator=draw)
    truth = 2 * rows @ line / FEATURES**0.5 + torch.randn(len(rows), generator=draw)
    return rows, torch.bucketize(truth, torch.tensor(CUTS))


def taught(rows: Tensor, gold: Tensor, loss: Loss) -> Callable[[Tensor], Tensor]:
    """A linear student: features -> probabilities."""
    layer = torch.nn.Linear(FEATURES, len(CUTS) + 1)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(layer.parameters(), lr=RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(layer(rows).softmax(-1), gold).mean().backward()
        optimizer.step()
    return lambda asked: layer(asked).detach().softmax(-1)


def measured(seed: int, loss: Loss) -> tuple[float, float]:
    """Accuracy and calibration error on the rows that report."""
    rows, gold = world(seed)
    probs = taught(rows[:LEARNT], gold[:LEARNT], loss)(rows[LEARNT:])
    sure, said = probs.max(1)
    right = (said == gold[LEARNT:]).float()
    place = (sure * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS).index_add(0, place, right - sure)
    return float(right.mean()), float(gaps.abs().sum() / len(right))


def main() -> None:
    """Print the means over worlds, and what the proper rewards gain over their strict kin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=20)
    worlds = parser.parse_args().worlds
    found = {name: np.array([measured(seed, loss) for seed in range(worlds)]) for name, loss in LOSSES.items()}
    for name, figures in found.items():
        accuracy, gap = figures.mean(0)
        print(f"{name:8} accuracy {100 * accuracy:.1f} %, calibration error {gap:.3f}")
    for proper, strict in (("brier", "exact"), ("rps", "ordinal")):
        gains = found[proper] - found[strict]
        reach = t_quantile(0.975, worlds - 1) * gains.std(0, ddof=1) / worlds**0.5
        points, gap = ((mean, mean - by, mean + by) for mean, by in zip(gains.mean(0), reach, strict=True))
        told = "{:+.1f} points ({:+.1f} to {:+.1f})".format(*(100 * one for one in points))
        print(f"{proper} − {strict}: {told}, calibration error " + "{:+.3f} ({:+.3f} to {:+.3f})".format(*gap))


if __name__ == "__main__":
    main()
