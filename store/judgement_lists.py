"""Judgement lists of search tools as tables: TREC qrels, Quepid, OpenSearch, LTR lines, umbrela, BEIR.

What each tool writes, by its own sources: Quepid's export of a book (`query_doc_pairs` with `judgements`) and of a case
(query, docid, rating), OpenSearch's `IMPORT_JUDGMENT` (`judgmentRatings`), castorini's umbrela (`query`, `candidates`).
Chosen by us: a book's judges are people's opinions and never gold; `unrateable` is a doubt (the flag `ambiguous`, no
grade), `judge_later` a skipped row; ratings of a case, of OpenSearch and of qrels are gold. Documents without texts are
known by `Table.ids`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from store.columns import gold_named
from store.figures import many
from store.label_studio import with_vote_columns
from store.tables import VOTES, Rejection, Table, from_records, text

Object = Mapping[str, Any]
Numbered = Sequence[tuple[int, Any]]  # objects of a file by their line or number
DOUBT, LATER = "ambiguous", "skipped"
_FIXED = frozenset({"query", "docid", "grade"})
_ORDERED = frozenset({"rank", "position", "score"})  # columns of a ranking, not of judges
_RATING = re.compile(r"-?\d+(?:\.\d+)?")
_QRELS = re.compile(r"(\S+)[ \t]+[A-Z]?\d[ \t]+(\S+)[ \t]+(-?\d+)[ \t]*$")
_LTR = re.compile(r"(-?\d+(?:\.\d+)?)[ \t]+qid:(\S+)[ \t]+#[ \t]*(\S+)(?:[ \t]+(\S.*?))?[ \t]*$")

# -- JSON -----------------------------------------------------------------------------------


def is_book(record: Object) -> bool:
    """A book of Quepid."""
    return isinstance(record.get("query_doc_pairs"), list)


def read_book(records: Numbered) -> Table:
    """A book: a row for each pair of query and document, its judges' opinions as votes."""
    book = records[0][1]
    rows, lines, rejected, votes = list[Object](), list[int](), list[Rejection](), list[tuple[Any, ...]]()
    for number, pair in enumerate(book["query_doc_pairs"], 1):
        if not isinstance(pair, dict) or not text(pair.get("query_text")).strip():
            rejected.append(Rejection(number, "a pair without a query"))
            continue
        votes += [_judgement(said, len(rows)) for said in _objects(pair.get("judgements"))]
        rows.append({"query": pair["query_text"], "docid": pair.get("doc_id"), **_fields(pair.get("document_fields"))})
        lines.append(number)
    table = from_records(rows, lines, rejected)
    ids = {} if set(table.frame.columns) - _FIXED else {"document": "docid"}
    roles: dict[str, Any] = {"group": "query", "id": "docid", "grades": _scale(book)} if rows else {}
    table = with_vote_columns(table, pl.DataFrame(votes, schema=VOTES, orient="row"))
    guideline = next((v for key, v in book.items() if "guideline" in key.lower() and isinstance(v, str)), "")
    return _told(table, f"a Quepid book with {many(len(rows), 'pair')}", roles, ids, guideline)


def _scale(book: Object) -> tuple[str, ...]:
    """The book's grades, lowest first, with the words that it has for them (`3 - Perfect`): also those nobody gave."""
    scorer = book.get("scorer")  # where older versions keep it
    holder: Object = scorer if isinstance(scorer, dict) and not book.get("scale") else book
    scale, labels = holder.get("scale"), holder.get("scale_with_labels")
    found = [_number(value) for value in scale] if isinstance(scale, list) else []
    if len(set(found)) < 2 or not all(_RATING.fullmatch(value) for value in found):
        return ()
    words = {_number(key): text(word).strip() for key, word in labels.items()} if isinstance(labels, dict) else {}
    ordered = sorted(set(found), key=float)
    return tuple(f"{v} - {words[v]}" for v in ordered) if all(words.get(v) for v in ordered) else tuple(ordered)


def _judgement(said: Object, row: int) -> tuple[Any, ...]:
    flags = [flag for key, flag in (("unrateable", DOUBT), ("judge_later", LATER)) if said.get(key)]
    rating = said.get("rating")
    grade = None if flags or rating is None else _number(rating)
    return row, text(said.get("user_email")) or "unknown", grade, None, text(said.get("explanation")), flags, None


