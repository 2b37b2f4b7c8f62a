"""Precision and recall of the flag "the guideline may be wrong here": `python -m benchmarks.guideline_doubts [WORLDS]`.

*Simulated*: 6 raters whose ability spreads from 60 to 95 of 100 on a middling row, 600 rows under 12 rules and of
uneven difficulty, 3 or 5 raters a row. Two rules are at fault: the two ablest raters give the true grade there in 85 of
100 cases, the others what the rule says as often. The label is the majority's, or comes from somebody who follows the
guideline (gold). As many projects have no fault; there every flag is false.
"""

import json
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.worlds import Row, rows_of
from store.guideline_doubts import doubts
from store.stats import Ints, share_by_group

RATERS, ROWS, RULES, GRADES, FAULTY, SEEING = 6, 600, 12, 3, 2, 2
ARMS = {f"{each} raters, {label}": (each, label) for each in (3, 5) for label in ("majority", "gold")}


def project(seed: int, each: int, label: str, faulty: Ints) -> tuple[set[str], set[str]]:
    """Rules that were named, and those at fault whose labels are mostly wrong."""
    rng = np.random.default_rng(seed)
    ability = rng.uniform(0.6, 0.95, RATERS)
    able = np.argsort(ability)[-SEEING:]
    rule, truth, hard = rng.integers(0, RULES, ROWS), rng.integers(0, GRADES, ROWS), rng.normal(0, 0.8, ROWS)
    bad = np.isin(rule, faulty)
    says = np.where(bad, (truth + 1) % GRADES, truth)
    who = np.argsort(rng.random((ROWS, RATERS)), axis=1)[:, :each]
    right = rng.random(who.shape) < 1 / (1 + np.exp(hard[:, None] - np.log(ability / (1 - ability))[who]))
    slip = (truth[:, None] + rng.integers(1, GRADES, who.shape)) % GRADES
    usual = np.where(right, truth[:, None], slip)
    drawn = np.where(np.isin(who, able), truth[:, None], says[:, None])
    grades = np.where(bad[:, None], np.where(rng.random(who.shape) < 0.85, drawn, slip), usual)
    counts = (grades[:, :, None] == np.arange(GRADES)).sum(axis=1)
    labels = says if label == "gold" else counts.argmax(axis=1)
    rules = {f"rule {n}": np.flatnonzero(rule == n).tolist() for n in range(RULES)}
    items = np.repeat(np.arange(ROWS), each)
    found, _ = doubts(items, who.ravel(), grades.ravel(), labels, rules, GRADES)
    harmed = {f"rule {n}" for n in faulty if (labels != truth)[rule == n].mean() > 0.5}
    return {d.what for d in found}, harmed


def one(number: int) -> Row:
    """All arms on one simulated project with faults and one without."""
    faulty = np.random.default_rng(10**7 + number).choice(RULES, FAULTY, replace=False)
    row: Row = {"world": number}
    for name, (each, label) in ARMS.items():
        named, harmed = project(number, each, label, faulty)
        bad = {f"rule {n}" for n in faulty}
        clean, _ = project(10**6 + number, each, label, faulty[:0])
        row[name] = {
            "named": len(named),
            "true": len(named & bad),
            "harmed": len(harmed),
            "found": len(named & harmed),
            "clean": len(clean),
        }
    return row


def summary(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Precision, recall of all faults and of those that make most labels wrong, and clean projects with any flag."""

    def share(hits: list[int], of: list[int]) -> str:
        found = share_by_group(hits, of, list(range(len(hits))))
        ends = "" if found.low is None else f" ({found.low:.2f}-{found.high:.2f})"
        return "none" if found.value is None else f"{found.value:.3f}{ends}"

    told = {}
    for name in ARMS:
        cells = [row[name] for row in rows]
        told[name] = {
            "precision": share([c["true"] for c in cells], [c["named"] for c in cells]),
            "recall": share([c["true"] for c in cells], [FAULTY] * len(cells)),
            "recall where labels are wrong": share([c["found"] for c in cells], [c["harmed"] for c in cells]),
            "clean projects with a flag": f"{sum(c['clean'] > 0 for c in cells)} of {len(cells)}",
        }
    return told


def run(worlds: int = 100, out: str = "guideline-doubts.jsonl") -> None:
    """Print the figures; what is cut short goes on."""
    print(json.dumps(summary(rows_of(one, worlds, 0, out)), indent=1))


if __name__ == "__main__":
    run(*(int(n) for n in sys.argv[1:2]), *sys.argv[2:3])
