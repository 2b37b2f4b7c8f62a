"""Label Studio's exports as tables: a row for each task (JSON) or each annotation (JSON-MIN, CSV), and all the votes.

Annotations are people's opinions and never gold by themselves; "ground truth" becomes a flag.
"""

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import polars as pl

from store.columns import MAX_GRADES, asks
from store.errors import UsageError
from store.figures import many
from store.tables import VOTES, Rejection, Table, from_records, moment, text
from store.types import NOTHING_FURTHER

_ANNOTATIONS = ("annotations", "completions", "drafts")
_GRADING = ("choices", "rating")
_SELDOM = ("number", "taxonomy")  # hold the grade where no other control does
_KINDS = (*_GRADING, "text", "number", "datetime", "taxonomy", "ranker", "pairwise", "labels")
_ABOUT = frozenset({"id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time"})
_MOST_CHOICES = 30


def is_export(records: Sequence[Any]) -> bool:
    """Whether JSON objects look like tasks of a Label Studio export."""
    first = next((r for r in records if isinstance(r, dict)), {})
    return isinstance(first.get("data"), dict) and ("annotations" in first or "completions" in first)


def read_export(tasks: Sequence[Any], name: str, control: str | None = None) -> Table:
    """Tasks as rows (their `data`), annotations and drafts as `votes`; a task without data is rejected.

    Args:
        name: of the file, for messages.
        control: name of the control that holds the grade; None: the one there is, or the one that is called `grade`.

    Raises:
        UsageError: no such control, or several of which none is named.
    """
    control = _control(tasks, name, control)
    rows: list[Mapping[str, Any]] = []
    lines: list[int] = []
    rejected: list[Rejection] = []
    votes: list[tuple[Any, ...]] = []
    earlier = 0
    for number, task in enumerate(tasks, 1):
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            rejected.append(Rejection(number, "a task without data"))
            continue
        said = list(_votes(task, len(rows), control))
        votes += (kept := _last_words(said))
        earlier += len(said) - len(kept)
        rows.append(task["data"])
        lines.append(number)
    table = from_records(rows, lines, rejected)
    frame = pl.DataFrame(votes, schema=VOTES | {"further": pl.String}, orient="row")
    return with_vote_columns(replace(table, notes=(*table.notes, *of_earlier(earlier))), frame)


