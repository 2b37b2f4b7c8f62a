"""The whole round trip with people on Chorus: three raters, evolve, 200 disagreements out, labels back, evolve again.

`python -m benchmarks review`. Through a real Label Studio server where `PIAR_LABEL_STUDIO` names the program, else
through the in-memory desk of the tests. The teacher is the offline one and the annotators are simulated: they know
the final grade of the file, which piar is not shown, and err at the rates below. The second champion is measured
beside the first on test, on one version of the truth, and against the final grades that were kept back.
"""

import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import requests

from piar.project.facade import Project
from piar.review.batch import Batch, compose
from piar.review.push_pull import pull, push
from piar.review.server import Server
from piar.review.settings import ReviewSettings
from piar.review.status import status
from store.prepare import ImportMapping
from store.readers import read_table
from store.stats import paired_gain

ROOT = Path(__file__).resolve().parents[1]
CHORUS = ROOT.parent / "shared" / "data" / "chorus" / "chorus.csv"
RATERS = ("rater_1", "rater_2", "rater_3")
ANNOTATORS = {"ann@example.com": 0.95, "bob@example.com": 0.85}  # chance of the final grade
ROWS = 200
SETTINGS = ReviewSettings(
    annotators=tuple(ANNOTATORS), hours=2 * ROWS * 20 / 3600, overlap=1.0, random=0.1, checks=0.0
)  # everybody judges all rows, at 20 seconds each


# A project without rules answers 2 to most rows, so that grade's recall is .62 by chance and its guard refuses whatever
# else is gained. The guards are off here: the question is what people's labels change.
PROMOTION = {"margin": 1.0}


class Office(Protocol):
    """A place where the annotators work."""

    desk: Any

    def annotate(
        self, batch: Batch, projects: Mapping[str, int], truth: Mapping[str, str], accuracy: Mapping[str, float]
    ) -> None:
        """Everybody answers their own project."""


class Served:
    """A real server: answers go through its HTTP interface, each with its author's own token."""

    def __init__(self, desk: Server, tokens: Mapping[str, str]) -> None:
        self.desk, self.tokens = desk, tokens

    def annotate(
        self, batch: Batch, projects: Mapping[str, int], truth: Mapping[str, str], accuracy: Mapping[str, float]
    ) -> None:
        """One request for each answer."""
        from tests.review_world import answer, everything, result

        for person in batch.annotators:
            rng = random.Random(f"{batch.name}{person}")
            head = {"Authorization": f"Token {self.tokens[person]}"}
            for task in everything(self.desk, projects[person]):
                body = {
                    "result": result(answer(truth[task["data"]["sample_key"]], accuracy[person], rng)),
                    "lead_time": rng.uniform(8, 20),
                }
                place = f"{self.desk.url}/api/tasks/{task['id']}/annotations/"
                requests.post(place, json=body, headers=head, timeout=60).raise_for_status()


class Simulated:
    """The tests' desk: a dict that speaks as a server does."""

    def __init__(self) -> None:
        from tests.review_world import Desk

        self.desk = Desk(chunk=500)

    def annotate(
        self, batch: Batch, projects: Mapping[str, int], truth: Mapping[str, str], accuracy: Mapping[str, float]
    ) -> None:
        """All answers at once."""
        self.desk.annotate(batch, dict(truth), dict(accuracy))


@contextmanager
def office(folder: Path) -> Iterator[Office]:
    """A real server where there is one, else the simulated desk."""
    if not os.environ.get("PIAR_LABEL_STUDIO"):
        print("Label Studio: simulated in memory (PIAR_LABEL_STUDIO names no program)")
        yield Simulated()
        return
    from tests.label_studio import ADMIN, label_studio, second_user

    with label_studio(folder) as running, Server(running.url, running.token) as desk:
        print("Label Studio: a real server")
        tokens = {ADMIN: running.token} | {p: second_user(running, p) for p in ANNOTATORS if p != ADMIN}
        yield Served(desk, tokens)


