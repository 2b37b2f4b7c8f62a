"""Calibrating a judge: fitted on rows with truth that no training saw, kept where it helps, measured.

A student's decision rule is chosen on the same rows, after its calibration, for the metric that the project goes by.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from store.calibrated import kept, kept_rule, student_folder, truth_of
from store.calibration import SILENT, Calibration, Fit, Strategy, cross_fitted, fit, fitted, prior
from store.decision_rule import DecisionRule, RuleFit, RuleName, cross_decided, fit_rule, fitted_rule
from store.errors import PiarError, UsageError
from store.gain_metrics import METRICS, MetricName
from store.judges import Judge
from store.metrics import evaluate_arrays, positions
from store.probability_scores import (
    Alone,
    ProbabilityScores,
    alone,
    nll_of,
    normalised,
    probability_scores,
    usable,
)
from store.stats import Floats, Gain, Interval, Ints, paired_gain

if TYPE_CHECKING:
    import polars as pl

    from store.db import Store

Choice = Strategy | Literal["none"]


@dataclass(frozen=True, slots=True)
class Calibrating:
    """What `piar calibrate` found.

    Attributes:
        splits: whose rows it was fitted on.
        fit: what was tried; None without truth.
        kept: what is used from now on; None: raw probabilities.
        rules: which decision rules were tried, of a student with truth.
        rule: the one that is used from now on; None: the likeliest grade.
        says_only: the grade that it gives to all of these rows, so corrected; None where it tells them apart.
    """

    judge: Judge
    splits: tuple[str, ...]
    fit: Fit | None
    kept: Calibration | None
    rules: RuleFit | None = None
    rule: DecisionRule | None = None
    says_only: str | None = None


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A judge's figures after its calibration and by its decision rule, on the rows that have probabilities.

    Attributes:
        strategy: None where it has a rule alone.
        rule: which grade a distribution stands for.
        out_of_fold: the rows are among those that it was fitted on, and each was calibrated by other groups.
        accuracy_gain: of the grade, over the likeliest by the raw probabilities.
        gain: nats that a row's truth gains.
    """

    strategy: Strategy | None
    rows: int
    groups: int
    out_of_fold: bool
    accuracy: Interval
    accuracy_gain: Gain
    ece: Interval
    gain: Gain
    probabilities: ProbabilityScores
    rule: RuleName = "argmax"


def splits_of(judge: Judge) -> tuple[str, ...]:
    """Rows that calibrate: those of dev, and of train where the judge does not learn from it by gradient."""
    return ("train", "dev") if judge.name.startswith("teacher:") else ("dev",)


def calibrate(
    store: "Store",
    judge: Judge,
    strategy: Choice | None = None,
    *,
    rule: RuleName | None = None,
    metric: MetricName = "accuracy",
    seed: int = 0,
) -> Calibrating:
    """Fit what is known of a judge; nothing is asked and nothing is written.

    Without truth: batch calibration over all that it judged outside the test split.

    Args:
        strategy: keep this one whether it is shown to help or not; `none`: raw probabilities; None: the best, where
            it is shown to help.
        rule: the same of a student's decision rule.
        metric: what a decision rule is to gain in.

    Raises:
        PiarError: it gave no probabilities, or its rows with truth are of one group.
        UsageError: a rule for another judge than a student, or one that needs an order that the grades lack.
    """
    splits, student = splits_of(judge), judge.name.startswith("student:")
    if rule is not None and not student:
        raise UsageError("Only a student keeps a decision rule.", "Leave out --rule, or pass --judge student:PATH.")
    if rule not in (None, "argmax") and not store.task.ordered:
        raise UsageError(f"The rule {rule} needs grades in an order.", "Leave out --rule: the likeliest grade stands.")
    if strategy == "none" and rule in (None, "argmax"):
        return Calibrating(judge, splits, None, None)
    frame = judged_rows(store, judge, splits)
    if frame.is_empty() or strategy == "prior":
        return Calibrating(judge, splits, None, _batch(store, judge))
    groups, gold, probs = positions(frame, store.task)
    names = list(groups)
    found = fit(names, gold, probs, seed=seed)
    calibration = found.kept
    if strategy is not None:
        calibration = None if strategy == "none" else fitted(strategy, names, gold, probs)
    if not student:
        return Calibrating(judge, splits, found, calibration, says_only=_only(store, calibration, None, probs))
    after = cross_fitted(calibration.strategy, names, gold, probs, seed=seed) if calibration else probs
    metrics, values = METRICS[metric], np.array([grade.value for grade in store.task.grades], dtype=np.float64)
    rules = fit_rule(names, gold, after, metrics, values, ordered=store.task.ordered, seed=seed)
    decided = fitted_rule(rule, names, gold, after, metrics, values) if rule else rules.kept
    only = _only(store, calibration, decided, probs)
    return Calibrating(judge, splits, found, calibration, rules, decided, only)


def _only(store: "Store", calibration: Calibration | None, rule: DecisionRule | None, probs: Floats) -> str | None:
    """The one grade that all rows get by what is kept, which a gain over a weak judge may come from."""
    if calibration is None or calibration.strategy == "temperature":  # changes no grade
        return None
    said = np.unique((rule or DecisionRule()).apply(calibration.apply(probs[usable(probs)])))
    return store.task.symbols[said[0]] if len(said) == 1 else None


