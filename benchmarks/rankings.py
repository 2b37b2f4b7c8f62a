"""How often the interval of `piar compare` holds the true difference of two rankings: simulated.

Queries have documents of five grades; two systems see each grade through noise of their own, and the new one differs
from the old one on some queries only. The truth is the mean over 20,000 queries of a pair of systems; each world is a
sample of them. A teacher errs on one document in five by a grade, and people graded 50 of the queries whole.
Figures: docs/experiments/intervals.md.

Run: python -m benchmarks.rankings [WORLDS]
"""

import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import binomtest

from piar.rankings.comparison import difference
from piar.rankings.corrected import CAUTION
from piar.rankings.plan import by_query, chances, systematic
from store.powered import powered_mean
from store.stats import t_quantile

QUERIES, DOCUMENTS, K = 20_000, 20, 10
SAMPLES = (50, 100, 300)
GOLD, LOGGED = 50, 400
STEPS = (50, 100, 200, 400, 800, 1600)  # documents that people have judged
ERRORS_AT = 200
SYSTEMS = {
    "alike": (2.0, 2.0, 1.0),
    "better": (2.0, 1.5, 1.0),
    "few touched": (2.0, 1.0, 0.2),
    "strong": (0.6, 0.3, 1.0),
}
DISCOUNT = 1 / np.log2(np.arange(2, K + 2))


def ndcg(grades: np.ndarray, scores: np.ndarray, held: np.ndarray) -> np.ndarray:
    """nDCG@10 of each query, with the grades that a judge holds."""
    order = np.argsort(-scores, axis=1)[:, :K]
    gain = np.take_along_axis(held, order, axis=1) @ DISCOUNT
    ideal = -np.sort(-held, axis=1)[:, :K] @ DISCOUNT
    return np.where(ideal > 0, gain / np.where(ideal > 0, ideal, 1), 0.0)


