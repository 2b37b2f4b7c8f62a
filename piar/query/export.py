"""A clean way out: labels, verdicts, samples and instructions as CSV, JSONL or Parquet.

CSV is opened in spreadsheets, which run a cell that begins like a formula. In CSV every text cell that
begins with `=`, `+`, `-`, `@` (or their wide forms), a tab or the end of a line gets an apostrophe in front;
JSONL and Parquet hold the text as it is.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from store.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from store.db import Store

What = Literal["labels", "verdicts", "samples", "instructions"]
ListFormat = Literal["qrels", "quepid", "quepid-csv", "quepid-case", "opensearch", "ltr", "umbrela", "esci"]
FORMATS = {".csv": "format csv, header", ".jsonl": "format json", ".parquet": "format parquet, compression zstd"}


def export(store: "Store", what: What, path: Path, *, force: bool = False) -> int:
    """Write one of the store's tables to a file, whole or not at all.

    Args:
        store: the store to read.
        what: which rows; the columns are the store's, with the sample's text and its truth beside them.
        path: ends in `.csv`, `.jsonl` or `.parquet`.
        force: replace an existing file.

    Returns:
        The number of rows written.

    Raises:
        UsageError: an unknown kind or format, or the file exists.
    """
    from store.files import replacing

    if what not in get_args(What):
        raise UsageError(f"{what!r} cannot be exported.", f"Choose one of {', '.join(get_args(What))}.")
    if path.suffix not in FORMATS:
        raise UsageError(
            f"{path.name} has no known format.",
            f"End its name in {', '.join(FORMATS)}; for a judgement list of labels add --format qrels.",
        )
    if path.exists() and not force:
        raise UsageError(f"{path} exists.", "Choose another name, or add --force to replace it.")
    with store.read() as con, replacing(path) as draft:
        rows = _query(store, what)
        target = "'" + str(draft).replace("'", "''") + "'"
        con.execute(
            f"copy ({_safe(con, rows) if path.suffix == '.csv' else rows}) to {target} ({FORMATS[path.suffix]})"
        )
        found = con.execute(f"select count(*) from ({rows})").fetchone()
    return int(found[0]) if found else 0


def _query(store: "Store", what: What) -> str:
    from store.db import quote

    fields = ", ".join(f"s.{quote(name)}" for name in store.task.fields)
    key = "s.sample_id::varchar as sample_id"  # as text in Parquet too, where readers take a UUID for raw bytes
    joined = f"s.group_key, s.split, {fields}"
    queries = {
        "samples": f"select {key}, {joined}, s.source, s.origin, s.external_id, t.grade as truth, t.basis, "
        "m.grade as majority, m.votes from samples s left join truth t using (sample_id) "
        "left join majority m using (sample_id) order by s.sample_id",
        "labels": f"select {key}, {joined}, l.source, l.annotator, l.grade, l.ordinal, l.comment, l.flags, "
        "l.rule, l.seconds, l.blind, l.batch, l.created_at, l.further::varchar as further, "
        "l.label_id in (select label_id from superseded) as superseded from label l join samples s "
        "using (sample_id) order by l.sample_id, l.source, l.annotator, l.ordinal, l.batch",
        "verdicts": f"select {key}, {joined}, v.judge, v.instruction, v.vote, v.grade, v.probs, v.evidence, "
        "v.steps, v.rules, v.trace_verdict, v.failure, t.grade as truth, v.created_at from verdict v "
        "join samples s using (sample_id) left join truth t using (sample_id) "
        "order by v.sample_id, v.judge, v.instruction, v.vote",
        "instructions": "select instruction_id, parent, author, note, body, created_at from instructions "
        "order by created_at, instruction_id",
    }
    return queries[what]


def _safe(con: "DuckDBPyConnection", rows: str) -> str:
    """The rows with lists as JSON and no text cell that a spreadsheet would run."""
    from store.db import quote

    relation = con.sql(rows)
    columns = []
    for name, kind in zip(relation.columns, map(str, relation.types), strict=True):
        text = quote(name)
        if kind.endswith("[]"):
            text = f"to_json({text})::varchar"
        elif kind == "VARCHAR":
            text = f"case when regexp_matches({text}, '^[=+@＝＋－＠\\t\\r\\n-]') then '''' || {text} else {text} end"
        columns.append(f"{text} as {quote(name)}")
    return f"select {', '.join(columns)} from ({rows})"
