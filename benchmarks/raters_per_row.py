"""How often the number of people that a row needs is told rightly: `python -m benchmarks.raters_per_row [WORLDS]`.

*Simulated*: projects of 2 to 4 grades and 3 to 8 raters, of whom all judge 150 to 400 rows (a calibration round) or
three judge each of 200 to 1,000. Raters are right of a middling row in about 70 to 90 of 100 cases, and the difficulty
of rows spreads by 0 to 1.5 logits. The right number is what the same rule says of the planted raters.
"""

import json
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.worlds import Row, rows_of
from store.enough_raters import MOST, Raters, accuracy, enough, how_many
from store.stats import Floats, Ints

GAIN = 0.01
DESIGNS = {"all": (0, (150, 400)), "three": (3, (200, 1000))}  # raters of a row (0: everybody), rows


def planted(seed: int) -> Raters:
    """The raters and rows of a simulated project."""
    rng = np.random.default_rng(seed)
    k, n = int(rng.choice([2, 3, 4])), int(rng.integers(3, 9))
    ability, spread = rng.normal(rng.uniform(0.8, 2.2), 0.6, n), float(rng.uniform(0, 1.5))
    apart = np.abs(np.arange(k)[:, None] - np.arange(k))
    errors = np.exp(-rng.uniform(0, 1.5) * apart) * (apart > 0)
    return Raters(rng.dirichlet(np.full(k, 4.0)), ability, spread, errors / errors.sum(axis=1, keepdims=True))


def votes(raters: Raters, rows: int, each: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Item, rater and grade of each vote."""
    k, n = len(raters.prevalence), len(raters.ability)
    truth = rng.choice(k, size=rows, p=raters.prevalence)
    who = np.argsort(rng.random((rows, n)), axis=1)[:, : each or n]
    hard = raters.spread * rng.standard_normal((rows, 1))
    right: Floats = rng.random(who.shape) < 1 / (1 + np.exp(hard - raters.ability[who]))
    wrong = [[rng.choice(k, p=raters.errors[t]) for _ in range(who.shape[1])] for t in truth]
    grades = np.where(right, truth[:, None], np.array(wrong))
    return np.repeat(np.arange(rows), who.shape[1]), who.ravel(), grades.ravel()


def one(number: int) -> Row:
    """Both designs in one simulated project."""
    raters, rng = planted(number), np.random.default_rng(10**6 + number)
    true = [enough(curve, GAIN) for curve in accuracy(raters, seed=7, drawn=100_000)]
    row: Row = {"world": number, "true": true}
    for name, (each, between) in DESIGNS.items():
        size = int(rng.integers(*between))
        found = how_many(
            *votes(raters, size, each, rng), np.arange(size), k=len(raters.prevalence), gain=GAIN, resamples=20
        )
        ways = [found.majority, found.weighed]
        row[name] = {
            "unknown": found.unknown,
            "told": [[w.number, w.low, w.high] if w else None for w in ways],
        }
    return row


def summary(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """By design and way of making labels: shares within one, exact, within the interval, and of projects untold."""
    found = {}
    for name in DESIGNS:
        for way, called in enumerate(("majority", "weighed")):
            pairs = [(r["true"][way], r[name]["told"][way], r[name]["unknown"]) for r in rows]
            told = [(true or MOST + 1, [n or MOST + 1 for n in t]) for true, t, _ in pairs if t]
            found[f"{name}, {called}"] = {
                "within one": float(np.mean([abs(t[0] - true) <= 1 for true, t in told])),
                "exact": float(np.mean([t[0] == true for true, t in told])),
                "in the interval": float(np.mean([t[1] <= true <= t[2] for true, t in told])),
                "cannot tell": float(np.mean([bool(u) for _, _, u in pairs])),
            }
    return found


def run(worlds: int = 100, out: str = "/tmp/raters-per-row.jsonl") -> None:
    """Print the figures; what is cut short goes on."""
    print(json.dumps(summary(rows_of(one, worlds, 0, out)), indent=1))


if __name__ == "__main__":
    run(*(int(n) for n in sys.argv[1:2]), *sys.argv[2:3])
