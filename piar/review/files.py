"""The round trip by files: Label Studio JSON for people without server access, CSV for people without Label Studio."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from piar.review.answers import Pulled, Reader, listed, named
from piar.review.batch import Batch
from piar.review.guide import sheet_guide
from piar.review.page import page
from piar.review.push_pull import PullReport, keep, to_tasks
from piar.review.sheets import read_sheet, require_rows, sheet_text
from piar.review.who import who_answered
from store.db import Store
from store.errors import PiarError, UsageError
from store.files import read_text
from store.task import Task
from store.types import Instruction

_MOST_BYTES = 2**30
_SHEETS = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".xls", ".ods", ".zip", ".gz")


def export_batch(store: Store, batch: Batch, instruction: Instruction, out: Path) -> list[Path]:
    """Write one file per annotator beside each other, named after `out`.

    `out` ending in `.json` gives Label Studio task files and the page's configuration as `.xml`;
    ending in `.csv` gives sheets with empty answer columns, and a guide in Markdown to what may stand there.

    A person's file that is there and holds anything else is left alone: it may have been filled in.

    Raises:
        UsageError: another ending.
        PiarError: such a file is in the way; nothing is written.
    """
    writers = {".json": _json_text, ".csv": sheet_text}
    if out.suffix not in writers:
        raise UsageError(
            f"{out.name} is neither .json nor .csv", "Name a .json file (Label Studio) or a .csv file (a sheet)."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    texts: dict[Path, bytes] = {}
    for person in batch.annotators:
        path = out.with_name(f"{out.stem}-{_plain(person, taken)}{out.suffix}")
        texts[path] = writers[out.suffix](to_tasks(store, batch.of(person)), store.task, batch, person)
        if path.exists() and path.read_bytes() != texts[path]:
            raise PiarError(
                f"{path} is there already and holds something else, perhaps answers.",
                f"Name another file, or move it away; answers come in by `piar review import {quote(str(path))}`.",
            )
    for path, data in texts.items():
        path.write_bytes(data)
    paths = list(texts)
    if out.suffix == ".json":
        config = out.with_suffix(".xml")
        config.write_text(
            page(store.task, instruction, suggestions=not batch.blind, questions=batch.questions), encoding="utf-8"
        )
        paths.append(config)
    else:
        guide = out.with_suffix(".md")
        guide.write_text(sheet_guide(store.task, instruction, batch), encoding="utf-8")
        paths.append(guide)
    return paths


def _plain(person: str, taken: set[str]) -> str:
    """An annotator's name as part of a file name: two people of one name have two files, whatever the disk's case."""
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in person.split("@")[0])[:40] or "annotator"
    plain = next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(taken) + 3))) if n.lower() not in taken)
    taken.add(plain.lower())
    return plain


def _json_text(tasks: list[dict[str, Any]], task: Task, batch: Batch, person: str) -> bytes:
    return json.dumps(tasks, ensure_ascii=False, indent=1).encode()


def import_batch(
    store: Store, batch: Batch, path: Path, annotator: str, run_id: str, sheet: str | None = None
) -> PullReport:
    """Read a filled-in file: a Label Studio JSON export, or a sheet that `export_batch` wrote, as any program saved it.

    Args:
        annotator: who answered, where the file does not say it; or whom its numbers mean: `1=ann,2=bob`.
        sheet: of a workbook with several.

    Raises:
        PiarError: the file cannot be read as either.
    """
    pulled = Pulled()
    try:
        tasks = None if path.suffix.lower() in _SHEETS else _tasks(path)
        if tasks is None or _flat(tasks):
            read_sheet(store, path, sheet, batch, annotator, pulled)
        else:
            _read_tasks(store, tasks, batch, annotator, path.name, pulled)
    except FileNotFoundError:
        raise PiarError(f"{path} does not exist.", "Name the file that the annotator sent back.") from None
    except (ValueError, RecursionError) as error:
        raise PiarError(
            f"{path.name} cannot be read: {error}",
            "Export it from Label Studio as JSON, or send the sheet as CSV or as a workbook, with its first columns.",
        ) from None
    return keep(store, pulled, batch.name, run_id)


def _tasks(path: Path) -> list[Mapping[str, Any]]:
    tasks = json.loads(read_text(path, _MOST_BYTES))
    if not isinstance(tasks, list):
        raise ValueError("it is not a list of tasks")
    return listed(tasks)


def _flat(tasks: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it is a table as JSON, Label Studio's JSON_MIN: a row for each annotation."""
    return bool(tasks) and all("sample_key" in task and "data" not in task for task in tasks)


def _read_tasks(
    store: Store, tasks: Sequence[Mapping[str, Any]], batch: Batch, annotator: str, name: str, into: Pulled
) -> None:
    """Take in Label Studio's tasks. Everybody who answered is told apart: a file is not always one person's project."""
    said = [a for task in tasks for a in listed(task.get("annotations")) if a.get("result") or a.get("was_cancelled")]
    people = who_answered({named(a.get("completed_by")) for a in said}, batch.annotators, annotator, name)
    keys = {str(data.get("sample_key")) for task in tasks if isinstance(data := task.get("data"), Mapping)}
    require_rows(store, batch, keys, name)
    dealt = {a.sample_id for a in batch.assignments}
    reader = Reader(store.task, batch, None, {}, dealt, name, called=people, pulled=into)
    reader.read(tasks)
    for person in sorted({label.annotator for label in into.labels} - {*batch.annotators}):
        n = sum(label.annotator == person for label in into.labels)
        into.count(f"answer of {person}, to whom batch {batch.name} was not given", n)
