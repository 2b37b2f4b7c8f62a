"""What the runs found, as one table: figures in `results/`, printed as Markdown; losses stand among them."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.real.results import Found, merged
from store.files import write_text
from store.stats import paired_gain

READ = ("read270", "read05", "read15", "both270", "both05", "both15", "auto15")
STUDENTS = ("frozen", "encoder", "together", *READ, "base270", "instruct05")


def read(out: Path) -> list[Found]:
    """Every arm of every project in a work folder."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*-*-*/*.json"))]


def write_students(out: Path, results: Path) -> None:
    """Add what a work folder holds to the result file, and print the table of it.

    What the file says of an arm on as many splits or more stays, unless it is measured anew here.
    """
    found = [one for one in read(out) if "arm" in one]
    results.mkdir(parents=True, exist_ok=True)
    path = results / "students.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"arms": [], "gains": []}
    told = {
        "arms": merged(known["arms"], [_cell(part) for part in _parts(found)], "set", "train", "arm"),
        "gains": merged(known["gains"], _gains(found), "set", "train", "arm"),
    }
    write_text(path, json.dumps(told, indent=1) + "\n")
    print(students(told))


def _parts(found: Iterable[Found]) -> list[list[Found]]:
    """Runs that differ by their split alone."""
    parts: dict[tuple[str, int, str], list[Found]] = {}
    for one in found:
        parts.setdefault((one["set"], one["train"], one["arm"]), []).append(one)
    return list(parts.values())


def _cell(part: list[Found]) -> Found:
    first = part[0]
    mean = {name: _mean(one[name] for one in part) for name in ("macro_f1", "ece", "nll", "ms", "mb", "seconds")}
    accuracies = [one["accuracy"][0] for one in part]
    named = {name: first[name] for name in ("set", "train", "arm")}
    learnt = [one["learnt"] for one in part]
    told = {**named, "learnt": learnt, "splits": len(part), "accuracy": _mean(accuracies), "each": accuracies, **mean}
    after = [one["calibrated"] for one in part if one.get("calibrated")]
    if after:  # on how many splits a calibration was kept, and the means over these
        told["calibrated"] = {"splits": len(after)} | {n: _mean(one[n] for one in after) for n in ("accuracy", "ece")}
    return told


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known else None


def _gains(found: list[Found]) -> list[Found]:
    """What each student gains over each set's best baseline, on the splits that both have, by group over all of them.

    The best is the one of the highest mean accuracy on these splits; for the likelihood (`nats`) the one of the least
    loss. A group that several splits report is one.
    """
    gains = []
    for part in _parts(found):
        name, train, arm = (part[0][key] for key in ("set", "train", "arm"))
        if arm not in STUDENTS:
            continue
        splits = {one["split"] for one in part}
        others = [
            other
            for other in _parts(found)
            if (other[0]["set"], other[0]["train"]) == (name, train) and other[0]["arm"] not in STUDENTS
        ]
        held = [[one for one in other if one["split"] in splits] for other in others]
        held = [other for other in held if len(other) == len(part)]
        if held:
            best = max(held, key=lambda other: _mean(one["accuracy"][0] for one in other) or 0)
            gains.append({"set": name, "train": train, "arm": arm, "over": best[0]["arm"], **_paired(best, part)})
            likeliest = min(held, key=lambda other: _mean(one["nll"] for one in other) or math.inf)
            if all(row[2:] and row[2] is not None for one in (*likeliest, *part) for row in one["rows"]):
                gains[-1]["nats"] = {"over": likeliest[0]["arm"], **_paired(likeliest, part, column=2)}
    return gains


def _paired(before: list[Found], after: list[Found], column: int = 1) -> Found:
    rows = [
        [row for one in sorted(runs, key=lambda one: one["split"]) for row in one["rows"]] for runs in (before, after)
    ]
    groups = [row[0] for row in rows[1]]
    gain = paired_gain(*([row[column] for row in part] for part in rows), np.array(groups, dtype=object))
    return {"mean": gain.mean, "low": gain.low, "high": gain.high, "splits": len(after), "groups": len(set(groups))}


def students(told: Found) -> str:
    """The table in Markdown: accuracy by arm and rows, then gains over the best baseline."""
    lines = [
        "| set | rows | arm | accuracy (each split) | macro F1 | ECE | calibrated: splits, ECE | NLL | ms | MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in sorted(told["arms"], key=lambda one: (one["set"], one["train"], one["accuracy"])):
        each = ", ".join(f"{100 * a:.1f}" for a in one["each"])
        figures = [f"{one[name]:{form}}" if one[name] is not None else "–" for name, form in _FORMS.items()]
        after = one.get("calibrated")
        figures.insert(2, f"{after['splits']}, {after['ece']:.3f}" if after else "–")
        lines.append(
            f"| {one['set']} | {_span(one['learnt'])} | {one['arm']} | {100 * one['accuracy']:.1f} ({each}) | "
            + " | ".join(figures)
            + " |"
        )
    head = "| set | rows | student | over the best baseline | points (95 %) | likelihood, nats (95 %) |"
    lines += ["", head, "|---|---|---|---|---|---|"]
    for one in told["gains"]:
        low, high = (f"{100 * one[end]:+.1f}" if one[end] is not None else "?" for end in ("low", "high"))
        lines.append(
            f"| {one['set']} | {one['train']} | {one['arm']} | {one['over']} | "
            f"{100 * one['mean']:+.1f} ({low} to {high}) | {_nats(one.get('nats'))} |"
        )
    return "\n".join(lines)


def _nats(found: Found | None) -> str:
    if found is None or found["low"] is None:
        return "–"
    return f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}), {found['over']}"


_FORMS = {"macro_f1": ".2f", "ece": ".3f", "nll": ".2f", "ms": ".1f", "mb": ".0f"}


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
