"""Who says how good a document is: gold, the teacher, or a student."""

from dataclasses import dataclass

import polars as pl

from piar.rankings.matching import Matched
from piar.rankings.measures import gains
from store.db import Store
from store.errors import PiarError
from store.judges import Judge

GOLD = "gold"


@dataclass(frozen=True, slots=True)
class Judgements:
    """The grades of pairs by one judge.

    Attributes:
        rows: `sample_id`, `query`, `document`, `unit`, `grade`, `gain`, `value`.
        top: the highest value on the scale.
    """

    rows: pl.DataFrame
    top: float


def judgements(store: Store, matched: Matched, judge: Judge | None) -> Judgements:
    """The grades that one judge gave to the matched samples.

    Args:
        judge: whose first votes; None: what is held true.

    Raises:
        PiarError: the judge has graded none of them.
    """
    if judge is None:
        said = store.frame("select sample_id, grade from truth")
    else:
        said = store.frame(
            "select sample_id, grade from verdict where judge = ? and instruction = ? and vote = 0 "
            "and grade is not null",
            [judge.name, judge.instruction],
        )
    whole, values = gains(store.task), store.task.values
    rows = matched.samples.join(said, on="sample_id").with_columns(
        gain=pl.col("grade").replace_strict(whole, return_dtype=pl.Int64),
        value=pl.col("grade").replace_strict(values, return_dtype=pl.Float64),
    )
    if rows.is_empty():
        who = "gold" if judge is None else judge.name
        mend = "Import graded rows: `piar import FILE --gold COLUMN`." if judge is None else "Run `piar label` first."
        raise PiarError(f"No document of the runs has a grade by {who}.", mend)
    return Judgements(rows, max(values.values()))