def population(seed: int, noise: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(Q, 2) values of both systems by truth, and by the teacher."""
    rng = np.random.default_rng(seed)
    rate = rng.beta(0.8, 2.0, QUERIES)[:, None]
    grades = rng.binomial(4, rate, (QUERIES, DOCUMENTS)).astype(float)
    slip = (rng.random(grades.shape) < 0.2) * rng.choice([-1, 1], grades.shape)
    told = np.clip(grades + slip, 0, 4)
    old, new, touched = noise
    first = grades + old * rng.normal(size=grades.shape)
    second = grades + new * rng.normal(size=grades.shape)
    second = np.where(rng.random((QUERIES, 1)) < touched, second, first)
    by = [np.stack([ndcg(grades, s, held) for s in (first, second)], axis=1) for held in (grades, told)]
    return by[0], by[1]


def gold_alone(worlds: int) -> Iterator[dict[str, Any]]:
    """Coverage over samples of each size, for each pair of systems."""
    for place, (name, noise) in enumerate(SYSTEMS.items()):
        truth, _ = population(place, noise)
        mean = float((truth[:, 1] - truth[:, 0]).mean())
        for n in SAMPLES:
            held = 0
            for world in range(worlds):
                values = truth[np.random.default_rng([place, n, world]).choice(QUERIES, n, replace=False)]
                found = difference("", values[:, 0], values[:, 1], np.ones(n), np.arange(n), n, world).difference
                held += found.low is not None and found.high is not None and found.low <= mean <= found.high
            yield {"systems": name, "queries": n, "worlds": worlds, "covered": held}


def powered(worlds: int) -> Iterator[dict[str, Any]]:
    """Coverage and width of the corrected difference, and the width from gold alone."""
    for place, (name, noise) in enumerate(SYSTEMS.items()):
        truth, told = population(place, noise)
        y, f = truth[:, 1] - truth[:, 0], told[:, 1] - told[:, 0]
        held, width = 0, []
        for world in range(worlds):
            rng = np.random.default_rng([place, 7, world])
            chosen = rng.choice(QUERIES, LOGGED, replace=False)
            known = np.where(np.arange(LOGGED) < GOLD, y[chosen], np.nan)
            found = powered_mean(
                known, f[chosen], np.arange(LOGGED), bounds=(-1, 1), unseen=float(f[chosen].std()), caution=CAUTION
            )
            held += float(found.estimate.low or 0) <= y.mean() <= float(found.estimate.high or 0)
            spans = [float(i.high or 0) - float(i.low or 0) for i in (found.estimate, found.alone)]
            width.append(spans[0] / spans[1])
        yield {
            "systems": name,
            "gold": GOLD,
            "of": LOGGED,
            "worlds": worlds,
            "covered": int(held),
            "width": float(np.median(width)),
        }


def planned(worlds: int) -> Iterator[dict[str, Any]]:
    """Of 200 queries, how many documents people judge until half of the worlds are decided: planned, and at random.

    `any` draws from all documents in either run's first ten, `moving` from those alone that the runs place apart. The
    bias and its standard error are those of the estimate from 200 documents, against that from all of them; `spread`
    is how far it is off.
    """
    for place, (name, noise) in enumerate({"better": (2.0, 1.5, 1.0), "few touched": (2.0, 1.0, 0.3)}.items()):
        shares: dict[str, list[float]] = {}
        errors: dict[str, list[float]] = {}
        for n in STEPS:
            decided: dict[str, int] = {}
            for world in range(worlds):
                rng = np.random.default_rng([place, 11, world])
                pairs, gold = one_world(rng, noise)
                exact = float(by_query(pairs, gold, {})[2].mean())
                for order, size in sizes(pairs).items():
                    chance = chances(size, n)
                    drawn = {str(i): float(chance[i]) for i in systematic(chance, rng)}
                    values = by_query(pairs, {i: gold[i] for i in drawn}, drawn)[2]
                    reach = t_quantile(0.975, len(values) - 1) * values.std() / math.sqrt(len(values))
                    decided[order] = decided.get(order, 0) + bool(abs(values.mean()) > reach)
                    if n == ERRORS_AT:
                        errors.setdefault(order, []).append(float(values.mean()) - exact)
            for order, count in decided.items():
                shares.setdefault(order, []).append(count / worlds)
        for order, found in shares.items():
            off = np.array(errors[order])
            yield {
                "systems": name,
                "order": order,
                "worlds": worlds,
                "half_decided": round(float(np.interp(0.5, np.maximum.accumulate(found), STEPS))),
                "shares": found,
                "bias": float(off.mean()),
                "bias_error": float(off.std() / math.sqrt(len(off))),
                "spread": float(off.std()),
            }


def sizes(pairs: pl.DataFrame) -> dict[str, np.ndarray]:
    """What each order draws in proportion to."""
    c = np.abs(pairs["c"].to_numpy())
    return {"planned": c, "moving": (c > 1e-12).astype(float), "any": np.ones(len(c))}


def one_world(rng: np.random.Generator, noise: tuple[float, float, float]) -> tuple[pl.DataFrame, dict[str, float]]:
    """Pairs as `piar.rankings.plan.worth` makes them, and what people would say of each."""
    queries = 200
    grades = rng.binomial(4, rng.beta(0.8, 2.0, queries)[:, None], (queries, DOCUMENTS)).astype(float)
    told = np.clip(grades + (rng.random(grades.shape) < 0.3) * rng.choice([-1, 1], grades.shape), 0, 4)
    old, new, touched = noise
    first = grades + old * rng.normal(size=grades.shape)
    second = np.where(rng.random((queries, 1)) < touched, grades + new * rng.normal(size=grades.shape), first)
    worth = [np.where((at := (-s).argsort(1).argsort(1)) < K, 1 / np.log2(at + 2), 0.0) for s in (first, second)]
    ideal = (-np.sort(-told, axis=1)[:, :K]) @ DISCOUNT
    c = np.where(ideal[:, None] > 0, (worth[1] - worth[0]) / np.where(ideal > 0, ideal, 1)[:, None], 0.0)
    shown = (worth[0] > 0) | (worth[1] > 0)
    names = [str(i) for i in range(int(shown.sum()))]
    query = np.repeat(np.arange(queries), DOCUMENTS).reshape(shown.shape)[shown].astype(str)
    pairs = pl.DataFrame({"sample_id": names, "query": query, "unit": query, "c": c[shown], "f": told[shown]})
    return pairs, dict(zip(names, grades[shown].tolist(), strict=True))


def main(worlds: int = 167) -> None:
    """Print a line a cell and one over all; 167 worlds make 2,004 pairs."""
    for cell in planned(worlds):
        print(json.dumps(cell), flush=True)
    for part in (gold_alone(worlds), powered(worlds * 3)):
        cells = list(part)
        for cell in cells:
            print(json.dumps(cell))
        held, all_ = sum(c["covered"] for c in cells), sum(c["worlds"] for c in cells)
        exact = binomtest(held, all_).proportion_ci()
        print(f"covered {held:,} of {all_:,}: {held / all_:.1%} ({exact.low:.1%} to {exact.high:.1%})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
