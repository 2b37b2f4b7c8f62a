"""A task for a file that has none, and the columns of a file for a task that is there."""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from shlex import quote

import polars as pl

from store import columns as shape
from store.cells import MISSING, bare, grade_symbol, missing, number
from store.columns import MAX_GRADES, gold_named, in_order, odd_grades
from store.errors import UsageError
from store.field_names import field_name, field_names
from store.prepare import ImportMapping
from store.roles import Doubt, Guess, bucketed, expanded, guess
from store.scales import known_order, numeric
from store.shares import grade_of
from store.task import MAX_SYMBOL, Grade, Task

_NAMED = 3  # columns in a message
_FEWEST_PAIRS = 300
_NO_AGREEMENT = 0.1  # beyond chance, of what is possible

__all__ = [
    "MAX_GRADES",
    "Doubt",
    "Guess",
    "classes",
    "complete",
    "field_name",
    "guess",
    "propose_task",
    "proposed_grades",
    "require_judged",
    "settle",
]


def propose_task(
    frame: pl.DataFrame, mapping: ImportMapping | None = None, *, name: str = "task", found: Guess | None = None
) -> Task:
    """A task for a file that has none; the columns are guessed where `mapping` does not say.

    Args:
        found: what `guess` says of the file and the mapping, where that is known.

    Raises:
        UsageError: no text column, or no column with two to twelve grades.
    """
    said = mapping or ImportMapping()
    found = found or guess(frame, said)
    require_judged(frame, found)
    if not found.columns:
        raise _no_text(frame, found)
    read = bucketed(frame, said)
    symbols = said.grades or _held(read, found)
    if len(symbols) < 2 or (said.gold and not said.grades and shape.grades_in(read[said.gold]) is None):
        raise _no_grades(frame, found)
    named = {column: field_name(name) for name, column in said.fields.items()}
    fields = {
        column: named.get(column) or name
        for column, name in field_names(frame.columns).items()
        if column in found.columns
    }
    fields = {column: fields[column] for column in found.columns}
    group = found.mapping.group or found.columns[0]
    grades, ordered = proposed_grades(symbols, said=bool(said.grades))
    return Task(
        name=field_name(name).replace("_", "-"),
        group_by=fields.get(group, group),
        fields=tuple(fields.values()),
        grades=grades,
        ordered=ordered,
    )


def classes(task: Task, gold: str | None) -> bool:
    """Whether grades may be the numbers of classes: 0, 1, 2, … in a column that is not called like a scale."""
    numbers = [str(place) for place in range(len(task.grades))]
    if gold is None or any(grade.name for grade in task.grades):
        return False
    return shape.called_class(gold) and len(numbers) > 2 and list(task.symbols) == numbers


def settle(
    frame: pl.DataFrame, mapping: ImportMapping, ask: Callable[[Doubt], tuple[str, ...] | None]
) -> ImportMapping:
    """The mapping with what a person says to each doubt about a file that has no task yet.

    Args:
        ask: gives the column to take; of grades, all of them, lowest first; None leaves the guess.
    """
    said = mapping
    for role in ("group", "gold"):
        doubt = next((d for d in guess(frame, said).doubts if d.role == role), None)
        if doubt and (answer := ask(doubt)):
            said = said.model_copy(update={role: answer[0]})
    task = propose_task(frame, said)
    if not task.ordered and (order := ask(Doubt("grades", "", tuple(g.name or g.symbol for g in task.grades)))):
        said = said.model_copy(update={"grades": order})
    return said


def _held(frame: pl.DataFrame, found: Guess) -> frozenset[str]:
    """The grades that the columns of a file hold."""
    if found.mapping.counts:
        return frozenset(grade_of(found.mapping.counts).values())
    columns = [*found.mapping.raters, *([found.mapping.gold] if found.mapping.gold else [])]
    held = [shape.grades_in(frame[column]) or frozenset() for column in columns]
    symbols = shape.one_spelling(frozenset().union(*held))
    means = shape.fractions(symbols) and all(number(symbol) is not None for symbol in symbols)
    return frozenset() if means or shape.dates(symbols) or len(symbols) > MAX_GRADES else symbols


