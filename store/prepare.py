"""Rows of a file checked and cleaned: texts without control characters, grades as the task's symbols."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import polars as pl
from pydantic import Field

from store.cells import MISSING, classed, grade_symbol, missing, rounded
from store.columns import MAX_GRADES
from store.errors import UsageError
from store.field_names import field_name
from store.settings import Settings
from store.shares import spread
from store.tables import VOTES, Rejection, Table, moment
from store.task import Task

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "holdout": "holdout",
    "test": "test",
    "testing": "test",
    "pool": "pool",
    "unlabelled": "pool",
    "unlabeled": "pool",
}
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
_UNKNOWN = "\x00"  # stands for a value that is not one of those allowed; no cleaned text can hold it


class ImportMapping(Settings):
    """Which column holds what. `fields` names only those whose column is called otherwise.

    Attributes:
        fields: task field -> column.
        gold: column of the final grade.
        raters: one column for each rater; with `annotator`, the one column of grades.
        annotator: column that says who gave the grade of the row: one row for each label, as older tools write.
        counts: one column for each grade, with its votes or its probability; see `store.shares`.
        bucket_grades: take each number in the columns of grades as the nearest whole grade.
        cuts: take each number there as its class between these values, each the lowest of its class.
        date: with `annotator`, the column that says when, as ISO 8601 (a zone is turned into UTC).
        group: column of the group; else the task's `group_by`.
        split: column that says the split; else groups are dealt.
        id: column of the owner's own id.
        inclusion: column of the probability with which a queue chose the row; such rows are not for holdout and test.
        sample, weight: draw so many rows (0: take all), the likelier the larger this column; see `store.draw`.
        sample_queries: draw so many queries with all their rows, by strata of `weight`; see `store.draw`.
        source: name for where the rows come from; else the file's name.
        grades: the grades of a task to be proposed, lowest first: where nothing is graded yet, or to give an order.
    """

    fields: dict[str, str] = Field(default_factory=dict)
    gold: str | None = None
    raters: tuple[str, ...] = ()
    annotator: str | None = None
    date: str | None = None
    counts: tuple[str, ...] = ()
    bucket_grades: bool = False
    cuts: tuple[float, ...] = ()
    group: str | None = None
    split: str | None = None
    id: str | None = None
    inclusion: str | None = None
    sample: int = Field(default=0, ge=0)
    sample_queries: int = Field(default=0, ge=0)
    weight: str | None = None
    source: str | None = None
    grades: tuple[str, ...] = ()


def as_the_file_says(mapping: ImportMapping, table: Table) -> ImportMapping:
    """The mapping with what the format of a file says of its columns, where nobody has said otherwise."""
    found: dict[str, Any] = {role: column for role, column in table.roles.items() if not getattr(mapping, role)}
    if mapping.gold or mapping.raters:
        found = {role: column for role, column in found.items() if role not in ("gold", "raters")}
    if texts := found.get("fields"):
        found["fields"] = {field_name(column): column for column in texts}
    return mapping.model_copy(update=found)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that may enter the store.

    Attributes:
        frame: `row`, `line`, `group`, `f0`… (the task's fields), `external`, `split`, `inclusion`, `gold`,
            `rater0`…, `value` (mean position of the row's grades, gold before people; null: unlabelled).
        raters: column of `frame` -> annotator.
        votes: as `store.tables.VOTES`, grades as symbols.
        rejected: what was left out, and why.
        cleaned: cells from which control characters were removed.
        ungraded: word for nothing, as it is written -> how often it stands in a column of grades.
    """

    frame: pl.DataFrame
    raters: dict[str, str]
    votes: pl.DataFrame
    rejected: list[Rejection]
    cleaned: int
    ungraded: dict[str, int] = field(default_factory=dict)


