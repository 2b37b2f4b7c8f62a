"""The round trip by files: Label Studio JSON for people without server access, CSV for people without Label Studio."""

import csv
import io
import json
import re
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from piar.review.answers import Pulled, Reader, listed
from piar.review.batch import Batch
from piar.review.guide import sheet_guide
from piar.review.page import DOUBTS, INFORMED, field_key, page
from piar.review.push_pull import PullReport, keep, to_tasks
from store.cells import grade_symbol
from store.db import Store, now
from store.errors import PiarError, UsageError
from store.files import cell, read_text
from store.readers import Reading, read
from store.task import Task
from store.types import Instruction, Label

ANSWER_COLUMNS = ("grade", "rule", "doubts", "comment")
_MOST_BYTES = 2**30
_SHEETS = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".xls", ".ods", ".zip", ".gz")
_WORD_GAP = re.compile(r"[\s_-]+")


def export_batch(store: Store, batch: Batch, instruction: Instruction, out: Path) -> list[Path]:
    """Write one file per annotator beside each other, named after `out`.

    `out` ending in `.json` gives Label Studio task files and the page's configuration as `.xml`;
    ending in `.csv` gives sheets with empty answer columns, and a guide in Markdown to what may stand there.

    A person's file that is there and holds anything else is left alone: it may have been filled in.

    Raises:
        UsageError: another ending.
        PiarError: such a file is in the way; nothing is written.
    """
    writers = {".json": _json_text, ".csv": _csv_text}
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


def _csv_text(tasks: list[dict[str, Any]], task: Task, batch: Batch, person: str) -> bytes:
    file = io.StringIO(newline="")
    sheet = csv.writer(file)
    keys = [field_key(name) for name in task.fields]
    shown = [*task.fields, *(["said"] if tasks and "said" in tasks[0]["data"] else [])]
    asked = [*ANSWER_COLUMNS, *(question.name for question in batch.questions)]
    sheet.writerow(["sample_key", "annotator", *shown, *asked])
    for item in tasks:
        data = item["data"]
        texts = [cell(data[key]) for key in (*keys, *shown[len(keys) :])]
        sheet.writerow([data["sample_key"], cell(person), *texts, *[""] * len(asked)])
    return file.getvalue().encode("utf-8-sig")


def import_batch(
    store: Store, batch: Batch, path: Path, annotator: str, run_id: str, sheet: str | None = None
) -> PullReport:
    """Read a filled-in file: a Label Studio JSON export, or a sheet that `export_batch` wrote, as any program saved it.

    Args:
        annotator: who answered, where the file does not say it.
        sheet: of a workbook with several.

    Raises:
        PiarError: the file cannot be read as either.
    """
    pulled = Pulled()
    assigned = {a.sample_id for a in batch.assignments if not annotator or a.annotator == annotator}
    try:
        if path.suffix.lower() in _SHEETS:
            _read_sheet(path, sheet, store.task, batch, annotator, pulled)
        else:
            tasks = json.loads(read_text(path, _MOST_BYTES))
            if not isinstance(tasks, list):
                raise ValueError("it is not a list of tasks")
            tasks = [t for t in tasks if isinstance(t, dict)]
            reader = Reader(store.task, batch, annotator or "unknown", _users(tasks), assigned, path.name)
            reader.read(tasks)
            pulled = reader.pulled
    except FileNotFoundError:
        raise PiarError(f"{path} does not exist.", "Name the file that the annotator sent back.") from None
    except (ValueError, RecursionError) as error:
        raise PiarError(
            f"{path.name} cannot be read: {error}",
            "Export it from Label Studio as JSON, or send the sheet as CSV or as a workbook, with its first columns.",
        ) from None
    return keep(store, pulled, batch.name, run_id)


def _users(tasks: list[dict[str, Any]]) -> dict[int, str]:
    """E-mails that the export itself knows; ids without one stay `user-N`."""
    people = (a.get("completed_by") for t in tasks for a in listed(t.get("annotations")))
    return {
        p["id"]: str(p["email"])
        for p in people
        if isinstance(p, dict) and isinstance(p.get("id"), int) and "email" in p
    }


def _read_sheet(path: Path, sheet: str | None, task: Task, batch: Batch, annotator: str, into: Pulled) -> None:
    """Take in a sheet as spreadsheets save it: any delimiter and encoding, a workbook, titles above the header, columns
    in another order or case. A row that is there twice with different answers counts as none."""
    table = read(path, Reading(plain=True, sheet=sheet))
    for rejected in table.rejected:
        into.count(rejected.reason)
    named = {_WORD_GAP.sub("_", name.strip().casefold()): name for name in reversed(table.frame.columns)}
    if lacking := [name for name in ("sample_key", "grade") if name not in named]:
        found = ", ".join(table.frame.columns[:12])
        raise ValueError(f"it has no column {' and no column '.join(lacking)} (it has {found})")
    assigned, answers = {a.sample_id for a in batch.assignments}, dict[tuple[str, str], Label]()
    contradicted = set[tuple[str, str]]()
    for cells in table.frame.rows(named=True):
        row = {name: cells[column].strip() for name, column in named.items()}
        label = _row_label(row, task, batch, annotator, assigned, path.name, into)
        if label is None:
            continue
        first = answers.setdefault((label.annotator, label.sample_id), label)
        if replace(first, at=label.at) != label:
            contradicted.add((label.annotator, label.sample_id))
    if contradicted:
        into.count("row that is there twice with different answers", len(contradicted))
    into.labels += [label for key, label in answers.items() if key not in contradicted]


def _row_label(
    row: dict[str, str], task: Task, batch: Batch, annotator: str, assigned: Set[str], origin: str, into: Pulled
) -> Label | None:
    """What a row says; None where that is nothing, or odd."""
    people = {cell(person): person for person in batch.annotators}
    known = DOUBTS.keys() - INFORMED if batch.blind else DOUBTS.keys()
    said, doubts, comment = row["grade"], row.get("doubts", "").replace(",", " ").split(), row.get("comment", "")
    who, key = row.get("annotator") or annotator or "unknown", row["sample_key"].lower()
    grade = grade_symbol(said, task)
    if key not in assigned:
        if any(row.values()):
            into.count("row without a known sample_key")
        return None
    if said and grade is None:
        into.count(f"unknown grade {said[:20]!r}")
        return None
    if not (grade or doubts or comment):
        return None
    return Label(
        sample_id=key,
        source="human",
        annotator=people.get(who, who),
        grade=grade,
        comment=comment,
        rule=row.get("rule") or None,
        flags=tuple(d for d in doubts if d in known),
        blind=batch.blind,
        batch=batch.name,
        origin=origin,
        at=now(),
        further=_further(row, batch),
    )


def _further(row: dict[str, str], batch: Batch) -> str:
    """What a row of a sheet says to the batch's questions; several choices are parted by semicolons."""
    said = {q.name: row.get(_WORD_GAP.sub("_", q.name.casefold()), "") for q in batch.questions}
    parted = {q.name: said[q.name].split(";") if q.many and q.choices else [said[q.name]] for q in batch.questions}
    return json.dumps({name: [w.strip() for w in words] for name, words in parted.items() if said[name]},
                      ensure_ascii=False)  # fmt: skip
