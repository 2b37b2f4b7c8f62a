"""The file that `piar export labels` writes, read back as what it was: gold as gold, people's votes as theirs."""

import json
import re
from dataclasses import replace
from itertools import islice, product

import polars as pl

from store.ids import sample_id
from store.tables import VOTES, Table, moment
from store.types import NOTHING_FURTHER

# What is told of a label beside `VOTES`: with these it is the same label again, not one more vote.
_MORE = {
    "source": pl.String,
    "ordinal": pl.Int64,
    "rule": pl.String,
    "blind": pl.Boolean,
    "batch": pl.String,
    "further": pl.String,
}
LABELS = VOTES | _MORE
_SOURCES = ("gold", "human", "consensus", "teacher")
_ABOUT = ("sample_id", "group_key", "split", "superseded")
_LATER = {"superseded", "further"}  # older files have neither
_LABEL = (*_MORE, "annotator", "grade", "comment", "flags", "seconds", "created_at")
_RUN = r"[=+@＝＋－＠\t\r\n-]"  # how cells begin that a spreadsheet would run; `piar.query.export` guards them in CSV
_WAYS = 1_024  # of guarding the cells of a row that are tried
_GUARDED = re.compile(f"'{_RUN}")


def from_header(table: Table) -> Table | None:
    """The table with its `votes` as `LABELS`, a row for each label; None where the header is another."""
    if not {*_ABOUT, *_LABEL} - _LATER <= set(table.frame.columns):
        return None
    fields = [name for name in table.frame.columns if name not in (*_ABOUT, *_LABEL)]
    frame = _unguarded(table.frame, fields)
    told = frame["further"] if "further" in frame.columns else [""] * len(frame)
    further = pl.Series([_further(cell) for cell in told], dtype=pl.String)
    votes = frame.select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
        "annotator",
        pl.col("grade").replace("", None),
        pl.col("seconds").cast(pl.Float64, strict=False),
        "comment",
        pl.Series("flags", [_flags(cell) for cell in frame["flags"]], dtype=pl.List(pl.String)),
        pl.Series("at", [moment(cell) for cell in frame["created_at"]], dtype=pl.Datetime("us")),
        pl.when(pl.col("source").is_in(_SOURCES)).then("source").otherwise(pl.lit("human")).alias("source"),
        pl.col("ordinal").cast(pl.Int64, strict=False).fill_null(0),
        pl.col("rule").replace("", None),
        (pl.col("blind").replace("", None) == "true").alias("blind"),
        "batch",
        further=further,
    )
    same = next((name for name in fields if (frame[name] == frame["group_key"]).all()), "group_key")
    # A graded row leaves the pool with its group, whose split another project deals.
    waits = (pl.col("split") == "pool") & (pl.col("grade") != "")
    return replace(
        table,
        frame=frame.select(
            "group_key", pl.when(waits).then(pl.lit("")).otherwise("split").alias("split"), *fields, "grade"
        ),
        votes=votes,
        vote_columns=("grade",),
        notes=(*table.notes, "labels as piar exports them"),
        roles={"group": same, "split": "split", "fields": tuple(fields), "raters": ("grade",)},
    )


def _unguarded(frame: pl.DataFrame, fields: list[str]) -> pl.DataFrame:
    """The cells without the apostrophe that a CSV file has before some; of a sample's texts its id tells which."""
    texts, others = ["group_key", *fields], ["annotator", "comment", "batch"]
    named = frame["sample_id"].str.contains("^[0-9a-f-]{36}$").any()  # in Parquet it is bytes
    if not named or any(frame[name].str.contains(f"^{_RUN}").any() for name in (*texts, *others)):
        return frame  # a file that guards no cell
    rows = [_meant(name, row) for name, row in zip(frame["sample_id"], frame.select(texts).rows(), strict=True)]
    return frame.with_columns(
        *pl.DataFrame(rows, dict.fromkeys(texts, pl.String), orient="row").get_columns(),
        *(pl.Series(name, [_bare(cell) for cell in frame[name]], dtype=pl.String) for name in others),
    )


def _meant(name: str, cells: tuple[str, ...]) -> tuple[str, ...]:
    """The texts of the sample of this id; where somebody has edited them, none with an apostrophe of ours."""
    ways = islice(product(*(dict.fromkeys((cell, _bare(cell))) for cell in cells)), _WAYS)
    bare = tuple(map(_bare, cells))
    return cells if bare == cells else next((way for way in ways if sample_id(way[0], way[1:]) == name), bare)


def _bare(cell: str) -> str:
    return cell[1:] if _GUARDED.match(cell) else cell


def _flags(cell: str) -> list[str]:
    try:
        found = json.loads(cell or "[]")
    except (ValueError, RecursionError):
        return []
    return [str(flag) for flag in found] if isinstance(found, list) else []


def _further(cell: str) -> str:
    try:
        found = json.loads(cell or NOTHING_FURTHER)
    except (ValueError, RecursionError):
        return NOTHING_FURTHER
    return cell if cell and isinstance(found, dict) else NOTHING_FURTHER
