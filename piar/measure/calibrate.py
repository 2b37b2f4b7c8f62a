"""Calibrating a judge: fitted on rows with truth that no training saw, kept where it helps, measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from store.calibrated import kept, student_folder
from store.calibration import SILENT, Calibration, Fit, Strategy, cross_fitted, fit, fitted, prior
from store.errors import PiarError
from store.judges import Judge
from store.metrics import evaluate_arrays, positions
from store.probability_scores import ProbabilityScores, nll_of, probability_scores, usable
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
    """

    judge: Judge
    splits: tuple[str, ...]
    fit: Fit | None
    kept: Calibration | None


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A judge's figures after its calibration, on the rows that have probabilities.

    Attributes:
        out_of_fold: the rows are among those that it was fitted on, and each was calibrated by other groups.
        accuracy_gain: of the likeliest grade, over that of the raw probabilities.
        gain: nats that a row's truth gains.
    """

    strategy: Strategy
    rows: int
    groups: int
    out_of_fold: bool
    accuracy: Interval
    accuracy_gain: Gain
    ece: Interval
    gain: Gain
    probabilities: ProbabilityScores


def splits_of(judge: Judge) -> tuple[str, ...]:
    """Rows that calibrate: those of dev, and of train where the judge does not learn from it by gradient."""
    return ("train", "dev") if judge.name.startswith("teacher:") else ("dev",)


def calibrate(store: "Store", judge: Judge, strategy: Choice | None = None, *, seed: int = 0) -> Calibrating:
    """Fit what is known of a judge; nothing is asked and nothing is written.

    Without truth: batch calibration over all that it judged outside the test split.

    Args:
        strategy: keep this one whether it is shown to help or not; `none`: raw probabilities; None: the best, where
            it is shown to help.

    Raises:
        PiarError: it gave no probabilities, or its rows with truth are of one group.
    """
    splits = splits_of(judge)
    if strategy == "none":
        return Calibrating(judge, splits, None, None)
    frame = judged_rows(store, judge, splits)
    if frame.is_empty() or strategy == "prior":
        return Calibrating(judge, splits, None, _batch(store, judge))
    groups, gold, probs = positions(frame, store.task)
    found = fit(list(groups), gold, probs, seed=seed)
    return Calibrating(judge, splits, found, fitted(strategy, list(groups), gold, probs) if strategy else found.kept)


def keep(store: "Store", found: Calibrating) -> dict[str, Any]:
    """Keep what was found: with a student in its folder, else as the detail of the run, which is returned.

    Raises:
        PiarError: the student's folder cannot be written.
    """
    kind, _, path = found.judge.name.partition(":")
    if kind == "student":
        from trainers.checkpoint import keep_calibration

        keep_calibration(student_folder(store, path), found.kept)
    calibration = found.kept.model_dump(mode="json") if found.kept else None
    return {"judge": found.judge.name, "instruction": found.judge.instruction, "calibration": calibration}


@dataclass(frozen=True, slots=True)
class Corrected:
    """A judge's rows of a split with truth and probabilities, as they are and calibrated: (N,), (N,), (N, K), (N, K).

    Attributes:
        out_of_fold: the calibration was fitted on these rows, and each is calibrated by other groups.
        calibration: None where the judge has none; `probs` are then the raw ones.
    """

    groups: Any
    gold: Ints
    raw: Floats
    probs: Floats
    out_of_fold: bool
    calibration: Calibration | None


def corrected(store: "Store", judge: Judge, split: str, *, seed: int = 0) -> Corrected | None:
    """The rows of a split, before and after; None where none has truth and probabilities."""
    found = kept(store, judge)
    inside = found is not None and found.strategy != "prior" and split in splits_of(judge)
    frame = judged_rows(store, judge, splits_of(judge) if inside else (split,))
    here = frame["split"].to_numpy() == split
    if not here.any():
        return None
    groups, gold, raw = positions(frame, store.task)
    probs = raw
    if found is not None:
        probs = cross_fitted(found.strategy, list(groups), gold, raw, seed=seed) if inside else found.apply(raw)
    here &= usable(probs)
    return Corrected(groups[here], gold[here], raw[here], probs[here], inside, found) if here.any() else None


def after(store: "Store", judge: Judge, split: str, *, seed: int = 0) -> Calibrated | None:
    """A judge's figures on a split after its calibration; None where it has none, or no probabilities there."""
    if kept(store, judge) is None or (rows := corrected(store, judge, split, seed=seed)) is None:
        return None
    return _figures(store, rows, seed) if rows.calibration else None


def _figures(store: "Store", rows: Corrected, seed: int) -> Calibrated | None:
    scores = probability_scores(rows.groups, rows.gold, rows.probs, ordered=store.task.ordered, seed=seed)
    was, is_now = rows.raw.argmax(axis=1), rows.probs.argmax(axis=1)
    measured = evaluate_arrays(rows.groups, rows.gold, is_now, rows.probs, store.task, seed=seed)
    if scores is None or rows.calibration is None:
        return None
    before, now = nll_of(rows.raw, rows.gold), nll_of(rows.probs, rows.gold)
    return Calibrated(
        strategy=rows.calibration.strategy,
        rows=rows.calibration.rows,
        groups=rows.calibration.groups,
        out_of_fold=rows.out_of_fold,
        accuracy=measured.accuracy,
        accuracy_gain=paired_gain(was == rows.gold, is_now == rows.gold, rows.groups, seed=seed),
        ece=measured.ece,
        gain=paired_gain(-before, -now, rows.groups, seed=seed),
        probabilities=scores,
    )


def judged_rows(store: "Store", judge: Judge, splits: Sequence[str]) -> "pl.DataFrame":
    """Rows of these splits with truth and a judge's probabilities: split, group, gold, probs."""
    return store.frame(
        """select s.split, s.group_key as "group", t.grade as gold, v.probs
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
        where v.judge = ? and v.instruction = ? and v.vote = 0 and v.probs is not null and s.split <> 'test'""",
        [judge.name, judge.instruction],
    )
    if frame.is_empty():
        raise PiarError(f"{judge.name} has given no probabilities.", SILENT)
    return prior(frame["probs"].to_list())
