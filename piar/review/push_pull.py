"""Batches to Label Studio and answers back. Joined on `data.sample_key`, so ids of the server never matter."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from piar.review.batch import Assignment, Batch
from piar.review.page import field_key, page, read_answer
from piar.review.server import Progress, Server
from store.db import Store, now
from store.ids import short_hash
from store.task import Task
from store.types import Instruction, Label

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


@dataclass(frozen=True, slots=True)
class Pulled:
    """Labels read from tasks, and what was odd about the rest."""

    labels: list[Label] = field(default_factory=list)
    odd: dict[str, int] = field(default_factory=dict)

    def count(self, reason: str) -> None:
        """Count something that gave no label."""
        self.odd[reason] = self.odd.get(reason, 0) + 1


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull brought: new label rows, answers known from before, and oddities by reason."""

    batch: str
    pulled: int
    known: int
    annotators: dict[str, int]
    odd: dict[str, int]


def project_title(store: Store, batch: str, annotator: str) -> str:
    """Title of one person's project, within Label Studio's 50 characters; the tag tells two stores and people apart."""
    first = store.frame("select min(run_id) from runs").item() or ""
    tag = short_hash([store.task.hash, first, batch, annotator], 4)
    return f"{store.task.name[:10]} {batch[:12]} {annotator[:20]} #{tag}"


def to_tasks(store: Store, assignments: Sequence[Assignment]) -> list[dict[str, Any]]:
    """Label Studio tasks in the order given: the sample's key and fields, and nothing that suggests an answer.

    Only rows to be adjudicated also carry `said`: what people and the latest teacher answered.
    """
    wanted = {a.sample_id for a in assignments}
    samples = {s.id: s for s in store.samples() if s.id in wanted}
    said = _said(store) if any(a.role == "adjudicate" for a in assignments) else None
    tasks = []
    for assignment in assignments:
        data = {"sample_key": assignment.sample_id}
        data |= {field_key(n): v for n, v in samples[assignment.sample_id].fields.items()}
        if said is not None:
            data["said"] = said.get(assignment.sample_id, "")
        tasks.append({"data": data})
    return tasks


def _said(store: Store) -> dict[str, str]:
    """Sample id -> one line for each opinion: who, grade, rule, comment."""
    sql = """select sample_id, annotator as who, grade, coalesce(rule, '') as rule, comment from label
where source in ('gold', 'human') and grade is not null
union all
select sample_id, judge, grade, array_to_string(coalesce(rules, []), ', '), '' from verdict
where vote = 0 and grade is not null and starts_with(judge, 'teacher:')
qualify row_number() over (partition by sample_id, judge order by created_at desc) = 1
order by sample_id, who"""
    lines: dict[str, list[str]] = {}
    for key, who, grade, rule, comment in store.frame(sql).rows():
        lines.setdefault(key, []).append(" · ".join(part for part in (who, grade, rule, comment) if part))
    return {key: "\n".join(parts) for key, parts in lines.items()}