def prepare(table: Table, task: Task, mapping: ImportMapping) -> Rows:
    """Choose the columns that the mapping names, clean the texts and check every row.

    Raises:
        UsageError: a named column is missing.
    """
    if change := bucketing(mapping):
        table = _bucketed(table, mapping, change)
    if mapping.counts:
        require(table.frame, mapping.counts)
        table, likeliest = spread(table, mapping.counts)
        found = {"raters": (likeliest,)} if likeliest and mapping.annotator else {"gold": mapping.gold or likeliest}
        mapping = mapping.model_copy(update=found)
    ungraded = _ungraded(table.frame, task, [*([mapping.gold] if mapping.gold else []), *mapping.raters])
    if mapping.annotator:
        table = _with_annotators(table, task, mapping)
    raters = [name for name in mapping.raters if name not in table.vote_columns]
    texts = _text_columns(table.frame, task, mapping)
    grades = ({"gold": mapping.gold} if mapping.gold else {}) | {f"rater{i}": name for i, name in enumerate(raters)}
    require(table.frame, [*texts.values(), *grades.values(), mapping.split, mapping.inclusion])
    source = table.frame
    columns = [
        pl.Series("row", range(len(source)), dtype=pl.Int64),
        table.lines.alias("line"),
        *(clean(source[column]).alias(name) for name, column in texts.items() if name != "group"),
        clean(source[texts["group"]]).str.normalize("NFC").alias("group"),  # accents come in one piece or in two
        *([] if mapping.id else [pl.Series("external", [None] * len(source), dtype=pl.String)]),
        _said_split(source, mapping.split),
        _inclusion(source, mapping.inclusion),
        *(_graded(source[column], task).alias(name) for name, column in grades.items()),
        *([] if mapping.gold else [pl.Series("gold", [None] * len(source), dtype=pl.String)]),
    ]
    frame = pl.DataFrame(columns)
    votes, bad_votes = _votes(table, task)
    reasons = _reasons(frame, table, task, grades, mapping)
    for row, reason in bad_votes.items():
        reasons[row] = reasons[row] or reason
    kept = frame.filter(reasons == "")
    rejected = [Rejection(int(frame["line"][i]), reasons[i]) for i in (reasons != "").arg_true().to_list()]
    cleaned = sum(int(source[column].str.contains(_CONTROL).sum()) for column in dict.fromkeys(texts.values()))
    return Rows(
        _with_value(kept, grades, votes, task),
        {n: c for n, c in grades.items() if n != "gold"},
        votes,
        rejected,
        cleaned,
        ungraded,
    )


def _text_columns(frame: pl.DataFrame, task: Task, mapping: ImportMapping) -> dict[str, str]:
    """Name in `Rows.frame` -> column of the file, for the texts."""
    columns = {name: mapping.fields.get(name, name) for name in task.fields}
    unknown = sorted(set(mapping.fields) - set(columns))
    if unknown:
        raise UsageError(
            f"--map names {', '.join(map(repr, unknown))}, but the task's fields are {', '.join(task.fields)}.",
            "Write --map field=column with a field of task.toml.",
        )
    group = mapping.group or columns.get(task.group_by, task.group_by)
    named = {f"f{i}": columns[name] for i, name in enumerate(task.fields)} | {"group": group}
    return named | ({"external": mapping.id} if mapping.id else {})


def require(frame: pl.DataFrame, columns: Iterable[str | None]) -> None:
    """Raise `UsageError` when one of these columns is not there; None is none."""
    missing = [name for name in dict.fromkeys(columns) if name and name not in frame.columns]
    if missing:
        found = ", ".join(map(repr, frame.columns))
        raise UsageError(
            f"No column {', '.join(map(repr, missing))}; the file has {found}.",
            f"Check the spelling. A field whose column is called otherwise is named by --map {missing[0]}=COLUMN. "
            "If the file looks like one column, its delimiter is none of comma, tab, semicolon and bar.",
        )


def clean(column: pl.Series) -> pl.Series:
    """Texts as the store keeps them: no control characters, no space around."""
    dirty = column.str.contains(_CONTROL).any()
    return (column.str.replace_all(_CONTROL, " ") if dirty else column).str.strip_chars()


def _said_split(frame: pl.DataFrame, column: str | None) -> pl.Series:
    if column is None:
        return pl.Series("split", [None] * len(frame), dtype=pl.String)
    return _translated(
        frame[column], {value: SPLIT_NAMES.get(value.lower()) for value in _distinct(frame[column])}
    ).alias("split")


def _inclusion(frame: pl.DataFrame, column: str | None) -> pl.Series:
    """Probabilities; null where the file says nothing, NaN where it says something else."""
    if column is None:
        return pl.Series("inclusion", [None] * len(frame), dtype=pl.Float64)
    text = frame[column].str.strip_chars()
    number = text.cast(pl.Float64, strict=False).fill_null(math.nan)
    valid = (number > 0) & (number <= 1)
    return (
        pl.select(
            pl.when(text.str.to_lowercase().is_in(list(MISSING)))
            .then(None)
            .when(valid)
            .then(number)
            .otherwise(math.nan)
        )
        .to_series()
        .alias("inclusion")
    )


# -- grades ---------------------------------------------------------------------------------


def _graded(column: pl.Series, task: Task) -> pl.Series:
    return _translated(column, {value: grade_symbol(value, task) for value in _distinct(column)})