def keep(store: "Store", found: Calibrating) -> dict[str, Any]:
    """Keep what was found: with a student in its folder, else as the detail of the run, which is returned.

    Raises:
        PiarError: the student's folder cannot be written.
    """
    kind, _, path = found.judge.name.partition(":")
    if kind == "student":
        from trainers.checkpoint import keep_calibration

        keep_calibration(student_folder(store, path), found.kept, found.rule)
    return {
        "judge": found.judge.name,
        "instruction": found.judge.instruction,
        "calibration": found.kept.model_dump(mode="json") if found.kept else None,
        "splits": list(found.splits),
        "truth": truth_of(store, found.splits),
    }


@dataclass(frozen=True, slots=True)
class Corrected:
    """A judge's N rows of a split with truth and probabilities, as they are and as they count.

    Attributes:
        ids, groups, gold: (N,) each; raw, probs: (N, K), before and after its calibration.
        said: (N,) position of the grade that it gives, by its decision rule.
        out_of_fold: what corrects it was fitted on these rows, and each is corrected by other groups.
        calibration: None where the judge has none; `probs` are then the raw ones.
    """

    ids: Any
    groups: Any
    gold: Ints
    raw: Floats
    probs: Floats
    said: Ints
    out_of_fold: bool
    calibration: Calibration | None
    rule: DecisionRule | None


def corrected(store: "Store", judge: Judge, split: str, *, seed: int = 0) -> Corrected | None:
    """The rows of a split, before and after; None where none has truth and probabilities."""
    found, rule = kept(store, judge), kept_rule(store, judge)
    fits = found is not None and found.strategy != "prior"
    inside = (fits or rule is not None) and split in splits_of(judge)
    frame = judged_rows(store, judge, splits_of(judge) if inside else (split,))
    here = frame["split"].to_numpy() == split
    if not here.any():
        return None
    groups, gold, raw = positions(frame, store.task)
    probs = raw
    if found is not None:
        again = inside and fits
        probs = cross_fitted(found.strategy, list(groups), gold, raw, seed=seed) if again else found.apply(raw)
    said = (rule or DecisionRule()).apply(probs)
    if rule is not None and inside:
        values = np.array([grade.value for grade in store.task.grades], dtype=np.float64)
        said = cross_decided(rule.name, list(groups), gold, probs, METRICS[rule.metric], values, seed=seed)
    here &= usable(probs)
    if not here.any():
        return None
    ids = frame["sample_id"].to_numpy()[here]
    return Corrected(ids, groups[here], gold[here], raw[here], probs[here], said[here], inside, found, rule)


def after(store: "Store", judge: Judge, split: str, *, seed: int = 0) -> Calibrated | None:
    """A judge's figures on a split as it counts; None where nothing corrects it, or it has no probabilities there."""
    if kept(store, judge) is None and kept_rule(store, judge) is None:
        return None
    rows = corrected(store, judge, split, seed=seed)
    return None if rows is None else _figures(store, rows, seed)


def _figures(store: "Store", rows: Corrected, seed: int) -> Calibrated | None:
    scores = probability_scores(rows.groups, rows.gold, rows.probs, ordered=store.task.ordered, seed=seed)
    was, is_now, by = rows.raw.argmax(axis=1), rows.said, rows.calibration or rows.rule
    measured = evaluate_arrays(rows.groups, rows.gold, is_now, rows.probs, store.task, seed=seed)
    if scores is None or by is None:
        return None
    before, now = nll_of(rows.raw, rows.gold), nll_of(rows.probs, rows.gold)
    return Calibrated(
        strategy=rows.calibration.strategy if rows.calibration else None,
        rows=by.rows,
        groups=by.groups,
        out_of_fold=rows.out_of_fold,
        accuracy=measured.accuracy,
        accuracy_gain=paired_gain(was == rows.gold, is_now == rows.gold, rows.groups, seed=seed),
        ece=measured.ece,
        gain=paired_gain(-before, -now, rows.groups, seed=seed),
        probabilities=scores.model_copy(update={"alone": decided_alone(rows, seed=seed)}) if rows.rule else scores,
        rule=rows.rule.name if rows.rule else "argmax",
    )


def decided_alone(rows: Corrected, *, seed: int = 0) -> Alone:
    """What the judge may decide alone, by its rule and the probability of the grade that it gives."""
    confidence = normalised(rows.probs)[np.arange(len(rows.said)), rows.said]
    return alone(confidence, rows.said == rows.gold, rows.groups, seed=seed)


def judged_rows(store: "Store", judge: Judge, splits: Sequence[str]) -> "pl.DataFrame":
    """Rows of these splits with truth and a judge's probabilities: sample_id, split, group, gold, probs."""
    return store.frame(
        """select s.sample_id::varchar as sample_id, s.split, s.group_key as "group", t.grade as gold, v.probs
        from samples s join truth t using (sample_id) join verdict v using (sample_id)
        where list_contains(?, s.split) and v.judge = ? and v.instruction = ? and v.vote = 0 and v.probs is not null
            and s.origin = 'import'
        order by s.sample_id""",
        [list(splits), judge.name, judge.instruction],
    )


def _batch(store: "Store", judge: Judge) -> Calibration:
    """Batch calibration over every first answer with probabilities outside the test split."""
    frame = store.frame(
        """select v.probs from verdict v join samples s using (sample_id)
        where v.judge = ? and v.instruction = ? and v.vote = 0 and s.split <> 'test'""",
        [judge.name, judge.instruction],
    )
    if frame.is_empty():
        raise PiarError(
            f"Of {judge.name} there is no answer outside the test split yet.",
            "Let it judge: `piar label`, or `piar score --split dev`; dev has rows when several groups are labelled.",
        )
    frame = frame.drop_nulls()
    if frame.is_empty():
        raise PiarError(f"{judge.name} has given no probabilities.", SILENT)
    return prior(frame["probs"].to_list())
