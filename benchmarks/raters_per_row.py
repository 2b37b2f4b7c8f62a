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
from store.enough_raters import MOST, Raters, accuracy, enough, fit, how_many
from store.stats import Floats, Ints

GAIN = 0.01
DRAWN = 20_000  # simulated rows behind each number
EVERY = 5  # of the projects, in which the interval is measured too
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
    wrong = (rng.random((*who.shape, 1)) > np.cumsum(raters.errors, axis=1)[truth][:, None, :-1]).sum(axis=2)
    grades = np.where(right, truth[:, None], wrong)
    return np.repeat(np.arange(rows), who.shape[1]), who.ravel(), grades.ravel()


def one(number: int) -> Row:
    """Both designs in one simulated project."""
    raters, rng = planted(number), np.random.default_rng(10**6 + number)
    k, n = len(raters.prevalence), len(raters.ability)
    row: Row = {"world": number, "true": _numbers(raters, 7)}
    for name, (each, between) in DESIGNS.items():
        size = int(rng.integers(*between))
        given = votes(raters, size, each, rng)
        row[name] = {"told": _numbers(fit(*given, n_items=size, n_raters=n, k=k), 0)}
        if number % EVERY == 0:
            found = how_many(*given, np.arange(size), k=k, gain=GAIN, resamples=20)
            ways = [way for way in (found.majority, found.weighed) if way]
            row[name] |= {"unknown": bool(found.unknown), "ends": [[_or_most(w.low), _or_most(w.high)] for w in ways]}
    return row


def _numbers(raters: Raters, seed: int) -> list[int]:
    """By majority and by weighing."""
    return [_or_most(enough(curve, GAIN)) for curve in accuracy(raters, seed, DRAWN)]


def _or_most(number: int | None) -> int:
    return MOST + 1 if number is None else number


def summary(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """By design and way of making labels: how many are right within one, exact, inside the interval, and untold."""
    found = {}
    for name in DESIGNS:
        for way, called in enumerate(("majority", "weighed")):
            off = [abs(row[name]["told"][way] - row["true"][way]) for row in rows]
            ends = [(row["true"][way], row[name]["ends"][way]) for row in rows if row[name].get("ends")]
            asked = [row[name]["unknown"] for row in rows if "unknown" in row[name]]
            found[f"{name}, {called}"] = {
                "within one": f"{sum(n <= 1 for n in off)} of {len(off)}",
                "exact": f"{sum(n == 0 for n in off)} of {len(off)}",
                "in the interval": f"{sum(low <= true <= high for true, (low, high) in ends)} of {len(ends)}",
                "cannot tell": f"{sum(asked)} of {len(asked)}",
            }
    return found


def run(worlds: int = 100, out: str = "raters-per-row.jsonl") -> None:
    """Print the figures; what is cut short goes on."""
    print(json.dumps(summary(rows_of(one, worlds, 0, out)), indent=1))


if __name__ == "__main__":
    run(*(int(n) for n in sys.argv[1:2]), *sys.argv[2:3])
