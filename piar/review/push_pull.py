"""Batches to Label Studio and answers back. Joined on `data.sample_key`, so ids of the server never matter."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from piar.review.batch import Assignment, Batch
from piar.review.page import INFORMED, choice, field_key, page, read_answer
from piar.review.server import Progress, Server
from store.db import Store, now
from store.ids import short_hash
from store.tables import moment
from store.task import Task
from store.types import Instruction, Label

PAUSE, QUIET = 1.0, 3  # seconds between looks for what a dead push had under way, and looks without any
_LONGEST_NAME, _LONGEST_SECONDS = 254, 10**7  # of an annotator (an e-mail address), of an answer
OVERLAP = timedelta(minutes=5)  # answers given while a pull was reading are read again by the next
DESCRIPTION = (
    "Judge each row on your own. This project is one person's: please do not annotate in another's, and do not "
    "discuss rows before the batch is pulled."
)


@dataclass(frozen=True, slots=True)
class PushReport:
    """What a push did: tasks added now, tasks known from before, and the projects by annotator."""

    batch: str
    pushed: int
    known: int
    annotators: dict[str, int]
    projects: dict[str, int]


@dataclass(slots=True)
class Pulled:
    """Labels read from tasks, and what was odd about the rest."""

    labels: list[Label] = field(default_factory=list)
    odd: dict[str, int] = field(default_factory=dict)

    def count(self, reason: str, n: int = 1) -> None:
        """Count something that gave no label."""
        self.odd[reason] = self.odd.get(reason, 0) + n


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull brought: new label rows, answers known from before, and oddities by reason."""

    batch: str
    pulled: int
    known: int
    annotators: dict[str, int]
    odd: dict[str, int]

    def plus(self, other: "PullReport") -> "PullReport":
        """Both together."""
        return PullReport(
            self.batch,
            self.pulled + other.pulled,
            self.known + other.known,
            dict(Counter(self.annotators) + Counter(other.annotators)),
            dict(Counter(self.odd) + Counter(other.odd)),
        )


def project_title(store: Store, batch: str, annotator: str) -> str:
    """Title of one person's project, within Label Studio's 50 characters; the tag tells two stores and people apart."""
    first = store.frame("select min(run_id) from runs").item() or ""
    tag = short_hash([store.task.hash, first, batch, annotator], 4)
    return f"{store.task.name[:10]} {batch[:12]} {annotator[:20]} #{tag}"


def to_tasks(store: Store, assignments: Sequence[Assignment]) -> list[dict[str, Any]]:
    """Label Studio tasks in the order given: the sample's key and fields, and nothing that suggests an answer.

    Only rows to be adjudicated also carry `said`, what people and the latest teacher answered, and that teacher's
    verdict as a prediction, by which the data manager sorts.
    """
    samples = {s.id: s for s in store.samples(ids={a.sample_id for a in assignments})}
    informed = any(a.role == "adjudicate" for a in assignments)
    said, verdicts = (_said(store), _verdicts(store)) if informed else ({}, {})
    tasks = []
    for assignment in assignments:
        key = assignment.sample_id
        data = {"sample_key": key} | {field_key(n): v for n, v in samples[key].fields.items()}
        task: dict[str, Any] = {"data": data}
        if informed:
            data["said"] = said.get(key, "")
            task["predictions"] = [_prediction(store.task, *v) for v in verdicts.get(key, ())]
        tasks.append(task)
    return tasks


def _said(store: Store) -> dict[str, str]:
    """Sample id -> one line for each opinion: who, grade and how probable, rule, comment."""
    sql = """select sample_id, annotator as who, grade, coalesce(rule, '') as rule, comment from label
where source in ('gold', 'human') and grade is not null
order by sample_id, who"""
    lines: dict[str, list[str]] = {}
    for key, who, grade, rule, comment in store.frame(sql).rows():
        lines.setdefault(key, []).append(" · ".join(part for part in (who, grade, rule, comment) if part))
    for key, verdicts in _verdicts(store).items():
        for judge, grade, p, rules in verdicts:
            sure = "" if p is None else f"probability {p:.2f}"
            lines.setdefault(key, []).append(
                " · ".join(part for part in (judge, grade, sure, ", ".join(rules)) if part)
            )
    return {key: "\n".join(parts) for key, parts in lines.items()}


