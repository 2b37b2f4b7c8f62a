"""How far people agree: all together, each with the others, and by the rule that decided.

On random rows alone: rows that were chosen because judges disagree say nothing about how often people do. What is
compared are pairs of answers to one row; intervals are by group.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from store.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha, level_of, vote_counts
from store.stats import Interval, share_by_group
from store.task import Task

# Of each answer: the row, its group, who gave it, the grade, the rule that it names (None: none).
ANSWER = ("sample_id", "group_key", "annotator", "grade", "rule")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far people agree on the random rows that two or more of them judged."""

    items: int
    alpha: Interval | None
    fleiss: Interval | None
    cohen: dict[str, float | None]
    confusion: dict[str, list[list[int]]]


@dataclass(frozen=True, slots=True)
class RuleAgreement:
    """How often two people give a row the same grade that a rule decides.

    Attributes:
        rule: "" where nobody named one.
        rows: that two or more people judged, where one of them named the rule, or the teacher cites it and nobody
            named any.
        pairs: of answers to them.
        same: share of the pairs that agree.
        split: of the pairs that differ, how many named different rules.
    """

    rule: str
    rows: int
    pairs: int
    same: Interval
    split: int


def shared(answers: pl.DataFrame) -> pl.DataFrame:
    """The answers, one of each person, to rows that two or more people judged."""
    rows = answers.select(ANSWER).unique(["sample_id", "annotator"])
    return rows.filter(pl.len().over("sample_id") > 1).sort("sample_id", "annotator")


def agreement(task: Task, answers: pl.DataFrame) -> Agreement:
    """Agreement beyond chance, of all and of each two people.

    Args:
        answers: with the columns of `ANSWER`.
    """
    rows = shared(answers)
    if rows.is_empty():
        return Agreement(0, None, None, {}, {})
    items = rows["sample_id"].rank("dense").cast(pl.Int64).to_numpy() - 1
    grades = np.array([task.index(g) for g in rows["grade"]])
    groups = rows.unique("sample_id").sort("sample_id")["group_key"].to_numpy()
    n, k = int(items.max()) + 1, len(task.symbols)
    counts = vote_counts(items, grades, n, k)
    cohen, confusion = {}, {}
    for a, b in itertools.combinations(sorted(set(rows["annotator"])), 2):
        both = _both(rows, a, b)
        if both.height:
            first, second = ([task.index(g) for g in both[name]] for name in ("first", "second"))
            cohen[f"{a} / {b}"] = cohen_kappa(first, second, k).value
            confusion[f"{a} / {b}"] = vote_counts(np.array(first), np.array(second), k, k).tolist()
    values = [g.value for g in task.grades]
    alpha = krippendorff_alpha(counts, level=level_of(task), values=values, groups=groups)
    return Agreement(n, alpha, fleiss_kappa(counts, groups=groups), cohen, confusion)


def _both(rows: pl.DataFrame, a: str, b: str) -> pl.DataFrame:
    first = rows.filter(pl.col("annotator") == a).select("sample_id", first="grade")
    return first.join(rows.filter(pl.col("annotator") == b).select("sample_id", second="grade"), on="sample_id")


def pairs(answers: pl.DataFrame) -> pl.DataFrame:
    """Every two answers to one row: `sample_id`, `group_key`, `annotator`, `other`, their rules, and whether `same`."""
    rows = shared(answers)
    return (
        rows.join(rows, on="sample_id", suffix="_other")
        .filter(pl.col("annotator") < pl.col("annotator_other"))
        .select(
            "sample_id",
            "group_key",
            "annotator",
            "rule",
            other="annotator_other",
            other_rule="rule_other",
            same=pl.col("grade") == pl.col("grade_other"),
        )
        .sort("sample_id", "annotator", "other")
    )


def with_others(found: pl.DataFrame) -> dict[str, Interval]:
    """Person -> share of the pairs in which they and somebody else give the same grade.

    Args:
        found: of `pairs`.
    """
    people = sorted({*found["annotator"], *found["other"]})
    mine = {p: found.filter((pl.col("annotator") == p) | (pl.col("other") == p)) for p in people}
    return {person: _share(rows) for person, rows in mine.items()}


def by_rule(found: pl.DataFrame, cited: Mapping[str, str]) -> list[RuleAgreement]:
    """Agreement by the rule that decided, the one with most disagreements first.

    Args:
        found: of `pairs`.
        cited: sample -> rule that the teacher cites.
    """
    named = [
        sorted({r for r in (a, b) if r}) or [cited.get(key, "")]
        for key, a, b in found.select("sample_id", "rule", "other_rule").rows()
    ]
    each = found.with_columns(pl.Series("decided", named, dtype=pl.List(pl.String))).explode("decided")
    result = [_of_rule(str(rule), rows) for (rule,), rows in each.group_by(["decided"], maintain_order=True)]
    return sorted(result, key=lambda r: (-round(r.pairs * (1 - (r.same.value or 0.0))), r.rule))


def _of_rule(rule: str, rows: pl.DataFrame) -> RuleAgreement:
    split = rows.filter(~pl.col("same") & pl.col("rule").ne_missing(pl.col("other_rule"))).height
    return RuleAgreement(rule, rows["sample_id"].n_unique(), rows.height, _share(rows), split)


def _share(rows: pl.DataFrame) -> Interval:
    same = rows["same"].cast(pl.Float64).to_numpy()
    return share_by_group(same, np.ones(len(same)), rows["group_key"].to_numpy())