def _no_text(frame: pl.DataFrame, found: Guess) -> UsageError:
    named = [name for name in frame.columns if shape.identifies(name)]
    if found.mapping.gold and len(named) > 1:
        return UsageError(
            f"No column holds a text: what is judged is named by ids ({', '.join(map(repr, named))}).",
            "Join the texts from tables that have these ids: add --documents FILE, and --queries FILE for the queries.",
        )
    held = "; ".join(f"{name}: {why}" for name, why in list(found.left_out.items())[:6])
    return UsageError(
        f"No column of text for a judge to read was recognised{f' ({held})' if held else ''}.",
        "Name what is to be read: --map field=column, once for each column.",
    )


def require_judged(frame: pl.DataFrame, found: Guess) -> None:
    """Raise `UsageError` when the grades are of what no judge reads.

    So it is where ids alone name it, and where the query alone is a text while its rows differ in their grades.
    """
    group, gold = found.mapping.group, found.mapping.gold
    if not found.columns and gold and sum(map(shape.identifies, frame.columns)) > 1:
        raise _no_text(frame, found)
    if not gold or not group or found.columns != (group,):
        return
    graded = frame.filter(~pl.col(gold).is_in(list(MISSING)))
    several = graded.filter(pl.col(gold).n_unique().over(group) > 1)
    ids = [name for name in frame.columns if shape.names_document(name)]
    shown = f"{len(several):,} of {len(graded):,} rows give one and the same text several grades"
    rows = f"The one text is {group!r}, and {shown}"
    if ids and 2 * len(several) > len(graded):
        raise UsageError(
            f"{rows}: what is judged is named by an id alone, {ids[0]!r}.",
            f"Join its texts from their table: add --documents FILE --on {quote(ids[0])}.",
        )
    if found.left_out and _at_random(graded, group, gold):
        others = [name for name in found.left_out if not shape.identifies(name)] or list(found.left_out)
        read = ",".join([group, *others[:_NAMED]])
        raise UsageError(
            f"{rows}, as if at random: what is judged is in another column.",
            f"Name all that a judge should read, for example --fields {quote(read)}.",
        )


def _at_random(graded: pl.DataFrame, group: str, gold: str) -> bool:
    """Whether two rows of a group agree hardly more than any two rows do; a few hundred pairs are needed to say so."""
    held = graded.select(group, gold)
    sizes = held.group_by(group).len()["len"].cast(pl.Int64)
    alike = held.group_by(group, gold).len()["len"].cast(pl.Int64)
    pairs, agreeing = int((sizes * (sizes - 1)).sum()) // 2, int((alike * (alike - 1)).sum()) // 2
    chance = float(((held[gold].value_counts()["count"] / len(held)) ** 2).sum()) if len(held) else 1.0
    return pairs >= _FEWEST_PAIRS and agreeing / pairs - chance < _NO_AGREEMENT * (1 - chance)


def _no_grades(frame: pl.DataFrame, found: Guess) -> UsageError:
    graded = found.mapping.gold or next(iter(found.mapping.raters), None) or gold_named(frame.columns)
    if graded:
        what, mend = odd_grades(frame[graded])
        return UsageError(f"Column {graded!r} {what}.", mend)
    inside = [name for name in frame.columns if shape.nested(str(frame[name].first()))]
    if inside:
        likeliest = min(inside, key=lambda name: frame[name].n_unique())
        what, mend = odd_grades(frame[likeliest])
        return UsageError(f"No grade column was recognised: {likeliest!r} {what}.", mend)
    if len(frame.columns) == 1:
        return UsageError(
            f"The file has one column ({frame.columns[0][:60]}): no grade stands beside a text.",
            "Give a table. Lines that begin with a label and a blank become one by "
            r"sed -E 's/^([^ ]+) +/\1\t/; 1i label\ttext' FILE > rows.tsv",
        )
    return UsageError(
        f"No grade column was recognised among {', '.join(frame.columns)}.",
        "Name it: --gold COLUMN; or, where nothing is graded yet, the grades, lowest first: --grades 0,1,2.",
    )


