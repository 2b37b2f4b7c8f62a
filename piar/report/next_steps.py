"""What a lead had better run next, by how each batch reaches its people: in Label Studio, as sheets, at a terminal."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from piar.review.batch import Batch, free_name, giving, pushed
from piar.review.sitting import PREFIX
from store.db import Store
from store.figures import many, working_time
from store.types import Instruction

Step = tuple[str, str]  # a command, and why

PAGES = """select batch, list(distinct annotator order by annotator) as people from (
    select batch, annotator, instruction from review_projects
    qualify row_number() over (partition by batch, annotator order by created_at desc) = 1)
where instruction <> $1 group by batch order by batch"""
DISPUTED = """select count(*) from (select sample_id from vote
where batch = $1 and source = 'human' and sample_id not in (select sample_id from settled)
group by sample_id having count(distinct grade) > 1)"""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the rules below look at.

    Attributes:
        values: of `piar.report.meeting.collect`.
        pushed: batches that are in Label Studio.
        taken: names of batches.
    """

    store: Store
    batches: Sequence[Batch]
    values: dict[str, Any]
    current: Instruction
    pushed: frozenset[str]
    taken: set[str]

    def new(self, name: str, options: str, like: str | None = None) -> str:
        """The command that gives people a new batch, as they were given another one (any of theirs when None)."""
        free = free_name(name, self.taken)
        self.taken.add(free)
        return giving(free, options, bool(self.pushed) if like is None else like in self.pushed)

    def open(self) -> dict[str, list[Any]]:
        """Batch -> its rows of `values["open"]`."""
        found: dict[str, list[Any]] = {}
        for row in self.values["open"]:
            found.setdefault(row["batch"], []).append(row)
        return found


def following(
    store: Store, batches: Sequence[Batch], values: dict[str, Any], current: Instruction
) -> list[tuple[str, str]]:
    """Commands that are worth running next, and why; the most urgent first.

    Args:
        values: of `piar.report.meeting.collect`.
        current: the instruction in force.
    """
    known = _Known(store, batches, values, current, pushed(store), {batch.name for batch in batches})
    return [step for rule in _RULES for step in rule(known)]


def _older_pages(known: _Known) -> Iterator[Step]:
    for name, people in known.store.frame(PAGES, [known.current.id]).rows():
        if name in known.open():
            yield f"piar review push --batch {name}", f"{', '.join(people)} see an older instruction there"


def _answers_to_bring(known: _Known) -> Iterator[Step]:
    for name, rows in known.open().items():
        people = ", ".join(row["person"].annotator for row in rows)
        left = f"{many(sum(map(_left, rows)), 'row')} of {people}"
        if name in known.pushed:
            yield (
                f"piar review pull --batch {name}",
                f"{left} without an answer when the last ones were brought here",
            )
        elif name.startswith(PREFIX):
            for row in rows:
                who = row["person"].annotator
                yield (
                    f"piar review here --batch {name} --by {shlex.quote(who)}",
                    f"{who} has {many(_left(row), 'row')} left",
                )
        else:
            yield (
                f"piar review import FILE --batch {name}",
                f"{left} not back yet; FILE is a sheet of theirs",
            )


def _left_behind(known: _Known) -> Iterator[Step]:
    for name, rows in known.open().items():
        gone = [row for row in rows if row["stopped"] and not name.startswith(PREFIX)]
        if gone:
            names, left = ", ".join(row["person"].annotator for row in gone), sum(map(_left, gone))
            why = (
                f"{names} left {many(left, 'row')}; take them out of [review] annotators first, where they do not "
                "come back"
            )
            yield known.new(f"{name}-rest", f"--rest {name}", name), why


def _disputes(known: _Known) -> Iterator[Step]:
    for batch in (b for b in known.batches if b.blind):
        if disputed := int(known.store.frame(DISPUTED, [batch.name]).item()):
            why = f"{many(disputed, 'row')} on which people differ"
            yield known.new("settle", f"--adjudicate {batch.name}", batch.name), why


def _doubts(known: _Known) -> Iterator[Step]:
    for doubt in known.values["doubts"]["rows"][:2] if known.values["doubts"] else ():
        found = doubt["found"]
        where = f"{found.what} may be wrong" if found.what != "row" else "the guideline may be wrong about it"
        yield f"piar show sample {found.sample_ids[0]}", f"{where}: talk about this row"


def _stale(known: _Known) -> Iterator[Step]:
    if stale := known.values["stale"]:
        n, hours = sum(s["labels"] for s in stale), sum(s["hours"] for s in stale)
        rests = "rests" if n == 1 else "rest"
        why = f"{many(n, 'label')} {rests} on words that have changed, {working_time(hours)} of work"
        yield known.new("again", "--relabel stale"), why


def _pilot(known: _Known) -> Iterator[Step]:
    waits = any(batch.pilot and batch.name in known.open() for batch in known.batches)
    if not known.values["shared"] and not waits:
        yield known.new("pilot", "--pilot 30"), "no two people have judged the same random rows"


_RULES = (_older_pages, _answers_to_bring, _left_behind, _disputes, _doubts, _stale, _pilot)


def _left(row: dict[str, Any]) -> int:
    return int(row["person"].assigned - row["person"].answered)
