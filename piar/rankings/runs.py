"""Rankings read from files: TREC runs, MS MARCO's, and tables with a query, a document and a score or a rank.

Order within a query: by score, highest first, or by rank, lowest first; equal ones stay in the file's order. (trec_eval
puts documents of one score in the reverse order of their names, whatever the file says.) Chosen by us: a table with a
score and a rank goes by its score, as a TREC run does.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from store.encodings import decode
from store.errors import PiarError, UsageError
from store.figures import many
from store.readers import Reading, read, source_name
from store.sources import open_source

# How the columns are called, the likeliest first; compared in small letters, with `_` for blanks, `-` and `.`.
_DOCUMENT = ("document", "doc", "doc_id", "docid", "document_id", "docno", "corpus_id", "product_id", "item_id", "item")
_NAMES = {
    "query": ("query", "query_id", "qid", "query_text", "topic", "topic_id", "q", "search_term", "keyword"),
    "document": (*_DOCUMENT, "asin", "id", "url", "title"),
    "score": ("score", "similarity", "sim", "relevance_score", "probability"),
    "rank": ("rank", "position", "place", "pos"),
}
_TREC = re.compile(r"\S+[ \t]+\S+[ \t]+\S+[ \t]+\d+[ \t]+[-+]?(?:\d|\.|inf|nan)\S*[ \t]+\S+$", re.IGNORECASE)
_MARCO = re.compile(r"\S+\t\S+\t\d+\s*$")  # query, document, rank, as MS MARCO's runs have them
_TOP = 10  # places in which ties are told


@dataclass(frozen=True, slots=True)
class Ranking:
    """One system's answer to some queries.

    Attributes:
        name: of the file, for people.
        rows: `query`, `document`, `place` (1 is the first of its query).
        notes: how it was read, and what of it was left out.
    """

    name: str
    rows: pl.DataFrame
    notes: tuple[str, ...] = ()


def read_ranking(path: Path, columns: Mapping[str, str] | None = None) -> Ranking:
    """A ranking from a file.

    Args:
        columns: role (`query`, `document`, `score`, `rank`) -> column of a table; the rest goes by its name.

    Raises:
        UsageError: no such file, or a column that cannot be told.
        PiarError: no row can be placed.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; a ranking is one file.", "Name the file.")
    first = open_source(path).head(1 << 16).decode("utf-8", "replace").splitlines()[:20]
    lines = [line.strip("\ufeff \t\r") for line in first if line.strip()]
    if lines and not columns and 2 * sum(bool(_TREC.match(line)) for line in lines) > len(lines):
        rows, order = _parted(path, r"[ \t]+", ("query", "q0", "document", "rank", "score", "tag")), "score"
    elif lines and not columns and all(_MARCO.match(line) for line in lines[: max(1, len(lines) - 1)]):
        rows, order = _parted(path, r"\t", ("query", "document", "rank")), "rank"
    else:
        rows, order = _table(path, columns or {})
    return _placed(source_name(path), rows, order)


def _parted(path: Path, between: str, names: Sequence[str]) -> pl.DataFrame:
    """The lines of a file without a header in their parts; those of a line with more or fewer are null.

    A query with a blank would shift its line by a part.
    """
    source = open_source(path)
    text = decode(source.bytes(), source.name, None).text
    lines = pl.Series("line", text.splitlines()).str.strip_chars().str.replace_all(between, "\t")
    parts = lines.filter(lines != "").str.split("\t")
    whole = parts.list.len() == len(names)
    return pl.DataFrame(
        {name: parts.list.get(i, null_on_oob=True).set(~whole, None) for i, name in enumerate(names)}
    ).drop("q0", "tag", strict=False)


def _table(path: Path, said: Mapping[str, str]) -> tuple[pl.DataFrame, str]:
    """The rows with what orders them: `score` or `rank`."""
    frame = read(path, Reading(plain=True)).frame
    wrong = [f"{role}={column}" for role, column in said.items() if role not in _NAMES or column not in frame.columns]
    if wrong:
        raise UsageError(
            f"{path.name}: --map {wrong[0]} names nothing; the columns are {', '.join(map(repr, frame.columns))}.",
            f"Write --map ROLE=COLUMN with a role of {', '.join(_NAMES)}.",
        )
    found = {role: said.get(role) or _called(names, frame.columns) for role, names in _NAMES.items()}
    order = "score" if found["score"] else "rank"
    for role in ("query", "document", order):
        if not found[role]:
            missing = "score and no column of a rank" if role == "rank" else role
            raise UsageError(
                f"{path.name} has no column of a {missing} among {', '.join(map(repr, frame.columns))}.",
                f"Name it: --map {role}=COLUMN. A TREC run has six parts a line: query Q0 document rank score name.",
            )
    return frame.select(pl.col(str(column)).alias(role) for role, column in found.items() if column), order


def _called(names: Sequence[str], columns: Sequence[str]) -> str | None:
    plain = {re.sub(r"[\s.\-]+", "_", column.strip().lower()): column for column in columns}
    return next((plain[name] for name in names if name in plain), None)


def _placed(name: str, rows: pl.DataFrame, order: str) -> Ranking:
    """Rows in their places; what cannot be placed is counted."""
    notes = list[str]()
    rows = rows.with_columns(
        pl.col("query", "document").str.strip_chars().fill_null(""),
        pl.col(order).str.strip_chars().cast(pl.Float64, strict=False).fill_nan(None).alias("key"),
    ).with_row_index("line")
    good = rows.filter((pl.col("query") != "") & (pl.col("document") != "") & pl.col("key").is_not_null())
    if good.is_empty():
        raise PiarError(
            f"{name} has no row with a query, a document and a {order} that is a number.",
            f"Look at its first lines; --map {order}=COLUMN names another column.",
        )
    if lost := len(rows) - len(good):
        notes.append(
            f"{name}: {many(lost, 'row')} left out: too many or too few parts, no query, no document, or no {order} "
            "that is a number"
        )
    ordered = good.sort("key", descending=order == "score", maintain_order=True)
    kept = ordered.unique(["query", "document"], keep="first", maintain_order=True)
    if twice := len(ordered) - len(kept):
        notes.append(
            f"{name}: {many(twice, 'row repeats', 'rows repeat')} a document of their query: its best place counts"
        )
    first = pl.col("line").min().over("query")
    kept = kept.sort(first, pl.col("key") if order == "rank" else -pl.col("key"), "line", maintain_order=True)
    placed = kept.with_columns(place=pl.int_range(1, pl.len() + 1).over("query"))
    if tied := _ties(placed):
        notes.append(
            f"{name}: {many(tied, 'query has', 'queries have')} documents of one {order} among their first {_TOP}; "
            "they stand in the file's order"
        )
    if order == "score" and "rank" in placed.columns and (turned := _against_rank(placed)):
        notes.append(f"{name}: in {turned:,} queries the ranks contradict the scores: the scores count")
    return Ranking(name, placed.select("query", "document", "place"), tuple(notes))


def _ties(placed: pl.DataFrame) -> int:
    top = placed.filter(pl.col("place") <= _TOP)
    return int(top.filter(pl.struct("query", "key").is_duplicated())["query"].n_unique())


def _against_rank(placed: pl.DataFrame) -> int:
    ranks = placed.with_columns(pl.col("rank").str.strip_chars().cast(pl.Float64, strict=False))
    step = pl.col("rank").diff().over("query") < 0
    return int(ranks.filter(step & (pl.col("key").diff().over("query") != 0))["query"].n_unique())