def _fields(fields: object) -> dict[str, Any]:
    """A document's fields; one that is called like a column of ours gets another name."""
    named = fields if isinstance(fields, dict) else {}
    return {f"document_{name}" if name in _FIXED else str(name): value for name, value in named.items()}


def is_case(record: Object) -> bool:
    """A case of Quepid: queries with ratings."""
    return any("ratings" in query for query in _objects(record.get("queries")))


def read_case(records: Numbered) -> Table:
    """Ratings of a case, by document or as a list."""
    return _ratings(records[0][1]["queries"], "query_text", "a Quepid case")


def is_opensearch(record: Object) -> bool:
    """Judgements of OpenSearch's Search Relevance Workbench."""
    return isinstance(record.get("judgmentRatings"), list)


def read_opensearch(records: Numbered) -> Table:
    """Ratings of `IMPORT_JUDGMENT`, or as the judgement API gives them back."""
    return _ratings(records[0][1]["judgmentRatings"], "query", "judgements of OpenSearch")


def _ratings(queries: object, key: str, called: str) -> Table:
    rows, rejected = list[Object](), list[Rejection]()
    for number, query in enumerate(_objects(queries), 1):
        found = query.get("ratings")
        listed = found.items() if isinstance(found, dict) else ((_doc(r), r.get("rating")) for r in _objects(found))
        name = text(query.get(key) or query.get("query"))
        for document, rating in listed:
            if rating is None or not text(document):
                rejected.append(Rejection(number, "a rating without a document or a value"))
            else:
                rows.append({"query": name, "docid": document, "grade": _number(rating)})
    table = from_records(rows, range(1, len(rows) + 1), rejected)
    roles = {"group": "query", "id": "docid", "gold": "grade"} if rows else {}
    return _told(table, called, roles, {"document": "docid"})


def _doc(rating: Object) -> object:
    return next((rating[key] for key in ("docId", "doc_id", "docid") if rating.get(key) is not None), "")


def is_umbrela(record: Object) -> bool:
    """A request of umbrela, or its answer: a query and its candidates."""
    candidates = _objects(record.get("candidates"))
    return "query" in record and bool(candidates) and any("doc" in c or "docid" in c for c in candidates)


def read_umbrela(records: Numbered) -> Table:
    """Candidates as rows; what a model judged of them is one rater, `umbrela`, and no gold."""
    rows, lines, rejected = list[Object](), list[int](), list[Rejection]()
    for number, record in records:
        if not isinstance(record, dict) or not is_umbrela(record):
            rejected.append(Rejection(number, "no query with candidates"))
            continue
        query = record["query"] if isinstance(record["query"], dict) else {"text": record["query"]}
        for candidate in _objects(record["candidates"]):
            doc = candidate.get("doc")
            passage = doc.get("segment") or doc.get("contents") or doc.get("text") if isinstance(doc, dict) else doc
            judged = {"rater_umbrela": _number(candidate["judgment"])} if candidate.get("judgment") is not None else {}
            ids = {"query_id": query.get("qid", ""), "docid": candidate.get("docid", "")}
            rows.append({**ids, "query": query.get("text"), "passage": passage, **judged})
            lines.append(number)
    table = from_records(rows, lines, rejected)
    by_model = "rater_umbrela" in table.frame.columns
    named = bool(rows) and (table.frame["query_id"] != "").all()
    roles = {
        "group": "query_id" if named else "query",
        "id": "docid",
        **({"raters": ("rater_umbrela",)} if by_model else {}),
    }
    return _told(
        table, "candidates of umbrela" + (", judged by a model" if by_model else ""), roles if rows else {}, {}
    )


# -- lines ----------------------------------------------------------------------------------


def line_reader(lines: Sequence[str]) -> Callable[[str], Table] | None:
    """How to read a file without a header whose first lines are these; None where they are of no known list."""
    seen = [line.rstrip("\r\n") for line in lines if line.strip()]
    for pattern, reader in ((_QRELS, _read_qrels), (_LTR, _read_ltr)):
        if seen and all(pattern.match(line) for line in seen):
            return reader
    return None


def _matched(document: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, re.Match[str] | None]]:
    for number, line in enumerate(document.splitlines(), 1):
        if line.strip():
            yield number, pattern.match(line.strip("\r\n"))


