"""What a file's columns are, guessed from their names and values; each guess with its reason, to be shown."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import polars as pl

from store.errors import UsageError
from store.prepare import MISSING, SPLIT_NAMES, ImportMapping, require
from store.scales import known_order, numeric
from store.task import MAX_SYMBOL, RESERVED, Grade, Task

MAX_GRADES = 12
_GOLD = ("gold", "grade", "label", "relevance", "rel", "judgment", "judgement", "rating", "score", "class", "category",
         "esci_label", "target", "verdict", "priority")  # fmt: skip
_RATER = re.compile(r"(?:rater|annotator|judge|worker|coder|labell?er|reviewer|assessor)s?[ _-]?\w+", re.IGNORECASE)
_GROUP = ("query", "search_query", "search_term", "keyword", "question", "prompt", "topic", "customer", "user",
          "session", "conversation", "group")  # fmt: skip
_ID = re.compile(r"(?:.*[ _-])?(?:id|key|uuid|guid|index|no|sku|asin)|unnamed.*|column_1", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Guess:
    """Columns by role.

    Attributes:
        reasons: role -> why a column was guessed to have it.
        unused: role -> the column that is named as if it had it, and why it was passed over.
    """

    mapping: ImportMapping
    columns: tuple[str, ...]
    reasons: dict[str, str]
    unused: dict[str, str] = field(default_factory=dict)


def guess(frame: pl.DataFrame, mapping: ImportMapping | None = None) -> Guess:
    """Roles of the columns; what `mapping` names is taken as said.

    Args:
        frame: text columns, as `read_table` gives them.

    Raises:
        UsageError: a named column is not there.
    """
    said = mapping or ImportMapping()
    said = said.model_copy(update={"raters": _expanded(said.raters, frame.columns)})
    require(frame, [said.gold, *said.raters, said.group, *said.fields.values()])
    reasons: dict[str, str] = {}
    unused: dict[str, str] = {}
    few = {name: values for name in frame.columns if (values := _values(frame[name])) is not None}
    free = [name for name in frame.columns if name not in {*said.fields.values(), *said.raters, said.gold, said.group,
                                                           said.annotator, said.date}]  # fmt: skip
    split = said.split or next(
        (n for n in free if few.get(n) and {v.lower() for v in few[n]} <= set(SPLIT_NAMES)), None
    )
    free = [name for name in free if name != split]
    raters = said.raters or tuple(name for name in free if _RATER.fullmatch(name) and few.get(name))
    if raters and not said.raters:
        reasons["raters"] = f"{', '.join(raters)}: named like raters, {len(few[raters[0]])} distinct values"
    rated = frozenset().union(*(few.get(name) or () for name in raters))
    gold = said.gold or _gold(
        [n for n in free if n not in raters and (not rated or few.get(n, rated | {""}) <= rated)], few
    )
    if gold and not said.gold:
        reasons["gold"] = f"{gold}: {len(few[gold])} distinct values ({', '.join(sorted(few[gold])[:6])})"
    elif not gold and (odd := _gold_by_name(free, few)):
        strange = ", ".join(sorted(few[odd] - rated)[:4])
        unused["gold"] = f"{odd}: holds grades that no rater gives ({strange}); --gold {odd} takes it all the same"
    free = [name for name in free if name not in raters and name != gold]
    texts = tuple(said.fields.values()) or _texts(frame, [n for n in frame.columns if n in free or n == said.group])
    reasons["fields"] = f"{', '.join(texts)}: text"
    group = said.group or _group(frame, texts)
    if group and not said.group:
        reasons["group"] = f"{group}: {frame[group].n_unique():,} distinct values on {len(frame):,} rows"
    if split and not said.split and not _whole_groups(frame, group, split):
        split, unused["split"] = None, f"{split}: cuts through groups; --split {split} takes it all the same"
    chosen = said.model_copy(update={"gold": gold, "raters": raters, "group": group, "split": split})
    return Guess(chosen, texts, reasons, unused)


def propose_task(frame: pl.DataFrame, mapping: ImportMapping | None = None, *, name: str = "task") -> Task:
    """A task for a file that has none; the columns are guessed where `mapping` does not say.

    Raises:
        UsageError: no text column, or no column with two to twelve grades.
    """
    found = guess(frame, mapping)
    graded = [*found.mapping.raters, *([found.mapping.gold] if found.mapping.gold else [])]
    named = mapping.grades if mapping else ()
    symbols = named or {v for column in graded for v in (_values(frame[column]) or ())}
    if not found.columns or len(symbols) < 2:
        raise UsageError(
            f"No {'text' if not found.columns else 'grade'} column was recognised among {', '.join(frame.columns)}.",
            "Name the columns: --gold COLUMN, --map field=column, --group COLUMN; or, where nothing is graded yet, the "
            "grades, lowest first: --grades 0,1,2.",
        )
    said = {column: field for field, column in (mapping.fields if mapping else {}).items()}
    fields = {column: field_name(said.get(column) or column) for column in found.columns}
    group = found.mapping.group or found.columns[0]
    grades, ordered = proposed_grades(symbols, said=bool(named))
    return Task(
        name=field_name(name).replace("_", "-"),
        group_by=fields.get(group, group),
        fields=tuple(fields.values()),
        grades=grades,
        ordered=ordered,
    )


def complete(frame: pl.DataFrame, task: Task, mapping: ImportMapping | None = None) -> Guess:
    """Roles of a file's columns for a task that is known: what `mapping` leaves open is guessed.

    A rater may be a pattern (`rater_*`). A guessed column counts only when all its values are grades of the task.
    """
    said = mapping or ImportMapping()
    fields = {name: column for name in task.fields if (column := _column_of(name, frame.columns))} | said.fields
    raters = _expanded(said.raters, frame.columns)
    found = guess(frame, said.model_copy(update={"fields": fields, "raters": raters}))
    known = {text.lower() for grade in task.grades for text in (grade.symbol, grade.name, f"{grade.value:g}") if text}
    holds = {name for name in (*found.mapping.raters, found.mapping.gold) if name and _holds(frame[name], known)}
    group = said.group or _column_of(task.group_by, frame.columns)
    chosen = {
        "raters": raters or tuple(name for name in found.mapping.raters if name in holds),
        "gold": said.gold or (found.mapping.gold if found.mapping.gold in holds else None),
        "group": group or found.mapping.group,
    }
    reasons = {role: reason for role, reason in found.reasons.items() if role != "fields" and chosen.get(role)}
    unused = dict(found.unused)
    if (odd := found.mapping.gold) and not chosen["gold"] and odd.lower() in _GOLD:
        strange = ", ".join(sorted(_bare_values(frame[odd]) - known)[:4])
        unused["gold"] = f"{odd}: holds what is no grade of task.toml ({strange})"
    return Guess(found.mapping.model_copy(update=chosen), tuple(fields.values()), reasons, unused)


def _column_of(field: str, columns: list[str]) -> str | None:
    return next((column for column in columns if column == field or field_name(column) == field), None)


def _expanded(patterns: tuple[str, ...], columns: list[str]) -> tuple[str, ...]:
    """The columns that each pattern (`rater_*`) matches; a pattern that matches none stays as it is."""
    matching = ([c for c in columns if fnmatchcase(c, pattern)] or [pattern] for pattern in patterns)
    return tuple(dict.fromkeys(name for names in matching for name in names))


def _holds(column: pl.Series, known: set[str]) -> bool:
    values = _bare_values(column)
    return bool(values) and values <= known


def _bare_values(column: pl.Series) -> set[str]:
    return {_bare(value).lower() for value in column.unique().to_list()} - MISSING


def _bare(value: str) -> str:
    """A value without blanks, and a whole number without the `.0` of a column that had gaps somewhere."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", value.strip())