def push(
    store: Store, server: Server, batch: Batch, instruction: Instruction, progress: Progress | None = None
) -> PushReport:
    """Bring every assignment of the batch to its person's project. Pushing again adds only what is missing.

    Interrupted at any point, the next push asks the server what it has and sends the rest.
    """
    config = page(store.task, instruction, suggestions=not batch.blind)
    pushed = known = done = 0
    projects = {}
    for person in batch.annotators:
        project = _remembered(store, batch.name, person, server.url)
        if project is None:
            project = server.project(project_title(store, batch.name, person), config, DESCRIPTION)
            _remember(store, batch.name, person, server.url, project)
        projects[person] = project
        there = server.keys(project)
        mine = batch.of(person)
        missing = [a for a in mine if a.sample_id not in there]
        start = done + len(mine) - len(missing)
        report = (lambda n, _, start=start: progress(start + n, len(batch.assignments))) if progress else None
        server.add(project, to_tasks(store, missing), report)
        pushed, known, done = pushed + len(missing), known + len(mine) - len(missing), done + len(mine)
    archive_finished(store, server, batch.name)
    return PushReport(batch.name, pushed, known, {p: len(batch.of(p)) for p in batch.annotators}, projects)


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

    Pulling again adds nothing. Deleted tasks are counted; answers by somebody else in a person's
    project are kept under their own name and flagged `foreign_project`.
    """
    users = server.users()
    projects = store.frame(
        "select annotator, project_id from review_projects where batch = ? and url = ? order by annotator",
        [batch.name, server.url],
    ).rows()
    total = Pulled()
    for n, (person, project) in enumerate(projects):
        assigned = {a.sample_id for a in batch.of(person)}
        read_tasks(server.tasks(project), store.task, total, owner=person, users=users, assigned=assigned, batch=batch)
        if progress:
            progress(n + 1, len(projects))
    return keep(store, total, batch.name, run_id)


def keep(store: Store, pulled: Pulled, batch: str, run_id: str) -> PullReport:
    """Record what was read."""
    added = store.add_labels(pulled.labels, run_id)
    per: dict[str, int] = {}
    for label in pulled.labels:
        per[label.annotator] = per.get(label.annotator, 0) + 1
    return PullReport(batch, added, len(pulled.labels) - added, per, pulled.odd)


def read_tasks(
    tasks: Iterable[Mapping[str, Any]],
    task: Task,
    into: Pulled,
    *,
    owner: str,
    users: Mapping[int, str],
    assigned: set[str],
    batch: Batch,
) -> None:
    """Labels of one exported project. Accepts predictions written as integers and annotators as ids or objects."""
    seen = set()
    for item in tasks:
        data = item.get("data")
        key = str(data.get("sample_key", "")) if isinstance(data, Mapping) else ""
        if key not in assigned:
            into.count("task without a known sample_key")
            continue
        seen.add(key)
        for annotation in _listed(item.get("annotations")):
            _read_annotation(annotation, key, task, into, owner=owner, users=users, batch=batch)
        for draft in _listed(item.get("drafts")):
            if not draft.get("annotation"):
                into.count("draft, not submitted")
    if missing := len(assigned - seen):
        into.odd["task deleted in Label Studio"] = into.odd.get("task deleted in Label Studio", 0) + missing


def _listed(value: object) -> list[Mapping[str, Any]]:
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []


def _read_annotation(
    annotation: Mapping[str, Any],
    key: str,
    task: Task,
    into: Pulled,
    *,
    owner: str,
    users: Mapping[int, str],
    batch: Batch,
) -> None:
    answer = read_answer(_listed(annotation.get("result")), task)
    skipped = bool(annotation.get("was_cancelled"))
    if answer.grade is None and not skipped and not answer.flags and not answer.comment:
        into.count("answer without a grade")
        return
    person = _person(annotation.get("completed_by"), users, owner)
    flags = (*answer.flags, *(["skipped"] if skipped else []), *(["foreign_project"] if person != owner else []))
    lead = annotation.get("lead_time")
    label = Label(
        sample_id=key,
        source="human",
        annotator=person,
        grade=None if skipped else answer.grade,
        comment=answer.comment,
        flags=flags,
        rule=answer.rule,
        seconds=float(lead) if isinstance(lead, int | float) else None,
        blind=batch.blind,
        batch=batch.name,
        origin="label-studio",
        at=_when(annotation.get("updated_at") or annotation.get("created_at")),
    )
    into.labels.append(label)


def _person(completed_by: object, users: Mapping[int, str], owner: str) -> str:
    if isinstance(completed_by, Mapping):
        return str(completed_by.get("email") or users.get(int(completed_by.get("id", -1)), owner))
    return users.get(completed_by, f"user-{completed_by}") if isinstance(completed_by, int) else owner


def _when(text: object) -> datetime:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).replace(tzinfo=None)
    except ValueError:
        return now()
