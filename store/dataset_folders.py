"""A folder as one table: a Hugging Face dataset, BEIR's layout, or files that are called after their splits."""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import polars as pl

from store.arrow_files import arrow_frame, classes_of, parquet_frame, with_classes
from store.cells import missing
from store.columns import gold_named
from store.errors import PiarError
from store.figures import many
from store.prepare import SPLIT_NAMES
from store.sources import Source
from store.tables import Rejection, Table, numbered

_SHARD = re.compile(r"(?P<split>[A-Za-z_]+)[-_.]\d+(?:-of-\d+)?.*")
# Pieces of one table, as Spark and others cut it.
_PART = re.compile(r"part[-_.]?\d+\b.*|.*[-_.](?:\d{5,}|\d+-of-\d+)\..*")
_NAMED = 3  # files of a folder that a note names
_LISTED = 12  # folders that a message names
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xlsx", ".gz", ".zip")
_CLASS_LABELS = re.compile(
    r"- name: *(\S+)\s+dtype:\s+class_label:\s+names:\s*\n((?:\s*'?\d+'?: *.+\n)+)"  # as the Hub writes YAML
)
_HEADER_BYTES = 4096
_KEPT_BACK = "-1"  # a label of a split whose labels are not public

ReadFile = Callable[[Path], Table]


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a folder.

    Attributes:
        split: what it or its folder is called.
    """

    split: str
    file: Path
    table: Table


def read_folder(path: Path, read_file: ReadFile) -> tuple[Table, dict[str, Path]]:
    """A folder as one table; where it has several splits, their names become a column `split`.

    A part without any grade, as test splits of competitions are, is the pool.

    Args:
        read_file: reads one file as a plain table.

    Returns:
        the table, and the files with the texts of its ids: `documents`, `queries`.

    Raises:
        PiarError: no dataset, or parts that do not fit together.
    """
    texts = {"documents": path / "corpus.jsonl", "queries": path / "queries.jsonl"}
    is_beir = all(file.is_file() for file in texts.values())
    parts = list(_shards(path)) or _split_files(path / "qrels" if is_beir else path, read_file)
    if not parts:
        raise _no_dataset(path)
    _require_one_set(path, parts)
    _require_one_shape(path, parts)
    table = _joined([replace(part, table=_named(part.table, path, part.file)) for part in parts])
    names = [part.file.relative_to(path).as_posix() for part in parts]
    held = ", ".join(names[:_NAMED]) + (f" and {many(len(names) - _NAMED, 'file')} more" if len(names) > _NAMED else "")
    return replace(table, notes=(f"{held} of {path.name}", *table.notes)), texts if is_beir else {}


def _shards(path: Path) -> Iterator[Part]:
    """Arrow and Parquet files of a folder and of those in it."""
    for folder in [path, *sorted(child for child in path.iterdir() if child.is_dir())]:
        for file in sorted(folder.glob("*.arrow")):
            if not file.name.startswith("cache-"):  # left there by `Dataset.map`
                yield Part(folder.name, file, numbered(arrow_frame(Source(file.name, file))))
        for file in sorted(folder.glob("*.parquet")):
            match = _SHARD.fullmatch(file.name)
            split = match["split"] if match else _split_named(file) or folder.name
            yield Part(split, file, numbered(parquet_frame(Source(file.name, file))))


def _split_files(path: Path, read_file: ReadFile) -> list[Part]:
    """Files of one ending that are called after different splits (`train.csv`, `snli_1.0_dev.jsonl`), else numbered."""
    parts = []
    for folder in [path, *sorted(child for child in path.iterdir() if child.is_dir())] if path.is_dir() else ():
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _TABLES)
        named = [(split, file) for file in files if (split := _split_named(file))]
        for suffix in dict.fromkeys(file.suffix for _, file in named):
            found = [(split, file) for split, file in named if file.suffix == suffix]
            if len({split for split, _ in found}) > 1 or path.name == "qrels":
                parts += [Part(split, file, read_file(file)) for split, file in found]
                break
    return parts or [Part(path.name, file, read_file(file)) for file in _pieces(path)]


def _pieces(path: Path) -> list[Path]:
    """The files of one ending that are numbered as pieces of one table (`part-00000.csv`), where all are."""
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _TABLES) if path.is_dir() else []
    alike = len({file.suffix for file in files}) == 1 and all(_PART.fullmatch(file.name) for file in files)
    return files if alike else []


def splits_beside(file: Path) -> list[str]:
    """The files that belong with one which is called after a split, itself among them; none where it stands alone."""
    if not file.is_file() or not _split_named(file):
        return []
    beside = (other for other in file.parent.iterdir() if other.suffix == file.suffix and _split_named(other))
    names = sorted(other.name for other in beside)
    return names if len(names) > 1 else []


def _split_named(file: Path) -> str | None:
    """The split that a file's name ends or begins with."""
    words = re.split(r"[^a-z]+", Path(file.stem).stem.lower() if file.suffix == ".gz" else file.stem.lower())
    return next((word for word in (words[-1], words[0]) if word in SPLIT_NAMES), None)