def run() -> None:
    """Print the figures."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        frame = read_table(CHORUS)
        raters_only = Path(folder) / "raters.csv"
        frame.select("item_id", "query", "name", *RATERS).write_csv(raters_only)
        project = Project.init(
            Path(folder) / "chorus",
            from_=raters_only,
            mapping=ImportMapping(raters=RATERS, group="query", id="item_id"),
        )
        final = _final_grades(project, frame)
        first = _evolve(project, "first", final)
        project.label()
        print("queue:", dict(project.mine(top=2 * ROWS).queue))
        with office(Path(folder) / "label-studio") as place:
            _review(project, place, final)
        second = _evolve(project, "second", final)
        _beside(project, first, second, final)
    print(f"{time.perf_counter() - started:.0f} s in all")


def _final_grades(project: Project, frame: pl.DataFrame) -> dict[str, str]:
    """Sample id -> the file's final grade, which piar is not shown."""
    ids = project.store.frame("select sample_id, query, name from samples")
    known = frame.select("query", "name", "grade").unique(["query", "name"], keep="first")
    return dict(ids.join(known, on=["query", "name"]).select("sample_id", "grade").rows())


def _evolve(project: Project, name: str, final: Mapping[str, str]) -> str:
    report = project.evolve(accept="auto", promotion=PROMOTION)
    tested = report.promotions[0]["reason"] if report.promotions else "nothing better was found"
    print(f"{name} evolve: {report.rounds} rounds, {report.calls:,} calls, {len(project.instruction().rules)} rules")
    print(f"  people: {report.people}")
    print(f"  promotion: {tested}")
    for against, found in report.test.items():
        gain = found["gain"]
        print(
            f"  test against {against}: {found['seed']['accuracy']:.3f} -> {found['champion']['accuracy']:.3f}, "
            f"gain {gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}), {found['n']} rows"
        )
    return report.champion


def _review(project: Project, place: Office, final: Mapping[str, str]) -> None:
    """200 rows to two people, blind; then what they dispute to one of each, with all opinions in sight."""
    store = project.store
    before = _truth(project)
    batch = compose(store, "w47", SETTINGS, "review")
    reported = push(store, place.desk, batch, project.instruction())
    place.annotate(batch, reported.projects, final, ANNOTATORS)
    pulled = pull(store, place.desk, batch, "review")
    found = status(store, batch)
    rows = {a.sample_id for a in batch.assignments}
    print(f"review: {len(rows)} rows, {reported.pushed} tasks pushed, {pulled.pulled} labels pulled")
    for person in found.annotators:
        told = "unknown" if person.reliability is None else f"{person.reliability:.2f}"
        print(f"  {person.annotator}: reliability {told}, planted {ANNOTATORS[person.annotator]}")
    settle = compose(store, "w48", SETTINGS, "settle", adjudicate="w47")
    projects = push(store, place.desk, settle, project.instruction()).projects
    place.annotate(settle, projects, final, dict.fromkeys(ANNOTATORS, 0.98))  # with all opinions in sight
    settled = pull(store, place.desk, settle, "settle")
    after = _truth(project)
    changed = [k for k in after if before.get(k) != after[k]]
    for told, truth in (("before", before), ("after", after)):
        right = np.mean([truth[k] == final[k] for k in rows])
        print(f"  truth {told} equals the final grade on {right:.3f} of the rows reviewed")
    print(f"  {settled.pulled} rows settled, truth changed on {len(changed)} rows")


def _truth(project: Project) -> dict[str, str]:
    return dict(project.store.frame("select sample_id, grade from truth").rows())


def _beside(project: Project, first: str, second: str, final: Mapping[str, str]) -> None:
    """Both champions on test, row by row."""
    project.label("split = 'test'", instruction=first)
    project.label("split = 'test'", instruction=second)
    sql = """select s.sample_id, s.group_key, a.grade as first, b.grade as second, t.grade as truth from samples s
             join verdict a on a.sample_id = s.sample_id and a.instruction = $1 and a.vote = 0
             join verdict b on b.sample_id = s.sample_id and b.instruction = $2 and b.vote = 0
             join truth t on t.sample_id = s.sample_id where s.split = 'test' order by s.sample_id"""
    rows = project.store.frame(sql, [first, second])
    rows = rows.with_columns(final=rows["sample_id"].replace_strict(final))
    for name in ("truth", "final"):
        right = [(rows[column] == rows[name]).to_numpy().astype(float) for column in ("first", "second")]
        gain = paired_gain(right[0], right[1], rows["group_key"].to_list())
        print(
            f"second beside first on test against {'the truth' if name == 'truth' else 'the final grades'}: "
            f"{right[0].mean():.3f} -> {right[1].mean():.3f}, "
            + (
                "the same instruction"
                if first == second
                else f"gain {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
            )
            + f", {rows.height} rows"
        )


if __name__ == "__main__":
    if not CHORUS.exists():
        sys.exit(f"{CHORUS} is not there: the benchmark needs the shared data folder.")
    run()
