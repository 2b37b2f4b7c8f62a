"""A small project made by hand, for tests that need a store with something in it."""

import shutil
from pathlib import Path

from piar.project.facade import Project
from store.db import Store, now
from store.ids import content_id, sample_id
from store.task import Grade, Task, dump_task

TASK = Task(
    name="toys",
    group_by="query",
    fields=("query", "title"),
    grades=(Grade(symbol="0", name="poor", value=0), Grade(symbol="1", name="good", value=1, meaning="It fits.")),
)
ROWS = [
    # group, title, split, gold, raters
    ("ball", "red ball", "train", "1", ("1", "1", "0")),
    ("ball", '=HYPERLINK("http://x","y")', "train", "0", ("0", "0", "0")),
    ("doll", "[red]doll[/red] <b>\x1b[31m", "test", "1", ("1", "0", "1")),
    ("doll", "-5 degrees", "test", "0", ("0", "1", "1")),
    ("kite", "unseen kite", "pool", None, ()),
]


def copy_of(project: Project, folder: Path) -> Project:
    """The same project in a folder inside this one, free to be changed."""
    return Project.open(shutil.copytree(project.folder, folder / project.folder.name))


def small_project(folder: Path) -> Project:
    """Make the project; its instruction has one rule."""
    project = Project.init(folder)
    (folder / "task.toml").write_text(dump_task(TASK))
    (folder / "instruction.md").write_text("Judge toys.\n\n## Rules\n- **R01** → 1: the title names the toy\n")
    store = Store.create(folder / "piar.duckdb", TASK)
    with store.write() as con:
        for group, title, split, gold, raters in ROWS:
            key = sample_id(group, (group, title))
            con.execute(
                "insert into samples (sample_id, group_key, split, source, run_id, created_at, query, title) "
                "values (?, ?, ?, 'by hand', 'r', ?, ?, ?)",
                [key, group, split, now(), group, title],
            )
            votes = [("human", f"rater_{i}", grade) for i, grade in enumerate(raters)]
            for source, annotator, grade in [*votes, *([("gold", "owner", gold)] if gold else [])]:
                con.execute(
                    "insert into labels (label_id, sample_id, source, annotator, grade, run_id, created_at) "
                    "values (?, ?, ?, ?, ?, 'r', ?)",
                    [content_id(key, source, annotator), key, source, annotator, grade, now()],
                )
    return project
