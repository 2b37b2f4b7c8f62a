"""A store with a queue to review, annotators with known error rates, and a desk that stands in for a server."""

import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from piar.review.batch import Assignment, Batch, compose
from piar.review.server import Listed
from piar.review.settings import ReviewSettings
from store.db import Store, now
from store.ids import content_id, sample_id
from store.tables import moment
from store.task import Grade, Step, Task
from store.types import Instruction, Label, Part, Rule, Trace, Verdict

PUSHED = datetime(2026, 11, 20, 9)  # when tasks came to the desk; simulated answers come an hour later
ANNOTATORS = ("ann@example.com", "bob@example.com")
HOSTILE = [
    "<script>alert(1)</script> & <b>bold</b>",
    "{{ 7 * 7 }} {% raw %} $f_query",
    "&lt;already&gt; &#x41; <!ENTITY x 'y'>",
    "مرحبا שלום \u202eright to left",
    "🎧🎧 emoji and \u200b zero width",
    "line one\nline two\ttab",
    "=1+1",
    "x" * 100_000,
]
TASK = Task(
    name="shop",
    group_by="query",
    fields=("query", "title"),
    ask="How well does this product answer the query?",
    grades=tuple(Grade(symbol=str(i), name=n, value=i, meaning=m) for i, (n, m) in enumerate(
        [("poor", "No use."), ("fair", "An <b>accessory</b>."), ("good", "$would do"), ("perfect", "Exactly it.")]
    )),
    steps=(Step(name="reason"),),
)  # fmt: skip
SETTINGS = ReviewSettings(annotators=ANNOTATORS, hours=0.5, overlap=0.25, random=0.4, checks=0.1)
INSTRUCTION = Instruction(
    "Judge.",
    (
        Rule("R01", "When $the title <names> it & more.", "3", (Part("avoid when", 'the "query" asks <b>more</b>'),)),
        Rule("R02", "Accessories.", "1"),
    ),
)


def review_store(
    folder: Path, rows: int = 200, queued: int = 60, texts: Iterable[str] = ()
) -> tuple[Store, dict[str, str]]:
    """A store with `rows` train samples and their true grades (known to the test alone), and a queue."""
    rng = random.Random(7)
    store = Store.create(folder / "piar.duckdb", TASK)
    titles = list(texts)
    titles += [f"product {i}" for i in range(rows - len(titles))]
    frame = []
    for i, title in enumerate(titles):
        query = f"query {i % 20}"
        split = "test" if i % 20 >= 18 else "train"
        frame.append((sample_id(query, (query, title)), query, split, query, title, rng.choice("0123")))
    truth = {row[0]: row[5] for row in frame}
    columns = ["key", "group", "split", "query", "title", "grade"]
    samples = pl.DataFrame(frame, orient="row", schema=dict.fromkeys(columns, pl.String))
    labels = samples.join(
        pl.DataFrame({"source": ["gold", "human", "human"], "who": ["gold", "rater_1", "rater_2"]}), how="cross"
    )
    labels = labels.with_columns(
        id=pl.Series([content_id(k, w) for k, w in labels.select("key", "who").rows()], dtype=pl.String)
    )
    queue = samples.filter(pl.col("split") == "train").head(queued).with_row_index("rank")
    at = now()
    with store.write() as con:
        for name, table in (("samples_in", samples), ("labels_in", labels), ("queue_in", queue)):
            con.register(name, table.to_arrow())
        con.execute(
            "insert into samples (sample_id, group_key, split, source, run_id, created_at, query, title) "
            "select key, \"group\", split, 'test', 'r', ?, query, title from samples_in",
            [at],
        )
        con.execute(
            "insert into labels (label_id, sample_id, source, annotator, grade, run_id, created_at) "
            "select id, key, source, who, grade, 'r', ? from labels_in",
            [at],
        )
        con.execute("insert into queue select key, 'teacher_gold', 1.0, null, rank, 'mine-1' from queue_in")
    return store, truth


def taught(store: Store) -> None:
    """A teacher's verdict on every sample: grade 2 by rule R01, with probability .7."""
    verdicts = [
        Verdict(f"k{s.id}", s.id, "teacher:m", "i", 0, "2", (0.1, 0.1, 0.7, 0.1), Trace("2", rules=("R01",)))
        for s in store.samples()
    ]
    store.record_verdicts(verdicts, "r")


def answer(truth: str, accuracy: float, rng: random.Random) -> str:
    """One simulated annotator's grade: right with this probability, else another at random."""
    return truth if rng.random() < accuracy else rng.choice([g for g in "0123" if g != truth])


def result(grade: str, **more: Any) -> list[dict[str, Any]]:
    """An annotation's result as Label Studio writes it."""
    items = [{"from_name": "grade", "to_name": "f_query", "type": "choices", "value": {"choices": [grade]}}]
    if "rule" in more:
        items.append(
            {"from_name": "rule", "to_name": "f_query", "type": "choices", "value": {"choices": [more["rule"]]}}
        )
    if "doubts" in more:
        items.append(
            {"from_name": "doubt", "to_name": "f_query", "type": "choices", "value": {"choices": more["doubts"]}}
        )
    if "comment" in more:
        items.append(
            {"from_name": "comment", "to_name": "f_query", "type": "textarea", "value": {"text": [more["comment"]]}}
        )
    return items