def _verdicts(store: Store) -> dict[str, list[tuple[str, str, float | None, list[str]]]]:
    """Sample id -> each teacher's latest verdict: judge, grade, its probability, rules cited."""
    sql = """select sample_id, judge, v.grade, probs[position + 1] as p, coalesce(rules, []) as rules
from verdict v join grades g on g.symbol = v.grade where vote = 0 and starts_with(judge, 'teacher:')
qualify row_number() over (partition by sample_id, judge order by created_at desc) = 1 order by sample_id, judge"""
    found: dict[str, list[tuple[str, str, float | None, list[str]]]] = {}
    for key, judge, grade, p, rules in store.frame(sql).rows():
        found.setdefault(key, []).append((judge, grade, p, rules))
    return found


def _prediction(task: Task, judge: str, grade: str, p: float | None, rules: Sequence[str]) -> dict[str, Any]:
    result = [choice(task, "grade", grade), *(choice(task, "rule", rule) for rule in rules[:1])]
    return {"model_version": judge, "result": result} | ({} if p is None else {"score": p})


def push(
    store: Store, server: Server, batch: Batch, instruction: Instruction, progress: Progress | None = None
) -> PushReport:
    """Bring every assignment of the batch to its person's project. Pushing again adds only what is missing.

    Interrupted at any point, the next push asks the server what it has and sends the rest. What a dead push had
    under way may arrive after that question; the server is then asked until nothing more comes, and the second of
    two is removed.
    """
    config = page(store.task, instruction, suggestions=not batch.blind)
    pushed = known = done = 0
    projects = {}
    for person in batch.annotators:
        project = _remembered(store, batch.name, person, server.url)
        again = project is not None
        if project is None:
            project = server.project(project_title(store, batch.name, person), config, DESCRIPTION)
            _remember(store, batch.name, person, server.url, project)
        projects[person] = project
        there, twins = _once(server, project)
        mine = batch.of(person)
        missing = [a for a in mine if a.sample_id not in there]
        start = done + len(mine) - len(missing)
        report = (lambda n, _, start=start: progress(start + n, len(batch.assignments))) if progress else None
        server.add(project, to_tasks(store, missing), report)
        if again and (missing or twins):
            _settle(server, project)
        pushed, known, done = pushed + len(missing), known + len(mine) - len(missing), done + len(mine)
    archive_finished(store, server, batch.name)
    return PushReport(batch.name, pushed, known, {p: len(batch.of(p)) for p in batch.annotators}, projects)


def _once(server: Server, project: int) -> tuple[set[str], int]:
    """Keys of the project's tasks, after removing the unanswered ones of those that are there twice; and how many."""
    kept: set[str] = set()
    twins = []
    for task in sorted(server.listing(project), key=lambda t: (-t.answers, t.id)):
        if task.key in kept and not task.answers:
            twins.append(task.id)
        kept.add(task.key)
    server.remove(twins)
    return kept, len(twins)


def _settle(server: Server, project: int) -> None:
    """Remove what a dead push still had under way, until nothing of it has come for `QUIET` looks in a row."""
    quiet = 0
    while quiet < QUIET:
        time.sleep(PAUSE)
        quiet = 0 if _once(server, project)[1] else quiet + 1


def archive_finished(store: Store, server: Server, current: str) -> list[str]:
    """Mark the projects of earlier batches whose every row was answered and pulled; nothing is deleted.

    Returns:
        the names of the batches that were marked.
    """
    sql = """select p.batch, p.annotator, p.project_id from review_projects p
where p.url = ? and p.batch <> ? and not exists (
    select 1 from review_tasks t where t.batch = p.batch and t.annotator = p.annotator and not exists (
        select 1 from label l where l.sample_id = t.sample_id and l.batch = t.batch and l.annotator = t.annotator))"""
    finished = store.frame(sql, [server.url, current]).rows()
    for batch, annotator, project in finished:
        server.rename(project, f"done: {project_title(store, batch, annotator)}"[:50])
    return sorted({batch for batch, _, _ in finished})


def _remembered(store: Store, batch: str, annotator: str, url: str) -> int | None:
    sql = "select project_id from review_projects where batch = ? and annotator = ? and url = ? limit 1"
    found = store.frame(sql, [batch, annotator, url])
    return int(found.item()) if found.height else None


def _remember(store: Store, batch: str, annotator: str, url: str, project: int) -> None:
    with store.write() as con:
        con.execute("insert into review_projects values (?, ?, ?, ?, ?)", [batch, annotator, url, project, now()])


