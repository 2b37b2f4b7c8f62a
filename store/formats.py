"""Files of other tools: recognised by what only they write, and read; the few that are not read are refused by name.

A record or a header is recognised by keys that only one tool writes. `Reading.plain` takes any file as a table.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store import annotation_exports as tools
from store import exported_labels
from store import judgement_lists as lists
from store.errors import PiarError
from store.sources import Reading
from store.tables import Table

Object = Mapping[str, Any]
Numbered = Sequence[tuple[int, Any]]
Reader = Callable[[Numbered, str, str | None], Table]  # records by line, the file's name, the control that is named
_SEEN = 20  # records or lines that are looked at
_PLAIN = "to take it as a plain table all the same, add --plain"


@dataclass(frozen=True, slots=True)
class Format:
    """A format whose files hold records.

    Attributes:
        fits: whether a record is of it.
        read: what makes a table of them.
    """

    fits: Callable[[Object], bool]
    read: Reader


@dataclass(frozen=True, slots=True)
class Unread:
    """A format that is not read.

    Attributes:
        name: completes "FILE is …".
        fits: whether a record is of it.
        mend: what to do.
    """

    name: str
    fits: Callable[[Object], bool]
    mend: str


def known_records(records: Iterable[Object], name: str, reading: Reading) -> Reader | None:
    """How JSON objects or rows of Parquet are read; None for a plain table.

    Raises:
        PiarError: they are of a format that is not read.
    """
    for record in [] if reading.plain else records:
        for unread in _UNREAD:
            if unread.fits(record):
                raise _not_yet(name, unread.name, unread.mend)
        for known in _RECORDS:
            if known.fits(record):
                return known.read
    return None


def known_table(table: Table, name: str, reading: Reading) -> Table:
    """A table as its header says that it is to be read; as it is where the header is nobody's.

    Raises:
        PiarError: the header or the first rows are those of a format that is not read.
    """
    if reading.plain or table.roles:
        return table
    names = {column.lower() for column in table.frame.columns}
    for keys, called, mend in _HEADERS:
        if keys <= names:
            raise _not_yet(name, called, mend)
    for record in table.frame.head(_SEEN).to_dicts():
        for unread in _UNREAD:
            if unread.fits(record):
                raise _not_yet(name, unread.name, unread.mend)
    return exported_labels.from_header(table) or lists.from_header(table) or table


def refuse_lines(lines: Sequence[str], name: str, reading: Reading) -> None:
    """Raise `PiarError` when all of the first lines are of a format without a header that is not read."""
    seen = [line.rstrip("\r\n") for line in lines if line.strip()][:_SEEN]
    for pattern, called, mend in [] if reading.plain else _LINES:
        if seen and all(pattern.match(line) for line in seen):
            raise _not_yet(name, called, mend.format(shlex.quote(name)))


def _not_yet(name: str, called: str, mend: str) -> PiarError:
    return PiarError(f"{name} is {called}, which is not read yet.", mend)


# -- records --------------------------------------------------------------------------------


def _list(read: Callable[[Numbered], Table]) -> Reader:
    """A judgement list has no control to be named."""
    return lambda records, name, control: read(records)


_RECORDS = (
    Format(tools.is_prodigy, tools.read_prodigy),
    Format(tools.is_argilla, tools.read_argilla),
    Format(tools.is_flat_argilla, tools.read_argilla),
    Format(tools.is_promptfoo, tools.read_promptfoo),
    Format(tools.is_promptfoo_file, tools.read_promptfoo),
    Format(lists.is_book, _list(lists.read_book)),
    Format(lists.is_case, _list(lists.read_case)),
    Format(lists.is_opensearch, _list(lists.read_opensearch)),
    Format(lists.is_umbrela, _list(lists.read_umbrela)),
    Format(lambda record: tools.labels_of(record) is not None, tools.read_labels),
)


def _is_promptfoo_table(record: Object) -> bool:
    return any(isinstance(value, str) and re.match(r"\[(?:PASS|FAIL|ERROR)\] ", value) for value in record.values())


_UNREAD = (
    Unread(
        "a table of promptfoo",
        _is_promptfoo_table,
        f"Export the evaluation as JSON: promptfoo export eval latest -o output.json; {_PLAIN}.",
    ),
    Unread(
        "a Labelbox export",
        lambda record: {"data_row", "projects"} <= record.keys(),
        f"Write a CSV with a column for each text, one row a label; {_PLAIN}.",
    ),
)

# -- headers and lines ----------------------------------------------------------------------

_HEADERS = (
    (
        {"query text", "doc id", "rating"},
        "a Quepid export",
        "Take it as a plain table, with its rating as the grade: add --plain --gold Rating --group 'Query Text' "
        "--id 'Doc ID'. It needs a column with the documents' texts, or --documents FILE.",
    ),
)
_LINES = (
    (
        re.compile(r"\S+[ \t]+Q0[ \t]+\S+[ \t]+\d+[ \t]+[-+.\deE]+[ \t]+\S+[ \t]*$"),
        "a TREC run: a ranking without grades",
        "`piar compare` takes two of them. To have its documents judged, write a CSV with the columns query and title.",
    ),
    (
        re.compile(r"-?\d+(?:\.\d+)?[ \t]+qid:\S+[ \t]+\d+:"),
        "a file of ranking features (SVMlight, RankLib): numbers without texts",
        "Write a CSV with the columns query, title, grade, with texts in place of the features.",
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
