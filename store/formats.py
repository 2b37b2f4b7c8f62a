"""Files of other tools that would be misread as plain tables: recognised, refused by name, with a way to turn them.

A record or a header is recognised by keys that only one tool writes. `Reading.plain` takes any file as a table.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from store.errors import PiarError
from store.sources import Reading

Object = Mapping[str, Any]
_SEEN = 20  # records or lines that are looked at
_PLAIN = "to take it as a plain table all the same, add --plain"


@dataclass(frozen=True, slots=True)
class Format:
    """A format that is not read yet.

    Attributes:
        name: completes "FILE is …".
        fits: whether a record is of it.
        mend: what to do, of a record, the file's name for a shell, and whether it holds one record a line.
    """

    name: str
    fits: Callable[[Object], bool]
    mend: Callable[[Object, str, bool], str]


def refuse_records(records: Iterable[Object], name: str, reading: Reading, *, lines: bool = False) -> None:
    """Raise `PiarError` when JSON objects or rows of Parquet are of a format that is not read yet.

    Args:
        lines: the file holds one object a line, not an array of them.
    """
    for record in [] if reading.plain else records:
        for known in _RECORDS:
            if known.fits(record):
                raise _not_yet(name, known.name, known.mend(record, shlex.quote(name), lines))


def refuse_table(frame: pl.DataFrame, name: str, reading: Reading) -> None:
    """Raise `PiarError` when a header or the first rows are those of a format that is not read yet."""
    if reading.plain:
        return
    names = {column.lower() for column in frame.columns}
    for keys, alone, called, mend in _HEADERS:
        if keys == names or (keys < names and not alone):
            raise _not_yet(name, called, mend)
    for record in frame.head(_SEEN).to_dicts():
        for known in _IN_TABLES:
            if known.fits(record):
                raise _not_yet(name, known.name, known.mend(record, shlex.quote(name), False))


def refuse_lines(lines: Sequence[str], name: str, reading: Reading) -> None:
    """Raise `PiarError` when all of the first lines are of a format without a header that is not read yet."""
    seen = [line.rstrip("\r\n") for line in lines if line.strip()][:_SEEN]
    for pattern, called, mend in [] if reading.plain else _LINES:
        if seen and all(pattern.match(line) for line in seen):
            raise _not_yet(name, called, mend.format(shlex.quote(name)))


def _not_yet(name: str, called: str, mend: str) -> PiarError:
    return PiarError(f"{name} is {called}, which is not read yet.", mend)


def _rows(program: str, name: str, then: str) -> str:
    """A command that writes rows as JSON lines, and how to go on from there."""
    return (
        f"Turn it into rows: python3 -c 'import json, sys; {program}' < {name} > rows.jsonl "
        f"— then give rows.jsonl{then}; {_PLAIN}."
    )


def _each(lines: bool) -> str:
    return "map(json.loads, filter(str.strip, sys.stdin))" if lines else "json.load(sys.stdin)"


# -- records --------------------------------------------------------------------------------


def _is_prodigy(record: Object) -> bool:
    return "_input_hash" in record or (
        record.get("answer") in ("accept", "reject", "ignore")
        and bool({"_annotator_id", "_session_id", "_view_id"} & record.keys())
    )


def _mend_prodigy(record: Object, name: str, lines: bool) -> str:
    program = (
        '[print(json.dumps({"text": r.get("text"), "annotator": r.get("_annotator_id") or r.get("_session_id"), '
        f'"grade": g}})) for r in {_each(lines)} if r.get("answer") == "accept" '
        'for g in [*(r.get("accept") or []), r.get("label")][:1] if isinstance(g, str)]'
    )
    return _rows(program, name, " with --raters grade --annotator annotator")


def _labels_of(record: Object) -> tuple[str, str] | None:
    """Keys of the text and of its list of labels."""
    text = next((key for key in ("text", "data") if isinstance(record.get(key), str)), None)
    labels = next((key for key in ("label", "labels") if isinstance(record.get(key), list)), None)
    return (text, labels) if text and labels else None


def _mend_labels(record: Object, name: str, lines: bool) -> str:
    text, labels = _labels_of(record) or ("text", "label")
    if any(not isinstance(label, str | int) for label in record[labels]):
        return f"Its labels are spans of texts, and piar grades whole rows; {_PLAIN}."
    program = (
        f'[print(json.dumps({{"text": r["{text}"], "grade": r["{labels}"][0]}})) for r in {_each(lines)} '
        f'if len(r["{labels}"]) == 1]'
    )
    return _rows(program, name, " with --gold grade (rows with several labels or none are left out)")


def _is_argilla(record: Object) -> bool:
    return isinstance(record.get("fields"), dict) and bool({"responses", "suggestions"} & record.keys())


def _mend_argilla(record: Object, name: str, lines: bool) -> str:
    responses = record.get("responses")
    if isinstance(responses, list):  # as the first SDK writes them: a person's values together
        names = [key for said in responses if isinstance(said, dict) for key in said.get("values") or {}]
        question = next(iter(names), "QUESTION")
        each = f'for a in r["responses"] for v in [(a.get("values") or {{}}).get("{question}")] if v'
    else:
        question = next(iter(responses or {}), "QUESTION")
        each = f'for a in (r["responses"] or {{}}).get("{question}", []) for v in [a]'
    program = (
        f'[print(json.dumps({{**r["fields"], "annotator": str(a.get("user_id")), "grade": v["value"]}})) '
        f'for r in {_each(lines)} {each} if a.get("status") != "discarded"]'
    )
    return _rows(program, name, " with --raters grade --annotator annotator")


def _is_flat_argilla(record: Object) -> bool:
    return any(key.endswith((".responses.users", ".suggestion.agent")) for key in record)


def _mend_flat_argilla(record: Object, name: str, lines: bool) -> str:
    asked = [key.removesuffix(".responses") for key in record if key.endswith(".responses")]
    return (
        f"Write one row for each response, with the columns annotator and grade (from {asked[0] if asked else 'it'}"
        f".responses), and give it with --raters grade --annotator annotator; {_PLAIN}."
    )


def _is_promptfoo_table(record: Object) -> bool:
    return any(isinstance(value, str) and re.match(r"\[(?:PASS|FAIL|ERROR)\] ", value) for value in record.values())


def _mend_promptfoo_table(record: Object, name: str, lines: bool) -> str:
    return f"Export the evaluation as JSON: promptfoo export eval latest -o output.json; {_PLAIN}."


def _mend_promptfoo(record: Object, name: str, lines: bool) -> str:
    return _rows(_PROMPTFOO.format(_each(lines)), name, " with --gold grade")


_PROMPTFOO = (
    '[print(json.dumps({{**r.get("vars", {{}}), "output": str((r.get("response") or {{}}).get("output", "")), '
    '"grade": "pass" if r.get("success") else "fail"}})) for r in {}]'
)


def _is_promptfoo_file(record: Object) -> bool:
    results = record.get("results")
    return isinstance(results, dict) and isinstance(results.get("results"), list)


def _mend_promptfoo_file(record: Object, name: str, lines: bool) -> str:
    return _rows(_PROMPTFOO.format('json.load(sys.stdin)["results"]["results"]'), name, " with --gold grade")


def _is_quepid(record: Object) -> bool:
    queries = record.get("queries")
    return isinstance(queries, list) and any(isinstance(query, dict) and "ratings" in query for query in queries)


def _mend_by_ids(record: Object, name: str, lines: bool) -> str:
    return _TEXTS_TOO


_TEXTS_TOO = (
    "It names documents by ids, and piar judges texts: write a CSV with the columns query, title, grade, with texts in "
    "place of the ids."
)
_IN_TABLES = (
    Format("an Argilla dataset", _is_flat_argilla, _mend_flat_argilla),
    Format("an output of promptfoo", _is_promptfoo_table, _mend_promptfoo_table),
)
_RECORDS = (
    *_IN_TABLES,
    Format("a Prodigy export", _is_prodigy, _mend_prodigy),
    Format("an Argilla export", _is_argilla, _mend_argilla),
    Format("an output of promptfoo", lambda record: {"promptIdx", "testIdx"} <= record.keys(), _mend_promptfoo),
    Format("an output of promptfoo", _is_promptfoo_file, _mend_promptfoo_file),
    Format("a Quepid case", _is_quepid, _mend_by_ids),
    Format(
        "a Labelbox export",
        lambda record: {"data_row", "projects"} <= record.keys(),
        lambda record, name, lines: f"Write a CSV with a column for each text, one row a label; {_PLAIN}.",
    ),
    Format(
        "a file with lists of labels, as doccano exports it",
        lambda record: _labels_of(record) is not None,
        _mend_labels,
    ),
)

# -- headers and lines ----------------------------------------------------------------------

# Names, whether they are ids alone (with a text beside them the file is a plain table), what it is, the mend.
_HEADERS = (
    (
        {"query text", "doc id", "rating"},
        False,
        "a Quepid export",
        "Take it as a plain table, with its rating as the grade: add --plain --gold Rating --group 'Query Text'. "
        "It needs a column with the documents' texts.",
    ),
    ({"query", "docid", "rating"}, True, "a Quepid export", f"{_TEXTS_TOO} {_PLAIN.capitalize()}."),
    (
        {"query-id", "corpus-id", "score"},
        True,
        "a file of relevance judgements in the layout of BEIR",
        f"{_TEXTS_TOO} {_PLAIN.capitalize()}.",
    ),
)
_LINES = (
    (
        re.compile(r"\S+[ \t]+(?:Q?0|\d)[ \t]+\S+[ \t]+-?\d+[ \t]*$"),
        "a TREC file of relevance judgements (qrels)",
        f"{_TEXTS_TOO} The ids as a table, to join them with: "
        """awk 'BEGIN {{print "query_id,doc_id,grade"}} {{print $1 "," $3 "," $4}}' {0} > ids.csv""",
    ),
    (
        re.compile(r"\S+[ \t]+Q0[ \t]+\S+[ \t]+\d+[ \t]+[-+.\deE]+[ \t]+\S+[ \t]*$"),
        "a TREC run: a ranking without grades",
        _TEXTS_TOO,
    ),
    (
        re.compile(r"-?\d+(?:\.\d+)?[ \t]+qid:\S+[ \t]+\d+:"),
        "a file of ranking features (SVMlight, RankLib): numbers without texts",
        _TEXTS_TOO,
    ),
    (
        re.compile(r"__label__\S+"),
        "a file for fastText",
        """Turn it into a table: sed -E 's/^__label__([^ ]+) +/\\1\\t/; 1i grade\\ttext' {0} > rows.tsv """
        f"— then give rows.tsv with --gold grade; {_PLAIN}.",
    ),
    (
        re.compile(r"version https://git-lfs\.github\.com/|oid sha256:|size \d+"),
        "a Git LFS pointer",
        "Run git lfs pull.",
    ),
)
