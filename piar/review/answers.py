"""What people said in Label Studio, as labels."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from piar.review.batch import Batch
from piar.review.page import DOUBTS, INFORMED
from piar.review.who import LONGEST_NAME
from store.cells import grade_symbol
from store.db import now
from store.label_studio import controls
from store.tables import moment
from store.task import Task
from store.types import NOTHING_FURTHER, Label

UNDONE, SKIPPED = "undone", "skipped"  # flags of labels without a grade
_LONGEST_SECONDS = 10**7  # of an answer


@dataclass(slots=True)
class Pulled:
    """Labels read from tasks, and what was odd about the rest."""

    labels: list[Label] = field(default_factory=list)
    odd: dict[str, int] = field(default_factory=dict)

    def count(self, reason: str, n: int = 1) -> None:
        """Count something that gave no label."""
        self.odd[reason] = self.odd.get(reason, 0) + n


@dataclass(frozen=True, slots=True)
class Answer:
    """What one annotation says.

    Attributes:
        further: what was said beside grade, rule, doubts and comment: control -> choices, texts, figures or marked
            spans. A span is an object with field, start, end, text and label.
    """

    grade: str | None
    rule: str | None = None
    flags: tuple[str, ...] = ()
    comment: str = ""
    further: Mapping[str, Sequence[object]] = field(default_factory=dict)


_OURS = ("grade", "rule", "doubt", "comment")  # controls that have a place of their own in a label


def read_answer(result: Sequence[Mapping[str, Any]], task: Task) -> Answer:
    """The result list of an annotation as an answer; controls that somebody added to the page are kept as `further`."""
    said = controls(result)
    choices = {name: [str(c) for c in said.get(name, [])] for name in _OURS}
    grades = {_grade(c, task) for c in choices["grade"]}
    grade = grades.pop() if len(grades) == 1 else None
    rule = next((c.split(" ")[0].rstrip(":") for c in choices["rule"]), None)
    known = {words: alias for alias, words in DOUBTS.items()}
    flags = tuple(known.get(c, c) for c in choices["doubt"] if c in DOUBTS or c in known)
    further = {name: words for name, words in said.items() if name not in _OURS}
    return Answer(grade, rule, flags, "\n".join(choices["comment"]).strip(), further)


def _grade(choice: str, task: Task) -> str | None:
    """Label Studio stores the alias, but an older page or a hand-made export may hold the caption."""
    if choice in task.symbols:
        return choice
    captioned = (s for s in task.symbols if choice.startswith((f"{s} ", f"{s}:")))
    return next(captioned, None) or grade_symbol(choice, task)


def _ungraded(result: Sequence[Mapping[str, Any]]) -> str:
    """Why an answer gives no grade, for people who count such answers."""
    said = controls(result)
    if choices := sorted({str(choice)[:20] for choice in said.get("grade", [])}):
        return f"answer with several grades or an unknown one: {', '.join(map(repr, choices[:4]))}"
    others = sorted({name[:20] for name in said} - {*_OURS})
    asked = f", but with {', '.join(map(repr, others[:4]))}: was the page changed?" if others else ""
    return f"answer without a grade{asked}"


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one person's exported tasks as labels.

    Attributes:
        owner: whose project it is; None of a file, which may be of several people.
        users: id -> e-mail of the server's users.
        assigned: keys of the samples that the project was given.
        origin: where the answers came from, kept with each label.
        given: sample -> who gave an answer here that an earlier pull has read, and when. Where it is gone, it was taken
            back, unless its task is gone: what a push has sent again since was never answered.
        called: what a file says of who answered -> annotator.
    """

    task: Task
    batch: Batch
    owner: str | None
    users: Mapping[int, str]
    assigned: set[str]
    origin: str
    given: Mapping[str, Mapping[str, datetime]] = field(default_factory=dict)
    called: Mapping[str, str] = field(default_factory=dict)
    pulled: Pulled = field(default_factory=Pulled)

    def read(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        """Take in tasks; accepts predictions written as integers and annotators as ids or objects.

        Somebody who answered a task more than once is taken at his latest word.
        """
        for item in tasks:
            data = item.get("data")
            key = str(data.get("sample_key", "")) if isinstance(data, Mapping) else ""
            if key not in self.assigned:
                self.pulled.count("task without a known sample_key")
                continue
            said = [label for a in listed(item.get("annotations")) if (label := self._label(a, key))]
            said.sort(key=lambda label: label.at or datetime.min)
            latest = {label.annotator: label for label in said}
            self.pulled.labels.extend(latest.values())
            given, sent = self.given.get(key, {}), moment(item.get("created_at")) or datetime.min
            for person in sorted(given.keys() - latest.keys()):
                if sent <= given[person]:
                    self._take_back(key, person, moment(item.get("updated_at")))
            for draft in listed(item.get("drafts")):
                if not draft.get("annotation"):
                    self.pulled.count(f"draft of {self._person(draft.get('user'))}, not submitted")

    def _take_back(self, key: str, person: str, at: datetime | None) -> None:
        """An answer that is gone from the server stays on record as one that was taken back."""
        batch, origin = self.batch, self.origin
        gone = Label(
            key, "human", person, None, flags=(UNDONE,), blind=batch.blind, batch=batch.name, origin=origin, at=at
        )
        self.pulled.labels.append(gone)
        self.pulled.count(f"answer that {person} took back")

    def _label(self, annotation: Mapping[str, Any], key: str) -> Label | None:
        answer = read_answer(listed(annotation.get("result")), self.task)
        skipped = bool(annotation.get("was_cancelled"))
        if answer.grade is None and not skipped and not answer.flags and not answer.comment:
            self.pulled.count(_ungraded(listed(annotation.get("result"))))
            return None
        person = self._person(annotation.get("completed_by"))
        flags = [flag for flag in answer.flags if not (self.batch.blind and flag in INFORMED)]
        if len(flags) < len(answer.flags):
            self.pulled.count("doubt about a label that a blind annotator cannot see")
        named = {SKIPPED: skipped, "foreign_project": self.owner not in (None, person)}
        return Label(
            sample_id=key,
            source="human",
            annotator=person,
            grade=None if skipped else answer.grade,
            comment=answer.comment,
            flags=(*flags, *(flag for flag, holds in named.items() if holds)),
            rule=answer.rule,
            seconds=seconds(annotation.get("lead_time")),
            blind=self.batch.blind,
            batch=self.batch.name,
            origin=self.origin,
            at=moment(annotation.get("updated_at") or annotation.get("created_at")) or now(),
            further=json.dumps(answer.further, ensure_ascii=False) if answer.further else NOTHING_FURTHER,
        )

    def _person(self, completed_by: object) -> str:
        """Who answered. Whoever the server knows by a new name is the owner, where it knows the owner no more."""
        said = named(completed_by)
        if self.owner is None:
            return self.called.get(said, said or "unknown")
        name = self.users.get(int(said), f"user-{said}") if said.isdecimal() else said
        renamed = self.owner not in self.users.values() and name not in self.batch.annotators
        return self.owner if not name or renamed else name[:LONGEST_NAME]


def named(completed_by: object) -> str:
    """What Label Studio says of who answered: an address where it has one, else a number; "" for nothing."""
    if isinstance(completed_by, Mapping):
        completed_by = completed_by.get("email") or completed_by.get("id")
    return str(completed_by).strip() if isinstance(completed_by, int | str) else ""


def seconds(lead: object) -> float | None:
    """How long an answer took, where that is a number that can be."""
    try:
        taken = float(lead) if isinstance(lead, int | float | str) else -1.0
    except ValueError:
        return None
    return taken if 0 <= taken < _LONGEST_SECONDS else None


def listed(value: object) -> list[Mapping[str, Any]]:
    """The objects in what should be a list of objects."""
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []


def in_words(further: str) -> list[str]:
    """What a label says beside the grade, for a reader: marked texts in quotes, other answers with their control."""
    words = []
    for name, answers in json.loads(further).items():
        marked = [f"“{answer['text']}”" for answer in answers if isinstance(answer, dict) and "text" in answer]
        plain = ", ".join(str(answer) for answer in answers if not isinstance(answer, dict))
        words += [*marked, *([f"{name}: {plain}"] if plain else [])]
    return words
