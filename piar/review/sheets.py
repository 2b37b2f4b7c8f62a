"""Sheets that people fill in: written with what they judge, read as spreadsheets and other programs save them."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from piar.review.answers import SKIPPED, UNDONE, Pulled, seconds
from piar.review.batch import Batch
from piar.review.page import DOUBTS, INFORMED, field_key
from piar.review.who import who_answered
from store.cells import grade_symbol
from store.db import Store, now
from store.errors import PiarError
from store.files import cell
from store.label_studio import plain_choice
from store.readers import Reading, read
from store.tables import moment
from store.task import Task
from store.types import Label

ANSWER_COLUMNS = ("grade", "rule", "doubts", "comment")
_OURS = ("sample_key", "batch", "annotator", "said", *ANSWER_COLUMNS)
_WORD_GAP = re.compile(r"[\s_-]+")
_PARTS = re.compile(r"[,;|\n]")
_RULE = re.compile(r"[^\s:,;|]+")
_AGAIN = re.compile(r"(?<=.)_\d+$")
_NO_WORD = re.compile(r"[\W_]+")
_COMPARED = 200  # letters and digits of a text by which its row is known: spreadsheets cut long cells


def sheet_text(tasks: list[dict[str, Any]], task: Task, batch: Batch, person: str) -> bytes:
    """One person's rows as CSV with empty answers.

    A field that is called like a column of ours, or like a question, stands under its name on pages.
    """
    file = io.StringIO(newline="")
    sheet = csv.writer(file)
    asked = [*ANSWER_COLUMNS, *(question.name for question in batch.questions)]
    said = ["said"] if tasks and "said" in tasks[0]["data"] else []
    sheet.writerow(["sample_key", "batch", "annotator", *columns_of(task, batch).values(), *said, *asked])
    for item in tasks:
        data = item["data"]
        texts = [cell(data[key]) for key in (*map(field_key, task.fields), *said)]
        sheet.writerow([data["sample_key"], cell(batch.name), cell(person), *texts, *[""] * len(asked)])
    return file.getvalue().encode("utf-8-sig")


def columns_of(task: Task, batch: Batch) -> dict[str, str]:
    """Field -> its column in a sheet of this batch."""
    taken = {_plain(name) for name in (*_OURS, *(question.name for question in batch.questions))}
    return {name: field_key(name) if _plain(name) in taken else name for name in task.fields}


def read_sheet(store: Store, path: Path, sheet: str | None, batch: Batch, annotator: str, into: Pulled) -> None:
    """Take in a sheet as spreadsheets save it: any delimiter and encoding, a workbook, titles above the header, columns
    in another order or case. A row that is there twice with different answers counts as none.

    Raises:
        PiarError: it lacks a column, is another batch's, or does not say who answered.
    """
    table = read(path, Reading(plain=True, sheet=sheet))
    for rejected in table.rejected:
        into.count(rejected.reason)
    others = {_plain(name) for name in (*columns_of(store.task, batch).values(), *(q.name for q in batch.questions))}
    named = _columns(table.frame.columns, others, path.name)
    rows = [{name: cells[column].strip() for name, column in named.items()} for cells in table.frame.rows(named=True)]
    rows = [row for row in rows if any(row.values())]
    if other := next(
        (row["batch"] for row in rows if row.get("batch", batch.name) not in ("", *_written(batch))), None
    ):
        raise PiarError(f"{path.name} is a sheet of batch {other}, not of {batch.name}.", f"Add --batch {other}.")
    require_rows(store, batch, {row["sample_key"].lower() for row in rows}, path.name)
    answered = [row for row in rows if _answers(row)]
    people = who_answered({row.get("annotator", "") for row in answered}, batch.annotators, annotator, path.name)
    taken, said = _Rows(store, batch, path.name, people, into), dict[tuple[str, str], Label]()
    contradicted = set[tuple[str, str]]()
    for row in rows:
        label = taken.label(row)
        if label is None:
            continue
        first = said.setdefault((label.annotator, label.sample_id), label)
        if "annotation_id" in row:  # of a tool that dates answers the latest word holds
            said[label.annotator, label.sample_id] = max(first, label, key=lambda one: one.at or datetime.min)
        elif replace(first, at=label.at) != label:
            contradicted.add((label.annotator, label.sample_id))
    if contradicted:
        into.count("row that is there twice with different answers", len(contradicted))
    into.labels += [label for key, label in said.items() if key not in contradicted]
    taken.count_emptied(rows, set(said))


def require_rows(store: Store, batch: Batch, keys: Set[str], name: str) -> None:
    """Raise `PiarError` where none of the rows is of this batch, or all are of another one alone."""
    ours = {a.sample_id for a in batch.assignments}
    if not keys or keys <= ours:
        return
    dealt = store.frame("select distinct batch, sample_id from review_tasks where batch <> ?", [batch.name]).rows()
    held = {other: len(keys & {key for at, key in dealt if at == other}) for other in {at for at, _ in dealt}}
    best = max(held, key=lambda other: (held[other], other), default="")
    if best and held[best] > len(keys & ours):
        raise PiarError(
            f"{name} has {held[best]:,} rows of batch {best} and {len(keys & ours):,} of {batch.name}.",
            f"Add --batch {best}.",
        )
    if not keys & ours:
        raise PiarError(
            f"No row of {name} is in a batch of this project: none has a known sample_key.",
            "Import it in the folder where it was exported; keys that somebody has changed come back by export.",
        )


def _columns(names: Sequence[str], others: Set[str], file: str) -> dict[str, str]:
    """Our name of a column -> the column.

    Args:
        others: columns of fields and questions. A name that is there twice is read as `grade` and `grade_2`.
    """
    named: dict[str, str] = {}
    for name in names:
        known = _plain(name)
        known = known if known in others else _AGAIN.sub("", known)
        known = "doubts" if known == "doubt" else known  # as Label Studio's tables have it
        if known in ("sample_key", "annotator", *ANSWER_COLUMNS) and known in named:
            raise PiarError(
                f"{file} has two columns for {known}: {named[known]!r} and {name!r}.", "Delete or rename one of them."
            )
        named.setdefault(known, name)
    if lacking := [name for name in ("sample_key", "grade") if name not in named]:
        raise PiarError(
            f"{file} cannot be read: it has no column {' and no column '.join(lacking)} (it has "
            f"{', '.join(names[:12])}).",
            "Call its columns as in the sheet that was exported: sample_key, annotator, grade, rule, doubts, comment.",
        )
    return named


def _plain(name: str) -> str:
    return _WORD_GAP.sub("_", name.strip().casefold())


def _written(batch: Batch) -> tuple[str, str]:
    return batch.name, cell(batch.name)


def _answers(row: Mapping[str, str]) -> bool:
    return any(row.get(name) for name in ANSWER_COLUMNS)


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts of a batch's rows as letters and digits, by which a row is known again.

    Attributes:
        own: sample -> field -> text.
        all: field -> the texts of all rows.
    """

    own: dict[str, dict[str, str]]
    all: dict[str, set[str]]

    @classmethod
    def of(cls, store: Store, batch: Batch) -> "_Texts":
        samples = store.samples(ids={a.sample_id for a in batch.assignments})
        own = {s.id: {name: _known_by(words) for name, words in s.fields.items()} for s in samples}
        return cls(own, {name: {texts[name] for texts in own.values()} for name in store.task.fields})

    def strays(self, key: str, row: Mapping[str, str], columns: Mapping[str, str]) -> bool:
        """Whether a row shows the text of another one, as after only a part of the columns was sorted."""
        shown = {name: _known_by(row.get(_plain(column), "")) for name, column in columns.items()}
        return any(words and words != self.own[key][name] and words in self.all[name] for name, words in shown.items())


