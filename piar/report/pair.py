"""Which two instructions the report compares, and their verdicts side by side."""

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from piar.evolve.last_search import State, Tried
from store.db import Store, quote
from store.types import Instruction

Role = State | Literal["", "in force"]


@dataclass(frozen=True, slots=True)
class Pair:
    """The two instructions that the page compares, and the judge whose verdicts it compares them by.

    Attributes:
        role: what `after` is: only a gain of the one in force is a gain that the owner has.
        names: what the page calls the two.
    """

    before: Instruction | None
    after: Instruction | None
    judge: str | None
    role: Role = ""
    names: tuple[str, str] = field(default=("before", "after"))


def pair(store: Store, current: Instruction | None, tried: Tried | None) -> Pair:
    """A proposal that waits beside the one in force; else that one beside the start; else what was tried beside it.

    Args:
        current: the instruction in force.
        tried: the candidate that was tested last.
    """
    asked = (
        "select v.judge, v.instruction, min(i.created_at) as first from verdict v "
        "join instructions i on i.instruction_id = v.instruction group by all order by first"
    )
    judges = {row["instruction"]: str(row["judge"]) for row in store.frame(asked).rows(named=True)}

    def both(before: str, after: str, role: Role, names: tuple[str, str]) -> Pair:
        return Pair(store.instruction(before), store.instruction(after), judges.get(after), role, names)

    if tried and tried.state == "waits":
        return both(tried.against, tried.candidate, "waits", (_name(tried, current), "proposed"))
    if current and current.id in judges and (start := _root(store, current.id)) != current.id:
        return both(start, current.id, "in force", ("at the start", "in force"))
    if tried and tried.state == "accepted":
        return both(_root(store, tried.candidate), tried.candidate, "accepted", ("at the start", "accepted"))
    if tried:
        return both(tried.against, tried.candidate, tried.state, (_name(tried, current), tried.state))
    if len(judges) > 1:
        last = list(judges)[-1]
        return both(_root(store, last), last, "", ("at the start", "latest"))
    return Pair(None, current, next(iter(judges.values()), None))


def _name(tried: Tried, current: Instruction | None) -> str:
    """What the page calls the instruction that a candidate met."""
    return "in force" if current is None or current.id == tried.against else "in force then"


def _root(store: Store, instruction_id: str) -> str:
    parents = dict(store.frame("select instruction_id, parent from instructions").rows())
    seen = {instruction_id}
    while (parent := parents.get(instruction_id)) and parent not in seen:
        seen.add(parent)
        instruction_id = parent
    return instruction_id


_PAIRED = """select s.sample_id::varchar as sample_id, s.group_key, s.split, t.grade as truth, m.grade as majority,
       coalesce(a.grade, '(failed)') as before, coalesce(b.grade, '(failed)') as after{slices}
from samples s
join verdict a on a.sample_id = s.sample_id and a.judge = $judge and a.instruction = $before and a.vote = 0
join verdict b on b.sample_id = s.sample_id and b.judge = $judge and b.instruction = $after and b.vote = 0
left join truth t on t.sample_id = s.sample_id
left join majority m on m.sample_id = s.sample_id
where s.split in ('dev', 'holdout', 'test')"""


def paired(store: Store, pair: Pair) -> tuple[pl.DataFrame, str]:
    """Rows that were judged under both instructions, and the query; an empty frame where there are not two."""
    if pair.before is None or pair.after is None or pair.judge is None or pair.before.id == pair.after.id:
        return pl.DataFrame(), _PAIRED
    slices = "".join(
        f",\n       coalesce(({sql}\n), false) as {quote('slice: ' + name)}" for name, sql in store.task.slices.items()
    )
    values = {"judge": pair.judge, "before": pair.before.id, "after": pair.after.id}
    sql = _PAIRED.format(slices=slices)
    with store.read() as con:
        frame: pl.DataFrame = con.sql(sql, params=values).pl()
    shown = sql
    for name, value in values.items():
        shown = shown.replace(f"${name}", "'" + value.replace("'", "''") + "'")
    return frame, shown
