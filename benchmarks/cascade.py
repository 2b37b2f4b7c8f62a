"""Whether a cascade keeps its promise, what it decides, and what it saves.

`python -m benchmarks.cascade worlds [N]`: N simulated worlds (1,000) with effects shared by a group, few groups and
many, weak effects and strong. A student that is surer where it is right more often, a teacher that errs on the same
groups, and one world in four whose confidence tells nothing. Broken: a tier's rows are right less often than promised,
on 8,000 other groups of the same world. Resumable: `-o FILE` keeps a line a world.

`python -m benchmarks.cascade real [SPLITS]`: DBpedia-Entity and SemEval-2013, SPLITS (20) divisions by group into train
(half), dev and test, 40 rows of a group at most. The student is TF-IDF with overlap (logistic regression), calibrated
on dev as `piar calibrate` does it. The teacher is simulated: right on about 93 of 100 rows, with an effect that a group
shares and a confidence that is noisy.

`python -m benchmarks.cascade rules [SPLITS]`: quadratic kappa by each decision rule, the same student on SPLITS (10)
divisions.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.real.sets import SETS, RealSet, rows_of
from piar.measure.baselines import fit as fit_baseline
from piar.measure.cascade import FittedCascade, Paid, Rows, Said, fit_cascade
from store.calibration import cross_fitted, fit
from store.decision_rule import RULES, DecisionRule, fit_rule, fitted_rule
from store.gain_metrics import METRICS
from store.gain_metrics import rows_of as table
from store.judges import Judge
from store.task import Grade, Task

STUDENT, TEACHER = Judge("student:s"), Judge("teacher:simulated", "i")
TOOK = {STUDENT.name: Paid(cost_usd=0.0), TEACHER.name: Paid(cost_usd=0.001)}
SHAPES = {  # groups, rows of a group, spread of its effect in log-odds, sizes as unequal as a log-normal of 1
    "25 groups of 40": (25, 40, 1.0, False),
    "60 groups of 10": (60, 10, 1.0, False),
    "60 groups of 10, strong effects": (60, 10, 2.0, False),
    "150 uneven groups of about 10, strong effects": (150, 10, 2.0, True),
    "300 groups of 6": (300, 6, 1.0, False),
    "400 groups of 5, weak effects": (400, 5, 0.3, False),
}
# Log-odds of being right at a confidence of .6, and how they rise: of the student, and of the teacher.
SLOPES = (((2.0, 8.0), (3.5, 4.0)), ((0.5, 6.0), (3.0, 3.0)), ((1.0, 8.0), (2.5, 6.0)), ((3.0, 0.0), (3.0, 0.0)))
TARGETS = (0.95, 0.9, 0.8, 0.7)
MOST = 40  # real rows of a group
RIGHT = 0.93  # of the simulated teacher's grades
Judges = list[tuple[Judge, Said]]


def world(draw: np.random.Generator, shape: str, slopes: Any, groups: int = 0) -> tuple[Rows, Judges]:
    """Rows with truth of three grades, and what both judges say of them."""
    some, rows, spread, uneven = SHAPES[shape]
    count = groups or some
    sizes = np.maximum(1, draw.lognormal(np.log(rows), 1, count).astype(int)) if uneven else np.full(count, rows)
    names = np.repeat(np.arange(count), sizes)
    gold, shared = draw.integers(0, 3, len(names)), draw.normal(0, spread, (2, count))
    effects = (shared[0], 0.6 * shared[0] + 0.8 * shared[1])

    def said(effect: Any, base: float, rise: float) -> Said:
        sure = draw.uniform(0.34, 1, len(names))
        right = draw.uniform(size=len(names)) < 1 / (1 + np.exp(-(base + rise * (sure - 0.6) + effect[names])))
        return Said(np.where(right, gold, (gold + 1) % 3), sure, False)

    told = [said(effect, *slope) for effect, slope in zip(effects, slopes, strict=True)]
    return Rows([str(n) for n in range(len(names))], names, gold), list(zip((STUDENT, TEACHER), told, strict=True))


@cache
def population(shape: str, number: int) -> tuple[Rows, Judges]:
    """Other groups of the same world, as many as its precision needs to be known."""
    return world(np.random.default_rng(number), shape, SLOPES[number], groups=8_000)


def held(found: FittedCascade, rows: Rows, judges: Judges) -> Iterator[tuple[float, float]]:
    """(precision, share of the rows) of each tier that decides anything, on other rows."""
    left = np.ones(len(rows.ids), dtype=bool)
    for tier, (_, told) in zip(found.cascade.tiers, judges, strict=True):
        if tier.threshold is not None:
            taken = left & (told.confidence >= tier.threshold)
            if taken.any():
                yield float((told.place == rows.gold)[taken].mean()), float(taken.mean())
            left &= ~taken


def worlds(times: int, out: Path) -> None:
    """Simulate what is not in the file yet, and print the table."""
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    with out.open("a") as file:
        for n in range(len(done), times):
            shape, number = list(SHAPES)[n % len(SHAPES)], (n // len(SHAPES)) % len(SLOPES)
            rows, judges = world(np.random.default_rng(1_000 + n), shape, SLOPES[number])
            found = fit_cascade(rows, judges, 0.95, ("0", "1", "2"), took=TOOK, seed=n)
            tiers = list(held(found, *population(shape, number)))
            alone = (found.alone and found.alone.share.value) or 0.0
            decided = {"decided": sum(share for _, share in tiers), "alone": alone, "usd": found.usd_per_1000}
            done.append({"shape": shape, "tiers": tiers, **decided})
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    print("| worlds | with a promise | broken | decided | teacher alone decides | $ of $1.00 |")
    print("|---|---|---|---|---|---|")
    by_shape = defaultdict[str, list[dict[str, Any]]](list)
    for one in done[:times]:
        by_shape[one["shape"]].append(one)
    for shape, some in [*by_shape.items(), ("all", done[:times])]:
        promised = sum(bool(one["tiers"]) for one in some)
        broken = sum(any(precision < 0.95 for precision, _ in one["tiers"]) for one in some)
        decided, alone, usd = (np.mean([one[key] for one in some]) for key in ("decided", "alone", "usd"))
        first = f"| {shape}: {len(some)} | {promised} | {broken} ({broken / len(some):.1%}) |"
        print(f"{first} {decided:.0%} | {alone:.0%} | {usd:.2f} |")


# -- real rows -----------------------------------------------------------------------------------


def real(name: str, splits: int) -> None:
    """A table for one set."""
    frame, task = rows_of(name)[0].with_columns(group_key=pl.col(SETS[name].group)), task_of(SETS[name])
    print(f"\n{name}: {frame.height:,} rows, {frame['group_key'].n_unique():,} groups, {splits} splits, test\n")
    found = defaultdict[float, list[dict[str, float]]](list)
    for seed in range(splits):
        for target, figures in one_split(frame, task, seed).items():
            found[target].append(figures)
    names = ("student", "student right", "teacher", "teacher right", "people", "teacher alone")
    print(f"| promised | {' | '.join(names)} | broken | $ where each answer is $0.001 |")
    print(f"|{'---|' * (len(names) + 3)}")
    for target, some in found.items():
        told = {key: [one[key] for one in some if np.isfinite(one[key])] for key in some[0]}
        cells = [f"{100 * np.mean(told[name]):.1f} %" if told[name] else "–" for name in names]
        broken, usd = sum(one["broken"] > 0 for one in some), np.mean(told["usd"])
        print(f"| {target:.0%} | {' | '.join(cells)} | {broken} of {len(some)} | {usd:.2f}, alone 1.00 |", flush=True)


def task_of(source: RealSet) -> Task:
    """The set as a task."""
    grades = tuple(Grade(symbol=symbol, value=n) for n, symbol in enumerate(source.grades))
    return Task(name="real", fields=source.fields, group_by=source.group, grades=grades)


@dataclass(frozen=True)
class Split:
    """Dev and test of one division, and what the student says there; `probs` of dev are out of fold."""

    rows: dict[str, pl.DataFrame]
    probs: dict[str, Any]

    def gold(self, part: str, task: Task) -> Any:
        """Positions of the true grades."""
        return np.array([task.index(symbol) for symbol in self.rows[part]["gold"]])

    def groups(self, part: str) -> Any:
        """(N,) group of each row."""
        return self.rows[part]["group_key"].to_numpy()


def divided(frame: pl.DataFrame, task: Task, seed: int) -> Split:
    """Half of the groups teach the student, a quarter calibrates it, a quarter reports."""
    frame = frame.sample(fraction=1, shuffle=True, seed=seed).filter(pl.int_range(pl.len()).over("group_key") < MOST)
    groups = np.random.default_rng(seed).permutation(frame["group_key"].unique().sort().to_numpy())
    half, rest = len(groups) // 2, 3 * len(groups) // 4
    train, dev, test = (
        frame.filter(pl.col("group_key").is_in(part.tolist()))
        for part in (groups[:half], groups[half:rest], groups[rest:])
    )
    model = fit_baseline("tfidf_overlap", train, task, groups=train["group_key"])
    split = Split({"dev": dev, "test": test}, {"dev": model.predict(dev), "test": model.predict(test)})
    names, gold, raw = split.groups("dev").tolist(), split.gold("dev", task), split.probs
    if (kept := fit(names, gold, raw["dev"], seed=seed).kept) is None:
        return split
    inside = cross_fitted(kept.strategy, names, gold, raw["dev"], seed=seed)
    return Split(split.rows, {"dev": inside, "test": kept.apply(raw["test"])})


def one_split(frame: pl.DataFrame, task: Task, seed: int) -> dict[float, dict[str, float]]:
    """Promised precision -> what came of it on test."""
    split, draw = divided(frame, task, seed), np.random.default_rng(seed)
    sides = {part: _side(split, part, task, draw) for part in ("dev", "test")}
    fitted = {target: fit_cascade(*sides["dev"], target, task.symbols, took=TOOK) for target in TARGETS}
    return {target: _figures(found, *sides["test"]) for target, found in fitted.items()}


def _side(split: Split, part: str, task: Task, draw: np.random.Generator) -> tuple[Rows, Judges]:
    gold, groups, probs = split.gold(part, task), split.groups(part), split.probs[part]
    student = Said(probs.argmax(axis=1), probs.max(axis=1), False)
    codes = np.unique(groups, return_inverse=True)[1]
    odds = np.log(RIGHT / (1 - RIGHT)) + 0.6 + draw.normal(0, 1, codes.max() + 1)[codes] + draw.normal(0, 1, len(gold))
    right = draw.uniform(size=len(gold)) < 1 / (1 + np.exp(-odds))
    other = (gold + draw.integers(1, len(task.grades), len(gold))) % len(task.grades)
    sure = 1 / (1 + np.exp(-(odds + draw.normal(0, 0.5, len(gold)))))
    teacher = Said(np.where(right, gold, other), sure, False)
    return Rows([str(n) for n in range(len(gold))], groups, gold), [(STUDENT, student), (TEACHER, teacher)]


def _figures(found: FittedCascade, rows: Rows, judges: Judges) -> dict[str, float]:
    left, out = np.ones(len(rows.ids), dtype=bool), {"broken": 0.0, "usd": 0.0}
    for name, tier, (_, told) in zip(("student", "teacher"), found.cascade.tiers, judges, strict=True):
        taken = left & (told.confidence >= (np.inf if tier.threshold is None else tier.threshold))
        out[name], out[f"{name} right"] = float(taken.mean()), float("nan")
        if name == "teacher" and tier.threshold is not None:
            out["usd"] = float(left.mean())  # one dollar a thousand answers
        if taken.any():
            out[f"{name} right"] = float((told.place == rows.gold)[taken].mean())
            out["broken"] += out[f"{name} right"] < found.cascade.target
        left &= ~taken
    return {
        **out,
        "people": float(left.mean()),
        "teacher alone": float((found.alone and found.alone.share.value) or 0.0),
    }


def rules(name: str, splits: int) -> None:
    """A line for one set: quadratic kappa on test by each decision rule, and by the one that dev keeps."""
    frame, task = rows_of(name)[0].with_columns(group_key=pl.col(SETS[name].group)), task_of(SETS[name])
    metric, values = METRICS["qwk"], np.arange(len(task.grades), dtype=float)
    found: list[dict[str, float]] = []
    for seed in range(splits):
        split = divided(frame, task, seed)
        names, gold = split.groups("dev").tolist(), split.gold("dev", task)
        dev = (names, gold, split.probs["dev"], metric, values)
        chosen = fit_rule(*dev, ordered=True, seed=seed).kept
        tried = {rule: fitted_rule(rule, *dev) for rule in RULES} | {"kept": chosen or DecisionRule()}
        truth, groups = split.gold("test", task), split.groups("test")

        def kappa(said: Any, truth: Any = truth, groups: Any = groups) -> float:
            return metric.value(metric.sums(table(groups, truth, said, said == truth, values.tolist())))

        told = {rule: kappa(one.apply(split.probs["test"])) for rule, one in tried.items()}
        found.append({**told, "chosen": float(chosen is not None)})
    cells = [f"{np.mean([one[rule] for one in found]):.3f}" for rule in (*RULES, "kept")]
    gains = [one["kept"] - one["argmax"] for one in found]
    chosen_in = f"{sum(one['chosen'] for one in found):.0f} of {splits}"
    print(f"| {name} | {' | '.join(cells)} | {chosen_in} | {min(gains):+.3f} to {max(gains):+.3f} |", flush=True)


def main() -> None:
    """Read the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("worlds", "real", "rules"))
    parser.add_argument("times", type=int, nargs="?")
    parser.add_argument("-o", "--out", type=Path, default=Path("cascade-worlds.jsonl"))
    asked = parser.parse_args()
    if asked.what == "worlds":
        worlds(asked.times or 1_000, asked.out)
    for name in ("dbpedia", "semeval") if asked.what == "real" else ():
        real(name, asked.times or 20)
    if asked.what == "rules":
        print(f"| set | {' | '.join((*RULES, 'kept'))} | another rule is kept | gain on test |\n|{'---|' * 7}")
        for name in ("chorus", "dbpedia", "semeval"):
            rules(name, asked.times or 10)


if __name__ == "__main__":
    main()