def pull(store: Store, server: Server, batch: Batch, run_id: str, progress: Progress | None = None) -> PullReport:
    """Bring answers back as new rows of `labels`; an answer changed in Label Studio becomes a newer version.

    Only tasks that changed since the latest answer known are read again, and each project is recorded at once, so that
    an interrupted pull leaves nothing behind that the next one would pass over. Pulling again adds nothing. Deleted
    tasks are counted; answers by somebody else in a person's project are kept under their own name and flagged
    `foreign_project`.
    """
    users = server.users()
    projects = store.frame(
        "select annotator, project_id from review_projects where batch = ? and url = ? order by annotator",
        [batch.name, server.url],
    ).rows()
    whole, done = PullReport(batch.name, 0, 0, {}, {}), 0
    for person, project in projects:
        reader = Reader(store.task, batch, person, users, {a.sample_id for a in batch.of(person)}, server.at(project))
        listed = server.listing(project)
        since = _latest(store, reader.origin)
        changed = [t.id for t in listed if since is None or t.updated >= since - OVERLAP]
        done += len(listed) - len(changed)
        for tasks in server.tasks(project, changed):
            reader.read(tasks)
            done += len(tasks)
            if progress:
                progress(done, len(batch.assignments))
        if missing := len(reader.assigned - {t.key for t in listed}):
            reader.pulled.count("task deleted in Label Studio", missing)
        whole = whole.plus(keep(store, reader.pulled, batch.name, run_id))
    return whole


def _latest(store: Store, origin: str) -> datetime | None:
    """When the latest answer was given that came from a project."""
    found: datetime | None = store.frame("select max(created_at) from labels where origin = ?", [origin]).item()
    return found


def keep(store: Store, pulled: Pulled, batch: str, run_id: str) -> PullReport:
    """Record what was read."""
    added = store.add_labels(pulled.labels, run_id)
    per: dict[str, int] = {}
    for label in pulled.labels:
        per[label.annotator] = per.get(label.annotator, 0) + 1
    return PullReport(batch, added, len(pulled.labels) - added, per, pulled.odd)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one person's exported tasks as labels.

    Attributes:
        owner: whose project it is.
        users: id -> e-mail of the server's users.
        assigned: keys of the samples that the project was given.
        origin: where the answers came from, kept with each label.
    """

    task: Task
    batch: Batch
    owner: str
    users: Mapping[int, str]
    assigned: set[str]
    origin: str
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
            self.pulled.labels.extend({label.annotator: label for label in said}.values())
            for draft in listed(item.get("drafts")):
                if not draft.get("annotation"):
                    self.pulled.count("draft, not submitted")

    def _label(self, annotation: Mapping[str, Any], key: str) -> Label | None:
        answer = read_answer(listed(annotation.get("result")), self.task)
        skipped = bool(annotation.get("was_cancelled"))
        if answer.grade is None and not skipped and not answer.flags and not answer.comment:
            self.pulled.count("answer without a grade")
            return None
        person = self._person(annotation.get("completed_by"))
        flags = [flag for flag in answer.flags if not (self.batch.blind and flag in INFORMED)]
        if len(flags) < len(answer.flags):
            self.pulled.count("doubt about a label that a blind annotator cannot see")
        named = {"skipped": skipped, "foreign_project": person != self.owner}
        lead = annotation.get("lead_time")
        return Label(
            sample_id=key,
            source="human",
            annotator=person,
            grade=None if skipped else answer.grade,
            comment=answer.comment,
            flags=(*flags, *(flag for flag, holds in named.items() if holds)),
            rule=answer.rule,
            seconds=float(lead) if isinstance(lead, int | float) and 0 <= lead < _LONGEST_SECONDS else None,
            blind=self.batch.blind,
            batch=self.batch.name,
            origin=self.origin,
            at=moment(annotation.get("updated_at") or annotation.get("created_at")) or now(),
        )

    def _person(self, completed_by: object) -> str:
        """Who answered. Whoever the server knows by a new name is the owner, where it knows the owner no more."""
        if isinstance(completed_by, Mapping):
            number = completed_by.get("id")
            name = completed_by.get("email") or (self.users.get(number) if isinstance(number, int) else None)
        elif isinstance(completed_by, int):
            name = self.users.get(completed_by, f"user-{completed_by}")
        else:
            name = None
        renamed = self.owner not in self.users.values() and name not in self.batch.annotators
        return self.owner if name is None or renamed else str(name)[:_LONGEST_NAME]


def listed(value: object) -> list[Mapping[str, Any]]:
    """The objects in what should be a list of objects."""
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []
