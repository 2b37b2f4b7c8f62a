"""Labels by people that a later change of policy has overtaken: which, since when, and how many hours they cost.

A label is stale when the grade that it gives, or the rule that it names, means something else now than under the
instruction that was in force when it was given. Labels from before the first instruction count as given under that one.
Chosen by us: words decide, typography apart, unless somebody called the edit minor (`store.wording`). A label
is no longer named once its person has judged the row again, or anybody to whom it was given for that (`--relabel`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from store.wording import minor_edits, overtaken, timeline

if TYPE_CHECKING:
    from store.db import Store
    from store.types import Instruction
    from store.wording import Minor

_SECONDS = 20.0  # a row, where nobody's pace is known


@dataclass(frozen=True, slots=True)
class StaleLabels:
    """People's labels that rest on words that have changed.

    Attributes:
        what: the grade or the rule, e.g. `grade 1` or `rule R07`.
        since: when its words changed last.
        labels: how many labels given before that rest on older words; `sample_ids` are their samples.
        hours: what they cost: seconds taken, the median where a label does not know them.
    """

    what: str
    since: datetime
    labels: int
    hours: float
    sample_ids: tuple[str, ...]


def stale_labels(store: "Store", current: "Instruction", minor: "Sequence[Minor] | None" = None) -> list[StaleLabels]:
    """Labels by people that are stale under `current`, by grade and rule, the most hours first.

    Args:
        minor: edits that made no label stale; those that people called so when None.
    """
    spans = overtaken(store, timeline(store, current), minor_edits(store) if minor is None else minor)
    found = [stale for what, each in spans.items() if (stale := _count(store, what, each))]
    return sorted(found, key=lambda s: (-s.hours, s.what))


def _count(store: "Store", what: str, spans: list[tuple[datetime, datetime]]) -> StaleLabels | None:
    from piar.review.batch import SPENT

    kind, _, name = what.partition(" ")
    given = " or ".join(f"l.created_at >= ${2 * i + 3} and l.created_at < ${2 * i + 4}" for i in range(len(spans)))
    rows = store.frame(
        f"""with said as (
                select * from label
                where source = 'human' and grade is not null and not list_has_any(flags, ['draft', 'skipped'])
                qualify row_number() over (
                    partition by sample_id, annotator, ordinal order by created_at desc, label_id) = 1
            ), again as (
                select sample_id from said join review_tasks t using (batch, sample_id, annotator)
                where t.role = 'relabel' and said.created_at >= $2
            )
            select l.sample_id, coalesce({SPENT}, (select median(seconds) from said), {_SECONDS}) from said l
            where l.{kind} = $1 and ({given}) and l.sample_id not in (from again)""",
        [name, spans[-1][1], *(at for span in spans for at in span)],
    ).rows()
    if not rows:
        return None
    hours = sum(seconds for _, seconds in rows) / 3600
    return StaleLabels(what, spans[-1][1], len(rows), hours, tuple(sorted({key for key, _ in rows})))
