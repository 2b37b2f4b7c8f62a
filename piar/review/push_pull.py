"""Batches to Label Studio and answers back. Joined on `data.sample_key`, so ids of the server never matter."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from piar.review.answers import Pulled, Reader, in_words
from piar.review.batch import OPEN, Assignment, Batch
from piar.review.guide import as_html
from piar.review.page import choice, field_key, page
from piar.review.server import Progress, Server
from store.db import Store, now
from store.ids import short_hash
from store.task import Task
from store.types import Instruction

PAUSE, QUIET = 1.0, 3  # seconds between looks for what a dead push had under way, and looks without any
OVERLAP = timedelta(minutes=5)  # answers given while a pull was reading are read again by the next
DESCRIPTION = (
    "Judge each row on your own. This project is one person's: please do not annotate in another's, and do not "
    "discuss rows before the batch is pulled."
)


@dataclass(frozen=True, slots=True)
class PushReport:
    """What a push did: tasks added now, tasks known from before, and the projects by annotator.

    Attributes:
        announced: whose project now shows another version of the instruction -> how many of their answers in it rest on
            words that have changed.
        by_hand: whose page is not as piar made it (somebody edited it), so that its grades and rules stay as they are.
    """

    batch: str
    pushed: int
    known: int
    annotators: dict[str, int]
    projects: dict[str, int]
    announced: dict[str, int]
    by_hand: tuple[str, ...]


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
    sql = """select sample_id, annotator as who, grade, coalesce(rule, '') as rule, comment, further from label
where source in ('gold', 'human') and grade is not null
order by sample_id, who"""
    lines: dict[str, list[str]] = {}
    for key, who, grade, rule, comment, further in store.frame(sql).rows():
        parts = (who, grade, rule, comment, *in_words(further))
        lines.setdefault(key, []).append(" · ".join(part for part in parts if part))
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
    store: Store,
    server: Server,
    batch: Batch,
    instruction: Instruction,
    progress: Progress | None = None,
    *,
    stale: Mapping[str, Sequence[str]] | None = None,
) -> PushReport:
    """Bring every assignment of the batch to its person's project. Pushing again adds only what is missing.

    Where the instruction is another than at the last push, the page and the project's instructions are renewed, and
    say what has changed.

    Interrupted at any point, the next push asks the server what it has and sends the rest. What a dead push had
    under way may arrive after that question; the server is then asked until nothing more comes, and the second of
    two is removed.

    Args:
        stale: sample -> grades and rules whose change has overtaken labels of it, as `grade 1` or `rule R07`.
    """
    pages = Pages(store, server, batch, instruction, stale or {})
    pushed = known = done = 0
    projects = {}
    for person in batch.annotators:
        project, again = pages.of(person)
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
    dealt = {p: len(batch.of(p)) for p in batch.annotators}
    return PushReport(batch.name, pushed, known, dealt, projects, pages.announced, tuple(pages.by_hand))


class Pages:
    """The projects of a batch, one for each person: made, or renewed where the instruction has changed since.

    Args:
        stale: as `push`.
    """

    def __init__(
        self, store: Store, server: Server, batch: Batch, instruction: Instruction, stale: Mapping[str, Sequence[str]]
    ) -> None:
        self.store, self.server, self.batch, self.instruction, self.stale = store, server, batch, instruction, stale
        self.announced: dict[str, int] = {}
        self.by_hand: list[str] = []

    def of(self, person: str) -> tuple[int, bool]:
        """The number of one person's project, and whether it was there before."""
        known = self.store.frame(_PROJECTS, [self.batch.name, self.server.url, person]).rows(named=True)
        if not known:
            title, told = project_title(self.store, self.batch.name, person), as_html(self.store, self.instruction)
            project = self.server.project(title, self._page(self.instruction), DESCRIPTION, told)
            self._remember(person, project)
            return project, False
        project, shown = int(known[0]["project_id"]), str(known[0]["instruction"])
        if shown != self.instruction.id:
            self._renew(person, project, self.store.instruction(shown) if self.store.knows(shown) else None)
        return project, True

    def _renew(self, person: str, project: int, before: Instruction | None) -> None:
        """Show the instruction in force now; where the page was edited on the server, beside it and not on it."""
        ours = before is not None and self.server.about(project)[1].strip() == self._page(before).strip()
        overtaken = self._overtaken(person)
        told = as_html(self.store, self.instruction, before, overtaken)
        self.server.renew(project, self._page(self.instruction) if ours else None, told)
        self._remember(person, project)
        self.announced[person] = len(overtaken)
        if not ours:
            self.by_hand.append(person)

    def _overtaken(self, person: str) -> list[str]:
        """What has changed of each answer of that person in this batch that rests on older words."""
        sql = "select sample_id, grade, rule from label where batch = ? and annotator = ? and grade is not null"
        rows = self.store.frame(sql, [self.batch.name, person]).rows()
        changed = [
            [what for what in self.stale.get(key, ()) if what in (f"grade {grade}", f"rule {rule}")]
            for key, grade, rule in rows
        ]
        return [", ".join(words) for words in changed if words]

    def _page(self, instruction: Instruction) -> str:
        batch = self.batch
        return page(self.store.task, instruction, suggestions=not batch.blind, questions=batch.questions)

    def _remember(self, person: str, project: int) -> None:
        row = [self.batch.name, person, self.server.url, project, now(), self.instruction.id]
        with self.store.write() as con:
            con.execute("insert into review_projects values (?, ?, ?, ?, ?, ?)", row)


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
    sql = f"""select distinct p.batch, p.annotator, p.project_id from review_projects p
where p.url = ? and p.batch <> ? and not exists (
    select 1 from review_tasks t where t.batch = p.batch and t.annotator = p.annotator and {OPEN})"""
    finished = store.frame(sql, [server.url, current]).rows()
    for batch, annotator, project in finished:
        server.rename(project, f"done: {project_title(store, batch, annotator)}"[:50])
    return sorted({batch for batch, _, _ in finished})


