"""What calibration gains, strategy by strategy, and whether the bound of `decidable alone` holds.

Run: `python -m benchmarks.calibration PROJECT` for every judge of a project that gave probabilities: on train and dev
out of fold, then on test, fitted on these; nothing is asked. `python -m benchmarks.calibration alone` simulates for
some minutes: groups with effects of their own, the share decided alone, and how often its true error is above 5 %.
"""

import sys
from pathlib import Path

import numpy as np

from piar.measure.calibrate import judged_rows, splits_of
from piar.project.facade import Project
from store.calibration import STRATEGIES, cross_fitted, fitted
from store.judges import Judge
from store.metrics import evaluate_arrays, positions
from store.probability_scores import alone, nll_of, probability_scores
from store.stats import paired_gain

WORLDS = ((26, 20, 1.0), (60, 10, 1.0), (150, 10, 1.0), (400, 5, 1.0), (400, 5, 0.3), (150, 10, 2.0))
SLOPES = ((2.0, 8.0), (3.5, 4.0))  # log-odds of being right at a confidence of .6, and how they rise


def project(folder: str) -> None:
    """One table a judge and part of the data."""
    store = Project.open(folder).store
    judges = store.frame("select distinct judge, instruction from verdicts where probs is not null order by all").rows()
    for judge in (Judge(*row) for row in judges):
        groups, gold, raw = positions(judged_rows(store, judge, splits_of(judge)), store.task)
        print(f"\n{judge.name}: {', '.join(splits_of(judge))}, out of fold")
        if len(set(groups)) > 1:
            after = {s: cross_fitted(s, list(groups), gold, raw) for s in STRATEGIES}
            _table(store.task, groups, gold, raw, after)
        test = judged_rows(store, judge, ("test",))
        if test.height and len(set(groups)) > 1:
            there = positions(test, store.task)
            print(f"\n{judge.name}: test, fitted on {', '.join(splits_of(judge))}")
            after = {s: fitted(s, list(groups), gold, raw).apply(there[2]) for s in STRATEGIES}
            _table(store.task, *there, after)


def _table(task, groups, gold, raw, after):
    print(f"{len(gold)} rows, {len(set(groups))} groups | accuracy, points | NLL | gain in nats | ECE | AURC")
    for name, probs in {"raw": raw, **after}.items():
        found = evaluate_arrays(groups, gold, probs.argmax(1), probs, task)
        scores = probability_scores(groups, gold, probs)
        right = paired_gain(raw.argmax(1) == gold, probs.argmax(1) == gold, groups)
        nats = paired_gain(-nll_of(raw, gold), -nll_of(probs, gold), groups)
        cells = (found.accuracy, right, scores.nll, nats, found.ece, scores.aurc)
        print(name, *map(_cell, cells), sep=" | ")


def _cell(found):
    value = getattr(found, "value", None) if hasattr(found, "value") else found.mean
    ends = "" if found.low is None else f" ({found.low:.3f} to {found.high:.3f})"
    return f"{value:.3f}{ends}"


def simulated(times: int = 120) -> None:
    """Worlds with effects shared by a group: what may be decided alone, and whether the promise was kept."""
    for shape in WORLDS:
        for slope in SLOPES:
            _, said, right = _world(np.random.default_rng(1), 40_000, *shape[1:], *slope)
            order = np.argsort(-said)
            error, sure = np.cumsum(~right[order]) / np.arange(1, len(order) + 1), said[order]
            possible = (np.flatnonzero(error <= 0.05)[-1] + 1) / len(order)
            found = [
                alone(s, r, g, replicates=400, seed=n)
                for n in range(times)
                for g, s, r in [_world(np.random.default_rng(n + 10), *shape, *slope)]
            ]
            kept = [a.threshold for a in found if a.threshold is not None]
            broken = sum(error[np.searchsorted(-sure, -t, side="right") - 1] > 0.05 for t in kept)
            share = np.mean([a.share.value for a in found])
            print(
                f"{shape} {slope}: possible {possible:.2f}, mean share {share:.2f}, found {len(kept)}, broken {broken}"
            )


def _world(draw, groups, rows, spread, base, rise):
    group = np.repeat(np.arange(groups), rows)
    said = draw.uniform(0.25, 1, len(group))
    odds = base + rise * (said - 0.6) + draw.normal(0, spread, groups)[group]
    return group, said, draw.uniform(size=len(said)) < 1 / (1 + np.exp(-odds))


if __name__ == "__main__":
    [name] = sys.argv[1:]
    simulated() if name == "alone" and not Path(name).is_dir() else project(name)
