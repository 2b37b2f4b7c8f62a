"""What is held true of queries and documents, written as the judgement lists of search tools.

The inverse of `store.judgement_lists`. Documents go by the owner's own ids; a sample without one is left out and
counted, since no search engine would know it. Chosen by us: gold, else the people's majority, is the rating; a book of
Quepid has every person's opinion instead, and gold as one more judge, `gold`.
"""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import polars as pl

from piar.query.export import ListFormat
from piar.rankings.measures import gains
from store.db import Store, quote
from store.errors import PiarError, UsageError
from store.files import write_text
from store.judgement_lists import DOUBT, LATER
from store.scales import known_order

_ESCI = ("I", "C", "S", "E")
_RUNS = re.compile(r"^[-=+@]")  # what a spreadsheet would run; Quepid writes a blank before it


@dataclass(frozen=True, slots=True)
class Written:
    """What an export wrote.

    Attributes:
        rows: ratings, or pairs of a book.
        nameless: samples without an id of their owner, which are not in it.
        queries: a file that says the texts of the queries' numbers, where the format cannot hold them.
    """

    rows: int
    nameless: int
    queries: Path | None = None


@dataclass(frozen=True, slots=True)
class _List:
    """The rated pairs of a store.

    Attributes:
        rows: `sample_id`, `query` (its text), `query_id` (without blanks), `docid`, `grade`, and the other fields.
        others: those fields.
        numbered: the ids are numbers of ours.
    """

    store: Store
    rows: pl.DataFrame
    others: tuple[str, ...]
    numbered: bool

    @property
    def ratings(self) -> dict[str, str]:
        """Grade symbol -> its value as it is written."""
        return {symbol: f"{value:g}" for symbol, value in self.store.task.values.items()}


def export_list(store: Store, form: ListFormat, path: Path, *, force: bool = False) -> Written:
    """Write a judgement list.

    Raises:
        UsageError: no such format, the file exists, or grades that the format cannot hold.
        PiarError: no labelled sample has an id.
    """
    if form not in _WRITERS:
        raise UsageError(f"There is no format {form!r}.", f"Choose one of {', '.join(get_args(ListFormat))}.")
    if path.exists() and not force:
        raise UsageError(f"{path} exists.", "Choose another name, or add --force to replace it.")
    found, nameless = _rated(store, every=form in ("quepid", "quepid-csv"))
    text, rows = _WRITERS[form](found)
    write_text(path, text)
    beside = None
    if form == "qrels" and found.numbered:
        beside = path.with_name(f"{path.stem}.queries.tsv")
        asked = found.rows.select("query_id", "query").unique(maintain_order=True)
        write_text(beside, _table(["query_id", "query"], asked.rows(), delimiter="\t"))
    return Written(rows, nameless, beside)


def _rated(store: Store, *, every: bool) -> tuple[_List, int]:
    """The labelled pairs with an id, and how many have none; `every`: also those that have opinions without a grade."""
    task = store.task
    words = task.group_by if task.group_by in task.fields else "query" if "query" in task.fields else None
    others = tuple(name for name in task.fields if name != words)
    text = quote(words) if words else "group_key"
    named = "".join(f", {quote(name)}" for name in others)
    labelled = "sample_id in (select sample_id from label)" if every else "grade is not null"
    frame = store.frame(
        f"select sample_id, {text} as query, group_key as query_id, external_id as docid, grade{named} "
        f"from samples left join truth using (sample_id) where {labelled} order by group_key, external_id, sample_id"
    )
    rows = frame.filter(pl.col("docid").is_not_null())
    if rows.is_empty():
        raise PiarError(
            "No labelled sample has an id of a document.",
            "Import the rows again with the column of your ids: `piar import FILE --id COLUMN`.",
        )
    numbered = bool(rows["query_id"].str.contains(r"\s").any())
    if numbered:
        numbers = {query: str(i) for i, query in enumerate(rows["query_id"].unique(maintain_order=True), 1)}
        rows = rows.with_columns(pl.col("query_id").replace_strict(numbers, return_dtype=pl.String))
    return _List(store, rows, others, numbered), len(frame) - len(rows)