def _require_one_set(path: Path, parts: Sequence[Part]) -> None:
    """Raise `PiarError` where two folders have a part of one split each: they are configurations of a dataset."""
    folders = [sorted({p.file.parent for p in parts if p.split == part.split}) for part in parts]
    several = max(folders, key=len)
    if len(several) > 1:
        names = ", ".join(folder.relative_to(path).as_posix() for folder in several[:_LISTED])
        raise PiarError(
            f"{path.name} holds {len(several):,} datasets: {names}.",
            f"Give one of its folders: {shlex.quote(str(several[0]))}",
        )


def _require_one_shape(path: Path, parts: Sequence[Part]) -> None:
    """Raise `PiarError` where two parts share less than half of the columns that the narrower one has."""
    kinds = {tuple(part.table.frame.columns): part.file for part in parts}
    for ours, theirs in combinations(kinds, 2):
        if 2 * len({*ours} & {*theirs}) < min(len(ours), len(theirs)):
            graded, other = (ours, theirs) if gold_named(ours) else (theirs, ours)
            raise PiarError(
                f"{path.name} holds tables of different things: {kinds[ours].name} ({', '.join(ours)}) and "
                f"{kinds[theirs].name} ({', '.join(theirs)}).",
                f"Give the one with the grades; texts that it names by ids are joined: "
                f"{shlex.quote(str(kinds[graded]))} --documents {shlex.quote(str(kinds[other]))}",
            )


def _joined(parts: Sequence[Part]) -> Table:
    """The parts below one another; lines count from 1 through all of them."""
    several = len({part.split for part in parts}) > 1
    gold = gold_named(name for part in parts for name in part.table.frame.columns)
    frames, rejected, notes = list[pl.DataFrame](), list[Rejection](), list[str]()
    for part in parts:
        frame, split = part.table.frame, part.split
        if several and gold and _without_grades(frame, gold):
            frame, split = frame.drop(gold, strict=False), "pool"
            notes.append(f"{part.file.name} has no grades: its rows are the pool")
        frames.append(frame.with_columns(split=pl.lit(split)) if several and "split" not in frame.columns else frame)
        rejected += [Rejection(r.line, f"{part.file.name}: {r.reason}") for r in part.table.rejected]
        notes += [f"{part.file.name}: {note}" for note in part.table.notes]
    frame = pl.concat(frames, how="diagonal").fill_null("")
    return Table(frame, pl.Series(range(1, len(frame) + 1), dtype=pl.Int64), tuple(rejected), notes=tuple(notes))


def _without_grades(frame: pl.DataFrame, gold: str) -> bool:
    return gold not in frame.columns or all(
        missing(value) or value == _KEPT_BACK for value in frame[gold].unique().to_list()
    )


def _named(table: Table, path: Path, file: Path) -> Table:
    """Class numbers as the names that `dataset_info.json` or the dataset's card gives them."""
    try:
        features = json.loads((file.parent / "dataset_info.json").read_bytes())["features"]
        return replace(table, frame=with_classes(table.frame, classes_of(features)))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return replace(table, frame=with_classes(table.frame, _of_card(path / "README.md")))


def _of_card(card: Path) -> Mapping[str, list[str]]:
    if not card.is_file():
        return {}
    found = _CLASS_LABELS.findall(card.read_text(encoding="utf-8", errors="replace"))
    return {
        column: [line.partition(":")[2].strip().strip("'\"") for line in names.strip().splitlines()]
        for column, names in found
    }


def _no_dataset(path: Path) -> PiarError:
    tables = sorted(child for child in path.iterdir() if child.suffix.lower() in _TABLES)
    graded = [table for table in tables if gold_named(_header(table))]
    return PiarError(
        f"{path} is a folder without a dataset.",
        f"Give one of its files: {shlex.quote(str([*graded, *tables][0]))}."
        if tables
        else "Give a folder with dataset_info.json or Parquet files.",
    )


def _header(file: Path) -> list[str]:
    """The cells of a text file's first line, roughly."""
    with file.open("rb") as opened:
        line = opened.read(_HEADER_BYTES).decode("utf-8", "replace").partition("\n")[0]
    return [cell.strip().strip('"') for cell in re.split(r"[,;\t|]", line)]