def _known_by(words: str) -> str:
    return _NO_WORD.sub("", words.casefold())[:_COMPARED]


class _Rows:
    """Turns the rows of one sheet into labels, and counts what was odd."""

    def __init__(self, store: Store, batch: Batch, origin: str, people: Mapping[str, str], into: Pulled) -> None:
        self.store, self.task, self.batch, self.origin, self.people, self.into = (
            store, store.task, batch, origin, people, into,
        )  # fmt: skip
        self.texts, self.columns = _Texts.of(store, batch), columns_of(store.task, batch)

    def label(self, row: Mapping[str, str]) -> Label | None:
        """What a row says; None where that is nothing, or odd."""
        said, key = plain_choice(row["grade"]), row["sample_key"].lower()
        grade = grade_symbol(said, self.task)
        if key not in self.texts.own:
            self.into.count("row without a known sample_key")
            return None
        if said and grade is None:
            self.into.count(f"unknown grade {said[:20]!r}")
            return None
        doubts, comment = self._doubts(row.get("doubts", "")), row.get("comment", "")
        if not (grade or doubts or comment):
            return None
        if self.texts.strays(key, row, self.columns):
            self.into.count("row with a sample_key and the text of another row (sorted in part?)")
            return None
        person = self.people[row.get("annotator", "")]
        if person not in self.batch.annotators:
            self.into.count(f"answer of {person}, to whom batch {self.batch.name} was not given")
        rule, by_tool = _RULE.match(row.get("rule", "")), "annotation_id" in row
        return Label(
            sample_id=key,
            source="human",
            annotator=person,
            grade=grade,
            comment=comment,
            rule=_rule(rule[0]) if rule else None,
            flags=doubts,
            seconds=seconds(row.get("lead_time")) if by_tool else None,
            blind=self.batch.blind,
            batch=self.batch.name,
            origin=self.origin,
            at=(moment(row.get("updated_at")) if by_tool else None) or now(),
            further=_further(row, self.batch),
        )

    def _doubts(self, said: str) -> tuple[str, ...]:
        """The doubts that a cell names, by their names or in their words; others are counted."""
        known = {_plain(words): name for name in DOUBTS for words in (name, DOUBTS[name])}
        given = [part for part in map(_plain, _PARTS.split(plain_choice(said))) if part]
        if any(part not in known for part in given):  # several names with a blank between them
            parts = re.split(r"\s+", said)
            given = parts if all(part in known for part in parts) else given
        for part in given:
            if part not in known:
                self.into.count(f"unknown doubt {part[:20]!r}")
        found = [known[part] for part in given if part in known]
        return tuple(name for name in dict.fromkeys(found) if not (self.batch.blind and name in INFORMED))

    def count_emptied(self, rows: Sequence[Mapping[str, str]], said: Set[tuple[str, str]]) -> None:
        """Count the rows that were answered before and are empty now: a sheet may be sent half filled in."""
        sql = """select sample_id, annotator from label where batch = ? and source = 'human' and grade is not null
            and not list_has_any(flags, [?, ?])"""
        stand = set(self.store.frame(sql, [self.batch.name, UNDONE, SKIPPED]).rows())
        given = {(row["sample_key"].lower(), row.get("annotator", "")) for row in rows if not _answers(row)}
        names = {cell(person): person for person in self.batch.annotators}
        emptied = {(key, names.get(who, who)) for key, who in given} & stand
        if n := len([pair for pair in emptied if pair[::-1] not in said]):
            self.into.count("empty row that was answered before: that answer stands", n)


def _rule(said: str) -> str:
    return said.upper() if re.fullmatch(r"[rR]\d+", said) else said


def _further(row: Mapping[str, str], batch: Batch) -> str:
    """What a row of a sheet says to the batch's questions; several choices are parted by semicolons."""
    said = {q.name: row.get(_plain(q.name), "") for q in batch.questions}
    parted = {q.name: said[q.name].split(";") if q.many and q.choices else [said[q.name]] for q in batch.questions}
    return json.dumps({name: [w.strip() for w in words] for name, words in parted.items() if said[name]},
                      ensure_ascii=False)  # fmt: skip