def _last_words(votes: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The votes on a task without those that their author has answered anew since; drafts stay beside."""
    said = sorted(votes, key=lambda vote: vote[6] or datetime.min)
    last = {(vote[1], "draft" in vote[5]): vote for vote in said if vote[1] != "unknown"}
    return [vote for vote in votes if vote[1] == "unknown" or vote is last[vote[1], "draft" in vote[5]]]


def of_earlier(n: int) -> list[str]:
    """What to say of answers that were left out so."""
    return [f"without {many(n, 'answer')} that the same person gave anew later"] if n else []


def is_flat_export(columns: Sequence[str]) -> bool:
    """Whether a table is one of JSON-MIN, CSV or TSV: a row for each annotation."""
    return {"annotation_id", "annotator"} <= set(columns)


def with_flat_votes(table: Table, name: str, control: str | None = None) -> Table:
    """A table of annotations with its `votes`; arguments and errors as `read_export`."""
    frame = table.frame.with_columns(pl.col(c).map_elements(plain_choice, pl.String) for c in _answers(table.frame))
    answers = [column for column in _answers(frame) if _is_grading(frame[column])]
    answers.sort(key=lambda column: frame[column].n_unique())  # a text that comes again has more values than a scale
    if control is not None and control not in frame.columns:
        raise UsageError(
            f"{name} has no column of a control {control!r}.", f"It has {', '.join(map(repr, answers)) or 'none'}."
        )
    if control is None and len(answers) != 1:
        found = f"several columns that could hold the grade: {', '.join(map(repr, answers))}"
        raise UsageError(
            f"{name} has {found if answers else 'no column that seems to hold the grade'}.",
            f"Name it: --control {shlex.quote(answers[0]) if answers else 'NAME'}",
        )
    column = control or answers[0]
    seconds = pl.col("lead_time") if "lead_time" in frame.columns else pl.lit(None, pl.String)
    when = next((frame[c].to_list() for c in ("updated_at", "created_at") if c in frame.columns), [None] * len(frame))
    votes = frame.select(
        row=pl.int_range(pl.len(), dtype=pl.Int64),
        annotator=pl.col("annotator").replace("", "unknown"),
        grade=pl.col(column),
        seconds=seconds.cast(pl.Float64, strict=False),
        comment=pl.lit(""),
        flags=pl.lit([], pl.List(pl.String)),
        at=pl.Series([moment(text) for text in when], dtype=pl.Datetime("us")),
    ).filter(pl.col("grade") != "")
    last = _last_rows(votes, frame["id"]) if "id" in frame.columns else votes
    # What has more values than any scale is a text of the task, such as its queries.
    others = [other for other in answers if other != column and frame[other].n_unique() <= MAX_GRADES]
    note = f"without what seems to be answers of other controls: {', '.join(map(repr, others))}"
    return replace(
        table,
        frame=frame.drop([*(_ABOUT - {"id"}), *others], strict=False),
        votes=last,
        vote_columns=(column,),
        notes=(*table.notes, *([note] if others else []), *of_earlier(len(votes) - len(last))),
    )


def _last_rows(votes: pl.DataFrame, tasks: pl.Series) -> pl.DataFrame:
    """As `_last_words`, of a table with the task of each row."""
    dated = votes.with_columns(tasks.gather(votes["row"]).alias("task")).sort("at", maintain_order=True)
    once = dated.filter(pl.col("annotator") != "unknown").unique(["task", "annotator"], keep="last")
    return pl.concat([once, dated.filter(pl.col("annotator") == "unknown")]).sort("row").drop("task")


def _answers(frame: pl.DataFrame) -> list[str]:
    """Columns that may hold answers: neither about the annotation nor called like the text of a query."""
    return [column for column in frame.columns if column not in _ABOUT and not asks(column)]


def _is_grading(column: pl.Series) -> bool:
    """Whether a column may hold what was chosen: few values, all of them short."""
    values = column.unique()
    few = 1 < len(values) <= min(_MOST_CHOICES, len(column) // 2)
    return few and int(values.str.len_chars().max() or 0) <= 40  # type: ignore[arg-type]


def plain_choice(cell: str) -> str:
    """A cell of several choices, of stars, a number or a taxonomy, which is JSON, as it is written elsewhere."""
    try:
        found = json.loads(cell) if cell.startswith(("{", "[{")) else None
    except (ValueError, RecursionError):
        return cell
    said = [word for item in _dicts(found if isinstance(found, list) else [found]) for word in _words(item)]
    return " | ".join(said) or cell


def _words(value: Mapping[str, Any]) -> list[str]:
    """What the value of a control of grades holds: choices, stars, a number, the paths of a taxonomy."""
    found: Any = next((value[kind] for kind in (*_GRADING, *_SELDOM) if value.get(kind) is not None), [])
    listed = found if isinstance(found, list) else [found]
    return [" / ".join(map(text, item)) if isinstance(item, list) else text(item) for item in listed]


def _control(tasks: Sequence[Any], name: str, said: str | None) -> str:
    used = _used(tasks, _GRADING)
    if not used or said not in (None, *used):
        used += _used(tasks, _SELDOM)
    if said is not None and used and said not in used:
        raise UsageError(
            f"Nobody used a control {said!r} in {name}; there are answers of {', '.join(map(repr, used))}.",
            f"Name the one that holds the grade: --control {shlex.quote(next(iter(used)))}",
        )
    if said is None and len(used) > 1 and "grade" not in used:
        raise UsageError(
            f"{name} has answers of several controls: {', '.join(f'{n!r} ({k:,})' for n, k in used.items())}.",
            f"Name the one that holds the grade: --control {shlex.quote(next(iter(used)))}",
        )
    return said if said is not None else next(iter(used), "grade") if "grade" not in used else "grade"


def _used(tasks: Sequence[Any], kinds: Sequence[str]) -> Counter[str]:
    """How many answers there are of each control of these kinds."""
    return Counter(
        text(result.get("from_name"))
        for task in _dicts(tasks)
        for key in _ANNOTATIONS
        for annotation in _dicts(task.get(key))
        for result in _dicts(annotation.get("result"))
        if result.get("type") in kinds
    )


def with_vote_columns(table: Table, votes: pl.DataFrame) -> Table:
    """Show the votes as columns `annotator_1`…, one for each annotator, beside the fields."""
    people = votes.filter(~pl.col("flags").list.contains("draft"))
    columns = []
    for number, annotator in enumerate(people["annotator"].unique(maintain_order=True), 1):
        said = people.filter(pl.col("annotator") == annotator).drop_nulls("grade").unique("row", keep="first")
        grades = dict(said.select("row", "grade").rows())
        cells = [grades.get(row, "") for row in range(len(table.frame))]
        columns.append(pl.Series(f"annotator_{number}", cells, dtype=pl.String))
    columns = [column for column in columns if column.name not in table.frame.columns]
    names = tuple(column.name for column in columns)
    return replace(table, frame=table.frame.with_columns(columns), votes=votes, vote_columns=names)


def _votes(task: Mapping[str, Any], row: int, control: str) -> Iterable[tuple[Any, ...]]:
    """The annotations of a task; one that says nothing of the grade, with another control alone, is none."""
    for key in _ANNOTATIONS:
        for annotation in _dicts(task.get(key)):
            vote = _vote(annotation, row, control, draft=key == "drafts")
            if vote[2] is not None or annotation.get("was_cancelled") or not annotation.get("result"):
                yield vote


def _vote(annotation: Mapping[str, Any], row: int, control: str, *, draft: bool) -> tuple[Any, ...]:
    results = _dicts(annotation.get("result"))
    skipped = bool(annotation.get("was_cancelled"))
    named = {"draft": draft, "skipped": skipped, "ground_truth": bool(annotation.get("ground_truth"))}
    seconds = annotation.get("lead_time")
    return (
        row,
        _annotator(annotation.get("completed_by", annotation.get("user"))),
        None if skipped else _grade(results, control),
        float(seconds) if isinstance(seconds, (int, float)) else None,
        " ".join(_values(results, "textarea", "text")),
        [flag for flag, holds in named.items() if holds],
        moment(annotation.get("updated_at") or annotation.get("created_at")),
        _further(results, control),
    )


def _further(results: Sequence[Mapping[str, Any]], control: str) -> str:
    """As JSON, what was said beside the grade and in no comment."""
    said = {name: words for name, words in controls(results).items() if name not in (control, "comment")}
    return json.dumps(said, ensure_ascii=False) if said else NOTHING_FURTHER


def controls(results: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What each control of an annotation holds: choices, texts, figures; a marked span as an object.

    Such an object has `field` (without the prefix of pages that piar makes), `start`, `end`, `text` and `label`.
    """
    said: dict[str, list[Any]] = {}
    for item in results:
        value = item.get("value")
        if isinstance(value, Mapping) and (words := _held(value, text(item.get("to_name")))):
            said.setdefault(text(item.get("from_name")), []).extend(words)
    return said


def _held(value: Mapping[str, Any], where: str) -> list[Any]:
    if "start" in value and isinstance(value.get("text"), str):
        label = next((", ".join(map(text, found)) for found in value.values() if isinstance(found, list)), "")
        return [
            {"field": where.removeprefix("f_"), **{k: value.get(k) for k in ("start", "end", "text")}, "label": label}
        ]
    found = next((value[kind] for kind in _KINDS if kind in value), None)
    return found if isinstance(found, list) else [] if found is None else [found]


def _dicts(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _annotator(user: object) -> str:
    """The annotator's e-mail where the export has it, else the number that Label Studio gave them."""
    if isinstance(user, dict):
        return text(user.get("email") or user.get("id")) or "unknown"
    return text(user) or "unknown"


def _grade(results: Sequence[Mapping[str, Any]], control: str) -> str | None:
    """What was chosen by the control of the grade, several choices as one text; None where it was not used."""
    for result in results:
        graded = result.get("type") in (*_GRADING, *_SELDOM) and text(result.get("from_name")) == control
        if graded and isinstance(result.get("value"), dict) and (found := _words(result["value"])):
            return " | ".join(found)
    return None


def _values(results: Sequence[Mapping[str, Any]], kind: str, key: str) -> list[str]:
    values = [r["value"].get(key) for r in results if r.get("type") == kind and isinstance(r.get("value"), dict)]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [text(item) for item in flat if item is not None]
