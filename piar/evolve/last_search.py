"""What stands and what was tried last, as the store knows it: for the report and for `piar show candidate`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from piar.evolve.ending import Ended, ended, procedure
from store.db import Store
from store.types import Instruction

State = Literal["waits", "accepted", "rejected", "withdrawn", "refused"]


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate that met the instruction in force on the holdout.

    Attributes:
        state: `waits` for a person, `accepted` or `rejected` by one, `withdrawn` when a later search ended without a
            proposal, or `refused` by its test.
        reason: what the test said.
        tested: the test as JSON, as `EvolveReport.promotions` has it.
        by: who decided, and when.
    """

    candidate: str
    against: str
    state: State
    reason: str
    tested: Mapping[str, Any]
    by: str
    at: str


def tried(store: Store, candidate: str = "") -> Tried | None:
    """The candidate that was tested last; None when none was.

    Args:
        candidate: beginning of an instruction's id, to ask for that one.
    """
    rows = store.frame(
        "select instruction, against, outcome, reason, detail, decided_by, created_at from decisions "
        "where kind = 'promotion' and starts_with(instruction, ?) order by created_at desc limit 1",
        [candidate],
    ).rows(named=True)
    if not rows:
        return None
    test = rows[0]
    person = store.frame(
        "select outcome, decided_by, created_at from decisions where against = ? and created_at >= ? "
        "and outcome in ('accepted', 'rejected') order by created_at desc limit 1",  # by what it met: it may be edited
        [test["against"], test["created_at"]],
    ).rows(named=True)
    state: State = "waits" if test["outcome"] == "proposed" else "refused"
    search, last = last_search(store), test
    if state == "waits" and isinstance(search, Ended) and search.ending != "proposed":
        state = "withdrawn"
    if person:
        last, state = person[0], person[0]["outcome"]
    return Tried(
        test["instruction"],
        test["against"],
        state,
        test["reason"],
        json.loads(test["detail"]),
        last["decided_by"],
        f"{last['created_at']:%Y-%m-%d %H:%M} UTC",
    )


def untested(store: Store, instruction: str) -> str:
    """What was tested in the place of an instruction that cross-fitting has proposed; "" of any other."""
    found = store.frame(
        "select detail from decisions where kind = 'promotion' and instruction = ? order by created_at desc limit 1",
        [instruction],
    )
    return procedure(json.loads(found.item())) if found.height else ""


def in_force(store: Store) -> Instruction | None:
    """The instruction in force, as the view of that name has it; where no person has put one in force, what a candidate
    was tested against last, else the first that anybody was asked under."""
    found = store.frame(
        """select instruction from (
             select instruction, 0 as rank, since from in_force
             union all select against, 1, created_at from decisions where kind = 'promotion'
           ) order by rank, since desc limit 1"""
    )
    if not found.height:
        found = store.frame(
            "select instruction_id from instructions i left join verdict v on v.instruction = i.instruction_id "
            "group by all order by count(v.sample_id) = 0, min(i.created_at) limit 1"
        )
    return store.instruction(found.item()) if found.height else None


def last_search(store: Store) -> Ended | str | None:
    """How the last search ended, or in words why it did not; None when nothing was searched."""
    rows = store.frame(
        "select e.status, e.detail from runs r left join run_events e on e.run_id = r.run_id "
        "and e.status in ('done', 'failed', 'interrupted', 'abandoned') where r.verb = 'evolve' "
        "order by r.started desc, e.created_at desc limit 1"
    ).rows()
    if not rows:
        return None
    status, detail = rows[0]
    known = json.loads(detail) if detail else {}
    if status == "done":
        return ended(known)
    if status == "failed":
        return str(known.get("error", "it failed"))
    return "it was cut off; the same command goes on where it was"