def complete(frame: pl.DataFrame, task: Task, mapping: ImportMapping | None = None) -> Guess:
    """Roles of a file's columns for a task that is known: what `mapping` leaves open is guessed.

    A rater may be a pattern (`rater_*`). A guessed column of grades counts when it is called like one and holds a grade
    of the task, or holds nothing else: a row with an unknown grade is then left out alone. What the task groups by is
    never guessed: other groups would be other splits.

    Raises:
        UsageError: no column is the task's group.
    """
    said = mapping or ImportMapping()
    fields = {name: column for name in task.fields if (column := _column_of(name, frame.columns))} | said.fields
    group = said.group or fields.get(task.group_by) or _column_of(task.group_by, frame.columns)
    if not group:
        raise _no_group(task, frame)
    raters = expanded(said.raters, frame.columns)
    found = guess(frame, said.model_copy(update={"fields": fields, "raters": raters, "group": group}))
    held = bucketed(frame, said)
    holds = {name for name in (*found.mapping.raters, found.mapping.gold) if name and _holds(name, held[name], task)}
    chosen = {
        "raters": raters or tuple(name for name in found.mapping.raters if name in holds),
        "gold": said.gold or (found.mapping.gold if found.mapping.gold in holds else None),
    }
    if not all(grade_symbol(name, task) for name in grade_of(found.mapping.counts).values()):
        chosen["counts"] = said.counts
    if not chosen["raters"] and not said.annotator and not chosen.get("counts", found.mapping.counts):
        chosen |= {"annotator": None, "date": said.date}
    reasons = {role: reason for role, reason in found.reasons.items() if role != "fields" and chosen.get(role, True)}
    unused = dict(found.unused)
    if (odd := found.mapping.gold) and not chosen["gold"] and gold_named([odd]):
        strange = ", ".join(in_order(_known_values(frame[odd], task)[1])[:4])
        unused["gold"] = f"{odd}: holds what is no grade of task.toml ({strange})"
    return Guess(found.mapping.model_copy(update=chosen), tuple(fields.values()), reasons, unused, found.left_out)


def _no_group(task: Task, frame: pl.DataFrame) -> UsageError:
    """What to do about a file without the group; another field's name is close to a misspelt one."""
    field = task.group_by in task.fields
    near = [] if field else get_close_matches(task.group_by, task.fields, n=1)
    other = f' If it is misspelt: group_by = "{near[0]}" in task.toml.' if near else ""
    way = f"--map {task.group_by}=COLUMN" if field else "--group COLUMN"
    return UsageError(
        f"task.toml groups by {task.group_by!r}, and the file has no such column: {', '.join(frame.columns)}.",
        f"Name the column that holds it: {way}.{other}",
    )


def _column_of(field: str, columns: list[str]) -> str | None:
    if field in columns:
        return field
    return next((column for column, name in field_names(columns).items() if name == field), None)


def _holds(name: str, column: pl.Series, task: Task) -> bool:
    known, unknown = _known_values(column, task)
    return bool(known) and (not unknown or gold_named([name]) is not None)


def _known_values(column: pl.Series, task: Task) -> tuple[set[str], set[str]]:
    """The distinct values of a column that are grades of the task, and those that are not."""
    values = {bare(value) for value in column.unique().to_list() if not missing(value)}
    known = {value for value in values if grade_symbol(value, task)}
    return known, values - known


def proposed_grades(symbols: Iterable[str], *, said: bool = False) -> tuple[tuple[Grade, ...], bool]:
    """Grades for what a file holds, lowest first, and whether that is an order.

    Numbers keep their value, with the words that stand beside them ("3 - perfect"). Words come as a person said, else
    as the known scale that holds them all; words of no known scale are the alphabet's, and that is no order.

    Args:
        said: the symbols come from a person, lowest first.
    """
    names = list(dict.fromkeys(symbols))
    if (words := shape.captions(names)) and numeric(list(words)):
        return tuple(Grade(symbol=n, name=words[n], value=float(n)) for n in sorted(words, key=float)), True
    if numeric(names):
        by_value = {float(name): re.sub(r"\.0+$", "", name) for name in names}
        return tuple(Grade(symbol=by_value[value], value=value) for value in sorted(by_value)), True
    order = names if said else known_order(names)
    taken: dict[str, str] = {}  # symbol -> name
    for place, name in enumerate(order or sorted(names)):
        symbol = "_".join(name.split())
        fits = len(symbol) <= MAX_SYMBOL and symbol.isprintable() and symbol not in taken
        taken[symbol if fits else str(place)] = name
    return tuple(
        Grade(symbol=symbol, name="" if symbol == name else name, value=place)
        for place, (symbol, name) in enumerate(taken.items())
    ), order is not None