# Each person's project of a batch, and the instruction that its page shows.
_PROJECTS = """select annotator, project_id, instruction from review_projects
where batch = $1 and url = $2 and annotator = coalesce($3, annotator)
qualify row_number() over (partition by annotator order by created_at desc) = 1 order by annotator"""


def pull(store: Store, server: Server, batch: Batch, run_id: str, progress: Progress | None = None) -> PullReport:
    """Bring answers back as new rows of `labels`; an answer changed in Label Studio becomes a newer version.

    Only tasks that changed since the latest answer known are read again, and each project is recorded at once, so that
    an interrupted pull leaves nothing behind that the next one would pass over. Pulling again adds nothing. Deleted
    tasks are counted, and their answers kept; an answer that was deleted is taken back. Answers by somebody else in a
    person's project are kept under their own name and flagged `foreign_project`.
    """
    users = server.users()
    projects = store.frame(_PROJECTS, [batch.name, server.url, None]).rows()
    whole, done = PullReport(batch.name, 0, 0, {}, {}), 0
    for person, project, _ in projects:
        assigned, origin = {a.sample_id for a in batch.of(person)}, server.at(project)
        reader = Reader(store.task, batch, person, users, assigned, origin, _given(store, batch.name, origin))
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


def _given(store: Store, batch: str, origin: str) -> dict[str, dict[str, datetime]]:
    """Sample -> who gave an answer that came from a project and stands, and when."""
    sql = """select sample_id, annotator, created_at from label
where batch = ? and origin = ? and source = 'human' and not list_contains(flags, 'undone')"""
    found: dict[str, dict[str, datetime]] = {}
    for key, person, at in store.frame(sql, [batch, origin]).rows():
        found.setdefault(key, {})[person] = at
    return found


def keep(store: Store, pulled: Pulled, batch: str, run_id: str) -> PullReport:
    """Record what was read."""
    added = store.add_labels(pulled.labels, run_id)
    per: dict[str, int] = {}
    for label in pulled.labels:
        per[label.annotator] = per.get(label.annotator, 0) + 1
    return PullReport(batch, added, len(pulled.labels) - added, per, pulled.odd)