def _read_qrels(document: str) -> Table:
    """`query 0 document grade`, both by their ids."""
    found = list(_matched(document, _QRELS))
    rows = [{"query_id": m[1], "docid": m[2], "grade": m[3]} for _, m in found if m]
    return _from_lines(
        found,
        rows,
        "TREC relevance judgements (qrels)",
        {"group": "query_id"},
        {"query": "query_id", "document": "docid"},
    )


def _read_ltr(document: str) -> Table:
    """`grade qid:query # document text of the query`, as Quepid writes them; without the text the id stands for it."""
    found = list(_matched(document, _LTR))
    worded = all(m[4] for _, m in found if m)
    rows = [{"query": m[4] if worded else m[2], "docid": m[3], "grade": _number(m[1])} for _, m in found if m]
    ids = {"document": "docid"} | ({} if worded else {"query": "query"})
    return _from_lines(found, rows, "judgements for learning to rank", {"group": "query"}, ids)


def _from_lines(
    found: Sequence[tuple[int, re.Match[str] | None]], rows: Sequence[Object], called: str, roles: Object, ids: Object
) -> Table:
    rejected = [Rejection(number, "not a line of the list") for number, match in found if not match]
    table = from_records(rows, [number for number, match in found if match], rejected)
    return _told(table, called, {**roles, "id": "docid", "gold": "grade"}, ids)


# -- headers --------------------------------------------------------------------------------


def from_header(table: Table) -> Table | None:
    """A table with a header that only a judgement list has; None for any other."""
    columns = table.frame.columns
    names = [name.strip().lower() for name in columns]
    if sorted({*names} - {"split"}) == ["corpus-id", "query-id", "score"]:
        renamed = table.frame.rename(dict(zip(columns, names, strict=True)))
        renamed = renamed.rename({"query-id": "query_id", "corpus-id": "docid", "score": "grade"})
        roles = {"group": "query_id", "id": "docid", "gold": "grade"}
        return _told(
            _with(table, renamed), "judgements in BEIR's layout", roles, {"query": "query_id", "document": "docid"}
        )
    if names[:2] == ["query", "docid"] and len(names) == 3 and gold_named(names[2:]):
        rated = table.frame.filter(table.frame[columns[1]] != "")  # a query without ratings has a row of its own
        kept = Table(rated, table.lines.filter(table.frame[columns[1]] != ""), table.rejected, notes=table.notes)
        renamed = _unspaced(rated.rename(dict(zip(columns, ("query", "docid", "grade"), strict=True))))
        roles = {"group": "query", "id": "docid", "gold": "grade"}
        return _told(_with(kept, renamed), "ratings of a Quepid case", roles, {"document": "docid"})
    if (
        names[:2] == ["query", "docid"]
        and names[2:]
        and not _ORDERED & {*names}
        and all(_rates(table.frame[c]) for c in columns[2:])
    ):
        renamed = _unspaced(table.frame.rename(dict(zip(columns[:2], names, strict=False))))
        people: dict[str, Any] = {"group": "query", "id": "docid", "raters": tuple(columns[2:])}
        return _told(_with(table, renamed), "a Quepid book, one column a judge", people, {"document": "docid"})
    return None


def _rates(column: pl.Series) -> bool:
    """Whether a column holds ratings or nothing."""
    return all(not value.strip() or _RATING.fullmatch(value.strip()) for value in column.unique())


def _unspaced(frame: pl.DataFrame) -> pl.DataFrame:
    """Without the blank that Quepid writes before what a spreadsheet would run."""
    return frame.with_columns(pl.col("query").str.replace(r"^ ([-=+@])", "$1"))


# -- shared ---------------------------------------------------------------------------------


def _with(table: Table, frame: pl.DataFrame) -> Table:
    return Table(frame, table.lines, table.rejected, notes=table.notes)


def _told(table: Table, called: str, roles: Object, ids: Object, guideline: str = "") -> Table:
    notes = (*table.notes, called)
    return Table(
        table.frame,
        table.lines,
        table.rejected,
        table.votes,
        table.vote_columns,
        notes,
        dict(roles),
        dict(ids),
        guideline,
    )


def _objects(value: object) -> Iterable[Object]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _number(rating: object) -> str:
    """A rating as a grade is written: `1.0` is 1."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text(rating).strip())
