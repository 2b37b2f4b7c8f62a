"""A project whose student is sure of plain titles alone and often wrong else; its teacher follows the one rule."""

import csv
import random
import zlib
from pathlib import Path

import pytest

from piar.project.facade import Project
from store.task import Task
from trainers.checkpoint import StudentCard
from trainers.scoring import Scored

STUDENT = "student:students/a"
RULE = "Judge lamps.\n\n## Rules\n- **R01** → 1: the title contains `lamp`\n"


def titles(count: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """Groups of four rows: query, title, gold; half of the titles are plain."""
    draw = random.Random(seed)
    made = []
    for n in range(count):
        thing, kind = draw.choice(("lamp", "chair")), draw.choice(("plain", "odd"))
        made.append((f"q{n // 4}", f"{kind} {thing} {n}", str(int(thing == "lamp"))))
    return made


class FakeStudent:
    """Right on plain titles and sure of them; on odd ones it says 0, and is not sure."""

    def __init__(self, task: Task) -> None:
        self.card, self.task = StudentCard(task=task), task

    def score(self, samples, *, trace=False, on_progress=lambda n: None):
        """Grades, in the order given."""
        on_progress(len(samples))
        return [self._one(sample["title"]) for sample in samples]

    def _one(self, title):
        noise = 0.0001 * (zlib.crc32(title.encode()) % 97)
        lamp = 0.98 - noise if "lamp" in title else 0.02 + noise
        lamp = lamp if "plain" in title else 0.4 + noise
        return Scored(str(int(lamp > 0.5)), (1 - lamp, lamp), lamp, (1 - lamp, lamp))


def lamps(folder: Path, monkeypatch: pytest.MonkeyPatch, rows: int = 800) -> Project:
    """The project, its labelled rows all in dev, and the student's folder."""
    folder.mkdir()
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("query", "title", "gold", "part"), *((*r, "dev") for r in titles(rows))])
    project = Project.init(folder / "lamps", from_=path)
    (project.folder / "instruction.md").write_text(RULE)
    student = project.folder / "students" / "a"
    student.mkdir(parents=True)
    fake = FakeStudent(project.task)
    (student / "student.json").write_text(fake.card.model_dump_json())
    monkeypatch.setattr("trainers.students.load_student", lambda *path, **how: fake)
    monkeypatch.setattr("piar.measure.score.latency_of", lambda *given: {})
    return project
