import csv
import json
import random
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from piar.project.facade import Project
from store.errors import UsageError
from store.ids import sample_id
from tests.small_project import ROWS, small_project


@pytest.mark.parametrize(("what", "rows"), [("samples", 5), ("labels", 16), ("verdicts", 0), ("instructions", 0)])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_kind_leaves_in_every_format(toys, tmp_path, what, rows, suffix) -> None:
    file = tmp_path / f"out{suffix}"
    assert toys.export(what, file) == rows
    read = {".csv": pl.read_csv, ".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet}[suffix]
    if rows:
        frame = read(file)
        assert frame.height == rows
        assert {"sample_id", "query", "title", "split"} <= set(frame.columns)


def test_parquet_and_jsonl_hold_text_exactly_and_csv_holds_no_formula(toys, tmp_path) -> None:
    titles = {row[1] for row in ROWS}
    for suffix in (".parquet", ".jsonl", ".csv"):
        toys.export("samples", tmp_path / f"s{suffix}")
    assert set(pl.read_parquet(tmp_path / "s.parquet")["title"]) == titles
    lines = (tmp_path / "s.jsonl").read_text().splitlines()
    assert {json.loads(line)["title"] for line in lines} == titles
    with (tmp_path / "s.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert {"'-5 degrees", '\'=HYPERLINK("http://x","y")'} <= set(cells)


def test_ids_are_the_same_text_in_every_format(toys, tmp_path) -> None:
    ids = {str(key) for (key,) in toys.sql("select sample_id from samples").rows()}
    for suffix, read in ((".parquet", pl.read_parquet), (".jsonl", pl.read_ndjson), (".csv", pl.read_csv)):
        toys.export("samples", tmp_path / f"s{suffix}")
        assert set(read(tmp_path / f"s{suffix}")["sample_id"].to_list()) == ids


def test_an_existing_file_is_kept_unless_forced(toys, tmp_path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        toys.export("labels", file)
    assert file.read_text() == "mine"
    toys.export("labels", file, force=True)
    assert file.read_text().startswith("sample_id,")


def test_a_failed_export_leaves_nothing(toys, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        toys.export("samples", tmp_path / "s.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("what", "name"), [("labels", "out.xlsx"), ("labels", "out"), ("rules", "out.csv")])
def test_unknown_kinds_and_formats_are_refused(toys, tmp_path, what, name) -> None:
    with pytest.raises(UsageError):
        toys.export(what, tmp_path / name)


def test_a_quote_in_the_path_is_only_a_quote(toys, tmp_path) -> None:
    file = tmp_path / "it's; drop table samples; --.csv"
    assert toys.export("samples", file) == 5
    assert file.exists()


LABELS = (
    "select group_key, title, l.source, annotator, grade, ordinal, comment, flags, rule, seconds, blind, batch, "
    "l.created_at from label l join samples using (sample_id) order by all"
)
TITLES = ("red ball", "=1+1", "'=1+1", "-5 degrees", '@home, "quoted"', "two words")


def labelled(folder, seed) -> Project:
    """A project with random labels of all kinds: gold, votes, answers of a review, skipped, settled."""
    rng = random.Random(seed)
    project = small_project(folder)
    with project.store.write() as con:
        con.execute("delete from labels")
        con.execute("delete from samples")
        con.execute("insert into review_batches values ('w1', '{}', 'r', now()::timestamp)")
        for group in ("ball", "=doll", "kite"):
            for title in TITLES:
                key = sample_id(group, (group, title))
                con.execute(
                    "insert into samples (sample_id, group_key, split, source, run_id, created_at, query, title) "
                    "values (?, ?, 'train', 'file', 'r', now()::timestamp, ?, ?)", [key, group, group, title],
                )  # fmt: skip
                for nth in range(rng.randrange(1, 6)):
                    source, batch = rng.choice([("gold", "file"), ("human", "file"), ("human", "w1"), ("human", "")])
                    who = "gold" if source == "gold" else rng.choice(["ann", "+ben"])
                    grade = rng.choice(["0", "1"] if source == "gold" else ["0", "1", None])
                    flags = [] if grade else ["skipped", "ambiguous"]
                    about = [rng.choice(["", "=sum(A1)", "why?"]), flags, rng.choice([None, "R01"])]
                    con.execute(
                        "insert into labels values (uuid(), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'x', 'r', ?, ?)",
                        [key, source, who, grade, rng.randrange(2), *about, rng.choice([None, 2.5]),
                         rng.choice([None, True, False]), batch, datetime(2026, 1, 1 + nth),
                         rng.choice(["{}", '{"intent": ["buy"]}'])],
                    )  # fmt: skip
    return project


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_labels_that_come_back_are_what_they_were(tmp_path, suffix, seed) -> None:
    project, file = labelled(tmp_path / "p", seed), tmp_path / f"labels{suffix}"
    held, truth = (
        project.sql(LABELS),
        "select title, grade, basis from truth join samples using (sample_id) order by all",
    )
    rows = project.export("labels", file)
    assert project.import_([file]).report.labels == 0
    assert project.sql(LABELS).equals(held)
    other = Project.init(tmp_path / "other")
    for added in (rows, 0):
        assert other.import_([file]).report.labels == added
        assert other.sql(LABELS).equals(held)
        assert other.sql(truth).equals(project.sql(truth))
    ids = "select sample_id from samples order by all"
    assert other.sql(ids).equals(project.sql(ids))


def test_a_grade_that_was_edited_in_an_exported_file_corrects_that_label_alone(tmp_path) -> None:
    project, file = labelled(tmp_path / "p", 0), tmp_path / "labels.csv"
    before = project.sql(LABELS)
    project.export("labels", file)
    sheet = pl.read_csv(file, infer_schema=False)
    at = sheet["batch"].to_list().index("w1")
    new = "0" if sheet["grade"][at] == "1" else "1"
    grades = [new if i == at else grade for i, grade in enumerate(sheet["grade"])]
    sheet.with_columns(grade=pl.Series(grades)).write_csv(file)
    report = project.import_([file]).report
    assert (report.labels, report.changed) == (1, 1)
    columns = [name for name in before.columns if name != "created_at"]
    gone = before.select(columns).join(project.sql(LABELS).select(columns), on=columns, how="anti", nulls_equal=True)
    assert (len(gone), gone["batch"].item(), len(project.sql(LABELS))) == (1, "w1", len(before))
