"""Options that several verbs share, and what they mean together."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from store.errors import UsageError

if TYPE_CHECKING:
    from piar.llm.cost import Budget
    from store.importers import ImportMapping
    from store.readers import Reading

_COLUMNS = "columns"

Gold = Annotated[
    str | None, typer.Option("--gold", metavar="COLUMN", help="The final grade.", rich_help_panel=_COLUMNS)
]
Raters = Annotated[
    str | None,
    typer.Option(
        "--raters", metavar="A,B,C", help="Several people's grades; patterns too: 'rater_*'.", rich_help_panel=_COLUMNS
    ),
]
AnnotatorColumn = Annotated[
    str | None,
    typer.Option(
        "--annotator", metavar="COLUMN", help="Who gave the grade in --raters: a row a label.", rich_help_panel=_COLUMNS
    ),
]
DateColumn = Annotated[
    str | None,
    typer.Option("--date", metavar="COLUMN", help="With --annotator: when, as ISO 8601.", rich_help_panel=_COLUMNS),
]
GroupColumn = Annotated[
    str | None,
    typer.Option("--group", metavar="COLUMN", help="What belongs together: the query.", rich_help_panel=_COLUMNS),
]
Fields = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="FIELD=COLUMN", help="A field and its column; repeat it.", rich_help_panel=_COLUMNS),
]
FieldColumns = Annotated[
    str | None,
    typer.Option(
        "--fields", metavar="A,B", help="The columns that a judge reads, and no other.", rich_help_panel=_COLUMNS
    ),
]
Counts = Annotated[
    str | None,
    typer.Option(
        "--counts",
        metavar="A,B,C",
        help="One column a grade: its votes, or its probability.",
        rich_help_panel=_COLUMNS,
    ),
]
BucketGrades = Annotated[
    bool,
    typer.Option("--bucket-grades", help="Take means such as 1.67 as the nearest grade.", rich_help_panel=_COLUMNS),
]
Cuts = Annotated[
    str | None,
    typer.Option(
        "--cuts",
        metavar="40,60,80",
        help="Take numbers as classes: each cut is the lowest value of its class.",
        rich_help_panel=_COLUMNS,
    ),
]
SplitColumn = Annotated[
    str | None,
    typer.Option("--split", metavar="COLUMN", help="Splits that you made yourself.", rich_help_panel=_COLUMNS),
]
IdColumn = Annotated[
    str | None, typer.Option("--id", metavar="COLUMN", help="Your own ids, kept beside ours.", rich_help_panel=_COLUMNS)
]
Source = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="NAME",
        help="Where the rows come from.",
        show_default="the file's name",
        rich_help_panel=_COLUMNS,
    ),
]
LabelConfig = Annotated[
    Path | None,
    typer.Option(
        "--label-config",
        metavar="FILE.xml",
        help="FILE is a Label Studio export: its label configuration, which becomes the task.",
        rich_help_panel=_COLUMNS,
    ),
]
_READING = "reading"
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        help="The text's encoding: utf-8, shift_jis, cp1252, …",
        show_default="detected",
        rich_help_panel=_READING,
    ),
]
Sheet = Annotated[
    str | None,
    typer.Option(
        "--sheet", metavar="NAME", help="The sheet of a workbook, or the file of a ZIP.", rich_help_panel=_READING
    ),
]
Control = Annotated[
    str | None,
    typer.Option(
        "--control",
        metavar="NAME",
        help="Of a Label Studio project: the control that holds the grade.",
        rich_help_panel=_READING,
    ),
]
Plain = Annotated[
    bool,
    typer.Option("--plain", help="Take it as a table, whatever tool it seems to come from.", rich_help_panel=_READING),
]
Documents = Annotated[
    Path | None,
    typer.Option("--documents", metavar="FILE", help="Texts of a list that has ids alone.", rich_help_panel=_READING),
]
Queries = Annotated[
    Path | None,
    typer.Option(
        "--queries", metavar="FILE", help="Texts of queries that the list has as ids.", rich_help_panel=_READING
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="COLUMN", help="Of --documents: the ids.", show_default="found out", rich_help_panel=_READING
    ),
]
Header = Annotated[
    str | None,
    typer.Option(
        "--header",
        metavar="A,B,C",
        help="The columns' names, of a text file that does not begin with them.",
        rich_help_panel=_READING,
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed; the same seed gives the same result.")]
Instruction = Annotated[
    str | None, typer.Option("--instruction", metavar="ID", help="An older instruction.", show_default="instruction.md")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be asked and at what cost; ask nothing.")]
MaxUsd = Annotated[
    float | None,
    typer.Option("--max-usd", min=0, help="Hard cap on dollars, reserved before asking.", show_default="none"),
]
MaxCalls = Annotated[
    int | None,
    typer.Option("--max-calls", min=0, help="Hard cap on requests that may be paid for.", show_default="none"),
]


def budget(max_usd: float | None, max_calls: int | None) -> "Budget":
    """The hard caps of a paying verb."""
    from piar.llm.cost import Budget

    return Budget(max_calls, max_usd)


Grades = Annotated[
    str | None,
    typer.Option(
        "--grades",
        metavar="0,1,2",
        help="The grades, lowest first: their order, or where nothing is graded yet.",
        rich_help_panel=_COLUMNS,
    ),
]


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _numbers(text: str | None) -> tuple[float, ...]:
    from store.cells import number

    found = [(word, number(word)) for word in _listed(text)]
    if odd := [word for word, value in found if value is None]:
        raise UsageError(f"--cuts: {odd[0]!r} is no number.", "Write numbers that ascend: --cuts 40,60,80.")
    return tuple(value for _, value in found if value is not None)


def mapping(
    gold: str | None = None,
    raters: str | None = None,
    group: str | None = None,
    fields: list[str] | None = None,
    split: str | None = None,
    id: str | None = None,
    source: str | None = None,
    annotator: str | None = None,
    date: str | None = None,
    grades: str | None = None,
    columns: str | None = None,
    counts: str | None = None,
    bucket_grades: bool = False,
    cuts: str | None = None,
) -> "ImportMapping":
    """The columns as a mapping; what is not named will be guessed.

    Args:
        fields: pairs FIELD=COLUMN.
        columns: columns whose fields are called like them.

    Raises:
        UsageError: a `--map` that is no FIELD=COLUMN, or cuts that are no numbers.
    """
    from store.field_names import field_name
    from store.importers import ImportMapping

    pairs = [pair.partition("=") for pair in fields or ()]
    bad = next((name for name, equals, column in pairs if not (name and equals and column)), None)
    if bad is not None:
        raise UsageError(f"--map {bad!r} names no column.", "Write --map field=column.")
    return ImportMapping(
        fields={field_name(column): column for column in _listed(columns)}
        | {name.strip(): column.strip() for name, _, column in pairs},
        counts=_listed(counts),
        bucket_grades=bucket_grades,
        cuts=_numbers(cuts),
        gold=gold,
        raters=_listed(raters),
        grades=_listed(grades),
        group=group,
        split=split,
        id=id,
        source=source,
        annotator=annotator,
        date=date,
    )


def reading(
    encoding: str | None,
    sheet: str | None,
    control: str | None,
    plain: bool,
    documents: Path | None = None,
    queries: Path | None = None,
    on: str | None = None,
    header: str | None = None,
) -> "Reading":
    """How the files are to be read; what is not said is found out."""
    from store.readers import Reading

    return Reading(encoding, sheet, control, plain, documents, queries, on, _listed(header))