def _ungraded(frame: pl.DataFrame, task: Task, columns: Iterable[str]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for column in columns:
        for value, n in frame[column].str.strip_chars().alias("value").value_counts().rows() if column in frame else ():
            if value and _says_nothing(value, task):
                counts[value] += n
    return dict(counts.most_common())


def _says_nothing(cell: str, task: Task) -> bool:
    """Whether a cell is a word for nothing, and no grade of this task is called so."""
    return missing(cell) and grade_symbol(cell, task) is None


def _distinct(column: pl.Series) -> list[str]:
    return [str(value).strip() for value in column.unique().to_list() if value is not None]


def _translated(column: pl.Series, known: dict[str, str | None]) -> pl.Series:
    """Each value as what it is known by; null where missing, `_UNKNOWN` where it is not known."""
    table = {
        value: None if value.lower() in MISSING and name is None else name or _UNKNOWN for value, name in known.items()
    }
    return column.str.strip_chars().replace_strict(table, default=None, return_dtype=pl.String)


def bucketing(mapping: ImportMapping) -> Callable[[str], str] | None:
    """What makes a grade of a cell that holds a number of another scale; None where that was not asked for.

    Raises:
        UsageError: cuts that do not ascend, or too many.
    """
    cuts = mapping.cuts
    if not cuts:
        return rounded if mapping.bucket_grades else None
    if list(cuts) != sorted(set(cuts)) or len(cuts) >= MAX_GRADES:
        raise UsageError(
            f"--cuts {','.join(f'{cut:g}' for cut in cuts)} makes no classes.",
            f"Give at most {MAX_GRADES - 1} values that ascend, each the lowest of its class: --cuts 40,60,80.",
        )
    return partial(classed, cuts=cuts)


def _bucketed(table: Table, mapping: ImportMapping, change: Callable[[str], str]) -> Table:
    names = [*([mapping.gold] if mapping.gold else []), *mapping.raters]
    require(table.frame, names)
    whole = [pl.Series(n, [change(cell) for cell in table.frame[n].to_list()], dtype=pl.String) for n in names]
    return replace(table, frame=table.frame.with_columns(whole))


def _with_annotators(table: Table, task: Task, mapping: ImportMapping) -> Table:
    """A table with one row for each label as a table with votes; rows without a grade only bring the sample."""
    if len(mapping.raters) != 1:
        raise UsageError(
            "--annotator needs exactly one column of grades.", "Name it: --annotator who --raters label [--date when]."
        )
    grade = mapping.raters[0]
    require(table.frame, [grade, mapping.annotator, mapping.date])
    said_at = table.frame[mapping.date].to_list() if mapping.date else [None] * len(table.frame)
    votes = table.frame.select(
        row=pl.int_range(pl.len(), dtype=pl.Int64),
        annotator=pl.col(str(mapping.annotator)).str.strip_chars().replace("", "unknown"),
        grade=pl.col(grade).str.strip_chars(),
        seconds=pl.lit(None, pl.Float64),
        comment=pl.lit(""),
        flags=pl.lit([], pl.List(pl.String)),
        at=pl.Series([moment(text) for text in said_at], dtype=pl.Datetime("us")),
    ).filter(~pl.col("grade").is_in([word for word in _distinct(table.frame[grade]) if _says_nothing(word, task)]))
    return replace(table, votes=votes, vote_columns=(grade,))


def _votes(table: Table, task: Task) -> tuple[pl.DataFrame, dict[int, str]]:
    """The table's own votes with grades as symbols, and the rows that hold an unknown one."""
    if table.votes is None:
        return pl.DataFrame(schema=VOTES), {}
    votes = table.votes.with_columns(_graded(table.votes["grade"], task).alias("grade"))
    unknown = votes.filter(pl.col("grade") == _UNKNOWN)["row"].unique().to_list()
    return votes, dict.fromkeys(unknown, "an annotation with an unknown grade")


def _with_value(frame: pl.DataFrame, grades: dict[str, str], votes: pl.DataFrame, task: Task) -> pl.DataFrame:
    position = {symbol: float(i) for i, symbol in enumerate(task.symbols)}

    def number(column: str) -> pl.Expr:
        return pl.col(column).replace_strict(position, default=None, return_dtype=pl.Float64)

    said = votes.group_by("row").agg(number("grade").mean().alias("said"))
    people = [number(name) for name in grades if name != "gold"]
    value = pl.coalesce(number("gold"), pl.mean_horizontal(people) if people else pl.lit(None, pl.Float64), "said")
    return frame.join(said, on="row", how="left", maintain_order="left").with_columns(value=value).drop("said")


# -- reasons --------------------------------------------------------------------------------


def _reasons(
    frame: pl.DataFrame, table: Table, task: Task, grades: dict[str, str], mapping: ImportMapping
) -> pl.Series:
    """Why each row is left out; "" for a row that may enter."""
    empty = pl.all_horizontal(pl.col(f"f{i}") == "" for i in range(len(task.fields)))
    checks = [
        (
            pl.col("group") == "",
            pl.lit("no group: the column is empty; where it stands on a group's first row alone, fill it down"),
        ),
        (empty, pl.lit("every field is empty")),
        (pl.col("inclusion").is_nan(), pl.lit("inclusion is no probability above 0")),
    ]
    for name, column in (grades | ({"split": mapping.split} if mapping.split else {})).items():
        kind = "split" if name == "split" else "grade"
        shown = table.frame[column].str.slice(0, 40)
        text = pl.concat_str(pl.lit(f"unknown {kind} '"), shown, pl.lit(f"' in column {column!r}"))
        checks.append((pl.col(name) == _UNKNOWN, text))
    return frame.select(
        pl.coalesce([*(pl.when(failed).then(reason) for failed, reason in checks), pl.lit("")])
    ).to_series()
