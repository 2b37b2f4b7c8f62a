"""One person's rows, one after another: an answer is in the store before the next row is shown.

The store alone knows how far a batch is, so going on after any kind of ending is the same as going on. Nothing of the
store is held between two rows. What is taken back stays on record: a later label without a grade, flagged `undone`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from piar.review.answers import SKIPPED, UNDONE
from piar.review.batch import Assignment, Batch, compose, load
from piar.review.page import DOUBTS, INFORMED
from piar.review.push_pull import to_tasks
from piar.review.settings import ReviewSettings
from store.db import Store
from store.errors import PiarError, UsageError
from store.types import Label

Source = Literal["queue", "random"]
ROWS = 50  # of a batch that is made on the spot
PREFIX = "here-"
# The latest word of one person on each row of a batch; rows that were taken back are open again.
_STANDING = """
select t.sample_id, t.position, l.sample_id is not null as answered, l.created_at, l.grade, l.comment, l.flags, l.rule,
       l.seconds
from (select * from review_tasks where batch = $1 and annotator = $2) t
left join (select * from label where batch = $1 and annotator = $2 and source = 'human'
           and not list_contains(flags, 'undone')) l using (sample_id)
order by t.position"""


@dataclass(frozen=True, slots=True)
class Said:
    """What a person says of a row besides the grade; `grade` is set where an earlier answer is shown again."""

    grade: str | None = None
    comment: str = ""
    flags: tuple[str, ...] = ()
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What a person looks at.

    Attributes:
        said: all opinions, one a line, where a row is settled; else "".
        earlier: what the person had said, when the row was gone back to.
    """

    sample_id: str
    fields: Mapping[str, str]
    said: str = ""
    earlier: Said = field(default_factory=Said)


@dataclass(frozen=True, slots=True)
class Place:
    """How far a batch is: rows that have an answer, rows in all, median seconds of an answer."""

    done: int
    rows: int
    seconds: float

    @property
    def left(self) -> float:
        """Seconds that the rest takes."""
        return (self.rows - self.done) * self.seconds


class Sitting:
    """The rows of one person in one batch.

    Args:
        store: the project's store; it is opened for each read and write alone.
        batch: what was given to whom.
        person: whose rows; one of `batch.annotators`.
        run_id: recorded with each label.
    """

    def __init__(self, store: Store, batch: Batch, person: str, run_id: str) -> None:
        self.store, self.batch, self.person, self.run_id = store, batch, person, run_id

    @property
    def doubts(self) -> dict[str, str]:
        """Flag -> words of what may be doubted: a label that nobody sees is not among it."""
        return {flag: words for flag, words in DOUBTS.items() if not (self.batch.blind and flag in INFORMED)}

    def next(self) -> Row | None:
        """The first row that has no answer, in the order of the batch."""
        keys = [key for key, answered in self.store.frame(_STANDING, self._mine).select("sample_id", "answered").rows()
                if not answered]  # fmt: skip
        return self._row(keys[0], Said()) if keys else None

    def place(self) -> Place:
        """How far it is."""
        rows = self.store.frame(_STANDING, self._mine)
        median = rows["seconds"].median()
        pace = float(median) if isinstance(median, int | float) else self.batch.pace
        return Place(int(rows["answered"].sum()), rows.height, pace)

    def keep(self, row: Row, said: Said, seconds: float) -> None:
        """Keep an answer; it is on disk when this returns.

        Args:
            said: without a grade, the row is skipped.
            seconds: that the row took.

        Raises:
            PiarError: the store is held by another process, or cannot be written.
        """
        flags = said.flags if said.grade is not None else (*said.flags, SKIPPED)
        self._add(row.sample_id, said.grade, flags, seconds, said.comment, said.rule)

    def undo(self) -> Row | None:
        """Take the latest answer back, also one of an earlier sitting; its row, or None where there is none."""
        rows = self.store.frame(_STANDING, self._mine).filter("answered").sort("created_at", "position")
        if rows.is_empty():
            return None
        last = rows.row(-1, named=True)
        self._add(last["sample_id"], None, (UNDONE,), None)
        flags = tuple(flag for flag in last["flags"] if flag != SKIPPED)
        return self._row(last["sample_id"], Said(last["grade"], last["comment"], flags, last["rule"]))

    @property
    def _mine(self) -> list[str]:
        return [self.batch.name, self.person]

    def _row(self, key: str, earlier: Said) -> Row:
        [sample] = self.store.samples(ids=[key])
        said = "" if self.batch.blind else to_tasks(self.store, self._assigned(key))[0]["data"].get("said", "")
        return Row(key, sample.fields, said, earlier)

    def _assigned(self, key: str) -> list[Assignment]:
        return [a for a in self.batch.of(self.person) if a.sample_id == key]

    def _add(self, key: str, grade: str | None, flags: Sequence[str], seconds: float | None, comment: str = "",
             rule: str | None = None) -> None:  # fmt: skip
        label = Label(
            key,
            "human",
            self.person,
            grade,
            comment=comment,
            flags=tuple(flags),
            rule=rule,
            seconds=seconds,
            blind=self.batch.blind,
            batch=self.batch.name,
            origin="here",
        )
        self.store.add_labels([label], self.run_id)


def batch_for(
    store: Store,
    person: str,
    settings: ReviewSettings,
    run_id: str,
    *,
    name: str | None = None,
    source: Source | None = None,
    rows: int = ROWS,
) -> Batch:
    """The batch that a person works on here: the one that is named, else one left unfinished, else a new one.

    Args:
        person: whose labels they will be.
        settings: `[review]`; of a new batch, this person is the only annotator.
        name: an existing batch with rows for that person, or the name of a new one.
        source: of a new batch: `queue` (mined), or `random`; None: the queue where there is one.
        rows: of a new batch.

    Raises:
        UsageError: the batch is other people's.
        PiarError: there is nothing to review, or nothing queued.
    """
    if name is None:
        name = _unfinished(store, person) or _free_name(store, person)
    if known := load(store, name):
        if person not in known.annotators:
            raise UsageError(
                f"{person} has no rows in batch {name}; it is for {', '.join(known.annotators)}.",
                "Say who you are with --by, or name a new batch.",
            )
        return known
    if source == "queue" and store.frame("select 1 from label_queue limit 1").is_empty():
        raise PiarError("Nothing is queued.", "Run `piar label` and `piar mine` first, or take --from random.")
    own = {"annotators": (person,), "overlap": 0.0} | ({"random": 1.0} if source == "random" else {})
    return compose(store, name, settings.model_copy(update=own), run_id, answers=rows)


def _unfinished(store: Store, person: str) -> str | None:
    """The oldest batch of that person that was made here and has open rows."""
    found = store.frame(
        """select batch, min(b.created_at) as since from review_tasks t join review_batches b using (batch)
           where t.annotator = $1 and starts_with(batch, $2) and not exists (
               select 1 from label l where l.sample_id = t.sample_id and l.batch = t.batch and l.annotator = $1
               and not list_contains(l.flags, 'undone'))
           group by batch order by since, batch limit 1""",
        [person, PREFIX],
    )
    return None if found.is_empty() else str(found["batch"].item())


def _free_name(store: Store, person: str) -> str:
    plain = re.sub(r"\W+", "-", person.split("@")[0], flags=re.ASCII).strip("-").lower()[:20] or "you"
    known = set(store.frame("select batch from review_batches")["batch"])
    return next(name for i in range(1, len(known) + 2) if (name := f"{PREFIX}{plain}-{i}") not in known)
