"""What `piar report` shows of final grades that contradict raters of one mind: is a policy behind them, not written?

A policy that an instruction has learned shows on groups that the reviser never saw; one that it memorised does not.
"""

from typing import Any

from piar.evolve.ledger import taught
from piar.report.pair import Pair
from store.db import Store

SHOWN_GROUPS = 10
UNSEEN = ("holdout", "test")  # train and dev are shown to the reviser; by cross-fitting holdout groups teach, too

CONTRADICTED = """with people as (
    select sample_id, min(grade) as grade from vote where source = 'human'
    group by sample_id having count(*) > 1 and count(distinct grade) = 1
)
select s.group_key, s.split, g.grade as final, p.grade as raters, b.grade as before, a.grade as after
from people p join winner g on g.sample_id = p.sample_id and g.source = 'gold' and g.grade <> p.grade
join samples s on s.sample_id = p.sample_id
left join verdict b on b.sample_id = s.sample_id and b.judge = $1 and b.instruction = $2 and b.vote = 0
left join verdict a on a.sample_id = s.sample_id and a.judge = $1 and a.instruction = $3 and a.vote = 0
order by s.group_key, s.sample_id"""


def contradictions(store: Store, pair: Pair) -> dict[str, Any] | None:
    """Groups that hold most such rows, and whom the new instruction agrees with there; None where there is no row."""
    names = [pair.judge or "", *(i.id if i else "" for i in (pair.before, pair.after))]
    found = store.frame(CONTRADICTED, names).rows(named=True)
    if not found:
        return None
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault((row["group_key"], row["split"]), []).append(row)
    largest = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    half = next(i for i in range(1, len(largest) + 1) if 2 * sum(len(r) for _, r in largest[:i]) >= len(found))
    lessons = taught(store, pair.after.id) if pair.after else frozenset()
    unseen = [row for row in found if row["split"] in UNSEEN and row["group_key"] not in lessons]
    return {
        "lead": (
            f"{len(found):,} final grades contradict raters who all agree, {100 * _share(largest[:half], found):.0f} % "
            f"of them in {half:,} of {len(groups):,} groups. If somebody follows a rule that is not written, an "
            f"instruction that has learned it says the final grade in {'' if lessons else 'holdout and '}test too, "
            "whose groups no reviser has seen."
        ),
        "rows": [{"group": group, "split": split, **_tally(rows)} for (group, split), rows in largest[:SHOWN_GROUPS]],
        "unseen": _tally(unseen),
        "source": CONTRADICTED,
    }


def _share(groups: list[tuple[tuple[str, str], list[dict[str, Any]]]], found: list[dict[str, Any]]) -> float:
    return sum(len(rows) for _, rows in groups) / len(found)


def _tally(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows, the moves from raters to final grade, and of those judged how many sided with whom."""
    judged = [row for row in rows if row["after"] is not None]
    moves = sorted({f"{row['raters']} → {row['final']}" for row in rows})
    sides = {
        f"{side}_{when}": sum(row[side] == row[when] for row in judged)
        for side in ("final", "raters")
        for when in ("before", "after")
    }
    return {"n": len(rows), "moves": ", ".join(moves), "judged": len(judged), **sides}