def _changed(task: dict[str, Any]) -> datetime:
    said = [moment(a["updated_at"]) for a in task["annotations"] if isinstance(a, dict)]
    return max([PUSHED, *(at for at in (*said, moment(task.get("updated_at"))) if at)])


class Desk:
    """The verbs of `piar.review.server.Server` over a dict.

    `fail_after` breaks the n-th chunk of a push; `read` counts the tasks whose answers were asked for.
    """

    url = "http://desk"

    def __init__(self, chunk: int = 10) -> None:
        self.chunk = chunk
        self.projects: dict[str, list[dict[str, Any]]] = {}
        self.pages: dict[int, tuple[str, str]] = {}
        self.people = dict(enumerate(ANNOTATORS, start=1))
        self.fail_after: int | None = None
        self.read = 0

    def users(self) -> dict[int, str]:
        return dict(self.people)

    def project(self, title: str, config: str, description: str, instructions: str) -> int:
        self.projects.setdefault(title, [])
        number = list(self.projects).index(title)
        self.pages.setdefault(number, (config, instructions))
        return number

    def about(self, project: int) -> tuple[str, str]:
        return list(self.projects)[project], self.pages[project][0]

    def renew(self, project: int, config: str | None, instructions: str) -> None:
        self.pages[project] = (config or self.pages[project][0], instructions)

    def _of(self, project: int) -> list[dict[str, Any]]:
        return list(self.projects.values())[project]

    def at(self, project: int) -> str:
        return f"{self.url}/projects/{project}"

    def listing(self, project: int) -> list[Listed]:
        return [
            Listed(i, t["data"]["sample_key"], len(t["annotations"]), _changed(t))
            for i, t in enumerate(self._of(project))
        ]

    def remove(self, tasks: Sequence[int]) -> None:
        assert not tasks, "this desk never has a task twice"

    def add(self, project: int, tasks: list[dict[str, Any]], progress: Any = None) -> None:
        for start in range(0, len(tasks), self.chunk):
            if self.fail_after is not None:
                self.fail_after -= 1
                if self.fail_after < 0:
                    raise ConnectionError("the network went away")
            self._of(project).extend({**t, "annotations": []} for t in tasks[start : start + self.chunk])

    def rename(self, project: int, title: str) -> None:
        names = list(self.projects)
        names[project] = title
        self.projects = dict(zip(names, self.projects.values(), strict=True))

    def tasks(self, project: int, ids: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        self.read += len(ids)
        everything = self._of(project)
        for start in range(0, len(ids), self.chunk):
            yield [everything[i] for i in ids[start : start + self.chunk]]

    def annotate(self, batch: Batch, truth: dict[str, str], accuracy: dict[str, float], seed: int = 0) -> None:
        """Everyone answers their own project."""
        ids = {name: i for i, name in self.people.items()}
        for title, tasks in self.projects.items():
            person = next(p for p in batch.annotators if p in title)
            if f" {batch.name} " not in title:
                continue
            rng = random.Random(f"{seed}{person}")
            for n, task in enumerate(tasks):
                grade = answer(truth[task["data"]["sample_key"]], accuracy[person], rng)
                task["annotations"] = [{"id": n, "completed_by": ids[person], "result": result(grade),
                                        "lead_time": 12.5,
                                        "was_cancelled": False, "updated_at": "2026-11-20T10:00:00Z"}]  # fmt: skip


def frame(assignments: Iterable[Assignment]) -> pl.DataFrame:
    """Assignments as a frame, for counting."""
    return pl.DataFrame([(a.sample_id, a.annotator, a.role) for a in assignments], orient="row",
                        schema=["sample_id", "annotator", "role"])  # fmt: skip


def everything(desk: Any, project: int) -> list[dict[str, Any]]:
    """All tasks of a project with their answers, from a desk or a server."""
    ids = [t.id for t in desk.listing(project)]
    return [task for chunk in desk.tasks(project, ids) for task in chunk]


ABLE = {"ann": 0.95, "bob": 0.9, "cy": 0.7, "di": 0.65, "eve": 0.6}  # chance of the true grade
MISLED = {"0": "1", "1": "2", "2": "3", "3": "0"}  # what the rule at fault says


def rated_store(folder: Path) -> Store:
    """A store where five people judged 300 rows; R02 decided every fourth, and there only ann and bob are right."""
    store, truth = review_store(folder, rows=300)
    with store.write() as con:
        con.execute("delete from labels")
    rng = random.Random(0)
    labels = []
    for n, (key, grade) in enumerate(sorted(truth.items())):
        rule = f"R0{n % 4}"
        for person, chance in ABLE.items():
            misled = rule == "R02" and person not in ("ann", "bob")
            said = answer(MISLED[grade], 0.95, rng) if misled else answer(grade, chance, rng)
            labels.append(Label(key, "human", person, said, rule=rule, blind=True))
    store.add_labels(labels, "r")
    return store


def batch_of(store, name="w47", settings=SETTINGS, **more):
    return compose(store, name, settings, "r", **more)