def _table(header: list[str], rows: Any, delimiter: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def _guarded(query: str) -> str:
    return f" {query}" if _RUNS.match(query) else query


def _qrels(found: _List) -> tuple[str, int]:
    whole = gains(found.store.task)
    blank = found.rows.filter(pl.col("docid").str.contains(r"\s"))
    if len(blank):
        raise UsageError(
            f"The id {blank['docid'][0][:40]!r} has a blank, which qrels cannot hold.",
            "Write another format: --format quepid-case or opensearch.",
        )
    lines = [f"{q} 0 {d} {whole[g]}\n" for q, d, g in found.rows.select("query_id", "docid", "grade").iter_rows()]
    return "".join(lines), len(lines)


def _ltr(found: _List) -> tuple[str, int]:
    numbers = {query: i for i, query in enumerate(found.rows["query_id"].unique(maintain_order=True), 1)}
    rows = found.rows.select("query_id", "docid", "grade", "query").iter_rows()
    ratings = found.ratings
    lines = [f"{ratings[g]} qid:{numbers[q]} # {d} {' '.join(text.split())}\n" for q, d, g, text in rows]
    return "".join(lines), len(lines)


def _case(found: _List) -> tuple[str, int]:
    ratings = found.ratings
    rows = [(_guarded(q), d, ratings[g]) for q, d, g in found.rows.select("query", "docid", "grade").iter_rows()]
    return _table(["query", "docid", "rating"], rows), len(rows)


def _opensearch(found: _List) -> tuple[str, int]:
    values = found.store.task.values
    queries: dict[str, list[dict[str, str]]] = {}
    for query, document, grade in found.rows.select("query", "docid", "grade").iter_rows():
        queries.setdefault(query, []).append({"docId": document, "rating": str(float(values[grade]))})
    body = {
        "name": found.store.task.name,
        "description": "exported by piar",
        "type": "IMPORT_JUDGMENT",
        "judgmentRatings": [{"query": query, "ratings": ratings} for query, ratings in queries.items()],
    }
    return json.dumps(body, ensure_ascii=False, indent=2) + "\n", len(found.rows)


def _umbrela(found: _List) -> tuple[str, int]:
    whole = gains(found.store.task)
    lines = []
    for (query_id, query), part in found.rows.group_by("query_id", "query", maintain_order=True):
        candidates = [
            {
                "doc": {"segment": "\n".join(row[name] for name in found.others if row[name])},
                "docid": row["docid"],
                "judgment": whole[row["grade"]],
            }
            for row in part.iter_rows(named=True)
        ]
        asked = {"text": query, "qid": query_id}
        lines.append(json.dumps({"query": asked, "candidates": candidates}, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines), len(found.rows)


def _esci(found: _List) -> tuple[str, int]:
    symbols = found.store.task.symbols
    letters = known_order(symbols) if set(symbols) <= set(_ESCI) else None
    if letters is None and len(symbols) != len(_ESCI):
        raise UsageError(
            f"The letters E, S, C, I stand for four grades; there are {len(symbols)}.", "Write another format."
        )
    named = dict(zip(symbols, symbols if letters else _ESCI, strict=True))
    rows = [(q, d, named[g]) for q, d, g in found.rows.select("query", "docid", "grade").iter_rows()]
    return _table(["query", "product_id", "esci_label"], rows), len(rows)


# -- every judge ----------------------------------------------------------------------------


def _opinions(found: _List) -> pl.DataFrame:
    """`sample_id`, `judge`, `grade`, `comment`, `flags` of each person's latest opinion, and of gold."""
    said = found.store.frame(
        "select sample_id, if(source = 'gold', 'gold', annotator) as judge, grade, comment, flags from label "
        "anti join superseded using (label_id) where source in ('human', 'gold') "
        "and not list_contains(flags, 'draft') order by judge, created_at, ordinal"
    )
    return said.unique(["sample_id", "judge"], keep="last", maintain_order=True)


def _book(found: _List) -> tuple[str, int]:
    values, task = found.store.task.values, found.store.task
    by_sample = _opinions(found).partition_by("sample_id", as_dict=True)
    pairs = []
    for row in found.rows.iter_rows(named=True):
        said = by_sample.get((row["sample_id"],))
        opinions = [] if said is None else said.iter_rows(named=True)
        pairs.append(
            {
                "query_text": row["query"],
                "doc_id": row["docid"],
                "position": None,
                "document_fields": {name: row[name] for name in found.others},
                "judgements": [
                    {
                        "rating": None if one["grade"] is None else values[one["grade"]],
                        "unrateable": DOUBT in one["flags"] and one["grade"] is None,
                        "judge_later": LATER in one["flags"] and one["grade"] is None,
                        "user_email": one["judge"],
                        "explanation": one["comment"] or None,
                    }
                    for one in opinions
                ],
            }
        )
    book = {
        "name": task.name,
        "show_rank": False,
        "support_implicit_judgements": False,
        "scale": [grade.value for grade in task.grades],
        "scale_with_labels": {f"{grade.value:g}": grade.name or grade.symbol for grade in task.grades},
        "query_doc_pairs": pairs,
    }
    return json.dumps(book, ensure_ascii=False, indent=2) + "\n", len(pairs)


def _book_csv(found: _List) -> tuple[str, int]:
    said = _opinions(found).filter(pl.col("grade").is_not_null())
    judges = sorted(said["judge"].unique())
    ratings, cells = found.ratings, {(s, j): g for s, j, g in said.select("sample_id", "judge", "grade").iter_rows()}
    rows = [
        (_guarded(query), document, *(ratings.get(cells.get((sample, judge), ""), "") for judge in judges))
        for sample, query, document in found.rows.select("sample_id", "query", "docid").iter_rows()
        if any((sample, judge) in cells for judge in judges)
    ]
    return _table(["query", "docid", *judges], rows), len(rows)


_WRITERS: dict[str, Callable[[_List], tuple[str, int]]] = {
    "qrels": _qrels,
    "quepid": _book,
    "quepid-csv": _book_csv,
    "quepid-case": _case,
    "opensearch": _opensearch,
    "ltr": _ltr,
    "umbrela": _umbrela,
    "esci": _esci,
}
