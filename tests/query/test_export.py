import csv
import json
from pathlib import Path

import polars as pl
import pytest

from store.errors import UsageError
from tests.small_project import ROWS


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