def _values(column: pl.Series) -> frozenset[str] | None:
    """The distinct values of a column that may hold grades, else None."""
    most = MAX_GRADES + len(MISSING)
    if column.head(10_000).n_unique() > most or column.n_unique() > most:
        return None
    values = frozenset(_bare(v) for v in column.unique().to_list() if v.strip().lower() not in MISSING)
    short = all(len(value) <= 40 for value in values)
    return values if short and len(values) <= MAX_GRADES else None


def _gold(names: list[str], few: dict[str, frozenset[str]]) -> str | None:
    graded = [name for name in names if len(few.get(name, ())) >= 2 and name.lower() not in _GROUP]
    return _gold_by_name(graded, few) or (graded[-1] if graded else None)


def _gold_by_name(names: list[str], few: dict[str, frozenset[str]]) -> str | None:
    by_name = {name.lower(): name for name in names if len(few.get(name, ())) >= 2}
    return next((by_name[name] for name in _GOLD if name in by_name), None)


def _texts(frame: pl.DataFrame, names: list[str]) -> tuple[str, ...]:
    """Columns with words in them: not ids, not numbers, more than a handful of values."""
    head = frame.head(2000)
    return tuple(
        name
        for name in dict.fromkeys(names)
        if not _ID.fullmatch(name)
        and head[name].str.contains(r"\p{L}{2}").mean() > 0.5  # type: ignore[operator]
        and head[name].n_unique() > min(MAX_GRADES, len(head) // 2)
    )


def _group(frame: pl.DataFrame, texts: tuple[str, ...]) -> str | None:
    by_name = {name.lower(): name for name in frame.columns}
    named = next((by_name[name] for name in _GROUP if name in by_name), None)
    if named or not texts:
        return named
    return min(texts, key=lambda name: frame[name].n_unique())


def _whole_groups(frame: pl.DataFrame, group: str | None, split: str) -> bool:
    """Whether each group lies in one split: only then can a column be taken for a split without being named."""
    return (
        group is not None
        and group in frame.columns
        and not (frame.group_by(group).agg(pl.col(split).n_unique() > 1)[split].any())
    )


def field_name(column: str) -> str:
    """A column's name as the name of a task's field."""
    name = re.sub(r"\W+", "_", column.strip(), flags=re.ASCII).strip("_") or "field"
    if name[0].isdigit() or name.lower() in RESERVED:
        name = f"item_{name}"
    return name[:63]


def proposed_grades(symbols: Iterable[str], *, said: bool = False) -> tuple[tuple[Grade, ...], bool]:
    """Grades for what a file holds, lowest first, and whether that is an order.

    Numbers keep their value. Words come as a person said, else as the known scale that holds them all; words of no
    known scale are the alphabet's, and that is no order.

    Args:
        said: the symbols come from a person, lowest first.
    """
    names = list(dict.fromkeys(symbols))
    if numeric(names):
        by_value = {float(name): re.sub(r"\.0+$", "", name) for name in names}
        return tuple(Grade(symbol=by_value[value], value=value) for value in sorted(by_value)), True
    order = names if said else known_order(names)
    taken: dict[str, str] = {}  # symbol -> name
    for place, name in enumerate(order or sorted(names)):
        symbol = "_".join(name.split())
        taken[symbol if len(symbol) <= MAX_SYMBOL and symbol.isprintable() and symbol not in taken else str(place)] = (
            name
        )
    return tuple(
        Grade(symbol=symbol, name="" if symbol == name else name, value=place)
        for place, (symbol, name) in enumerate(taken.items())
    ), order is not None
