"""Which of a judge's labels to trust: those sure enough to reach a precision; people look at the rest."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from piar.judging.threshold import Threshold, confidence_curve, threshold_for
from store.calibrated import calibrated_relation
from store.db import Store
from store.errors import PiarError
from store.judges import Judge

# Gold of these splits calibrates: holdout decides promotions and test stays closed.
CALIBRATED_ON = ("train", "dev")
UNSURE = "unsure"  # the reason why such a row is queued

# The tally of `piar.judging.votes` in SQL: the grade that most votes name, and its mean probability over all of them.
_BALLOTS = """
    with counted as (select v.sample_id, g.symbol as grade, g.position, count(*) as votes, count(v.probs) as told,
                            count(*) filter (v.grade = g.symbol) as said,
                            avg(coalesce(v.probs[g.position + 1], (v.grade = g.symbol)::integer)) as confidence
                     from {verdicts} v cross join grades g
                     where v.judge = ? and v.instruction = ? and v.grade is not null
                     group by v.sample_id, g.symbol, g.position),
         best as (select * from counted
                  qualify row_number() over (
                      partition by sample_id order by said desc, round(confidence, 6) desc, position) = 1)
    select b.sample_id, s.group_key, s.split, b.grade, b.confidence, b.votes > 1 or b.told > 0 as told, t.grade as truth
    from best b join samples s using (sample_id) left join truth t using (sample_id)
    order by b.sample_id
"""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe.

    Attributes:
        threshold: with its precision, measured out of fold by group.
        measured: rows with truth that it was measured on.
        trusted: labels without truth at or above it.
        queued: labels without truth below it, now in the queue for people, least sure first.
    """

    threshold: Threshold
    measured: int
    trusted: int
    queued: int


def tallies(store: Store, judge: Judge) -> pl.DataFrame:
    """What the votes on each sample come to, calibrated where the judge is: sample_id, group_key, split, grade,
    confidence, told, truth."""
    with store.read() as con:
        verdicts = calibrated_relation(con, store, "verdict", [judge])
        return store.frame(_BALLOTS.format(verdicts=verdicts), [judge.name, judge.instruction])


def trust(store: Store, judge: str, instruction: str, target: float, run_id: str, seed: int = 0) -> Trust:
    """Find the confidence that reaches `target`, and queue what does not for people, in place of earlier such rows.

    Args:
        judge: e.g. `teacher:MODEL`, whose verdicts are in the store.
        instruction: id of the instruction it read.
        target: precision to reach, such as 0.95.

    Raises:
        PiarError: no verdicts, no truth to measure on, or a judge that never says how sure it is.
    """
    rows = tallies(store, Judge(judge, instruction))
    if not rows["told"].any():
        raise PiarError(
            f"{judge} never said how sure it is.",
            "Use an endpoint that sends logprobs, or ask several votes: `piar label --votes 3`.",
        )
    known = rows.filter(rows["truth"].is_not_null() & rows["split"].is_in(CALIBRATED_ON))
    if known.is_empty():
        raise PiarError("No judged row of train or dev has truth to measure on.", "Label train and dev, too.")
    right = (known["grade"] == known["truth"]).to_numpy().astype(float)
    groups = known["group_key"].to_list()
    curve = confidence_curve(known["confidence"].to_numpy(), right, groups, seed)
    threshold = threshold_for(target, curve.out_of_fold, right, groups, seed)
    rest = rows.filter(rows["truth"].is_null())
    sureness = curve.apply(rest["confidence"].to_numpy())
    below = np.flatnonzero(sureness < threshold.value)
    ranked = below[np.argsort(sureness[below], kind="stable")]
    ids = rest["sample_id"].to_list()
    queue = pa.table(
        {
            "sample_id": pa.array([ids[i] for i in ranked.tolist()], pa.string()),
            "reason": pa.array([UNSURE] * len(ranked), pa.string()),
            "score": 1 - sureness[ranked],
            "rank": pa.array(range(1, len(ranked) + 1), pa.int32()),
            "run_id": pa.array([run_id] * len(ranked), pa.string()),
        }
    )
    with store.write() as con:
        con.execute("delete from queue where reason = ?", [UNSURE])
        store.insert("queue", queue)
    return Trust(threshold, known.height, rest.height - len(ranked), len(ranked))
