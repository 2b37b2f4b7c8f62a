"""What a file's columns are, guessed from their names and values; each guess with its reason, to be shown."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

import polars as pl

from store import columns as shape
from store.cells import bare, grade_symbol, missing, number, rounded
from store.columns import MAX_GRADES, Few, gold_named, in_order, odd_grades
from store.errors import UsageError
from store.field_names import field_name, field_names
from store.hindsight import hindsight
from store.prepare import SPLIT_NAMES, ImportMapping, require
from store.scales import known_order, numeric
from store.shares import find_shares, grade_of
from store.task import MAX_SYMBOL, Grade, Task

__all__ = [
    "MAX_GRADES",
    "Doubt",
    "Guess",
    "complete",
    "field_name",
    "guess",
    "propose_task",
    "proposed_grades",
    "settle",
]


@dataclass(frozen=True, slots=True)
class Doubt:
    """A guess that may well be wrong.

    Attributes:
        role: what the column was taken for.
        taken: the column that was taken.
        choices: the columns that it may be, the taken one first; for `grades`, the grades, which have no known order.
    """

    role: Literal["gold", "group", "grades"]
    taken: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Guess:
    """Columns by role.

    Attributes:
        columns: those of the fields.
        reasons: role -> why a column was guessed to have it.
        unused: role -> the column that is named as if it had it, and why it was passed over.
        left_out: columns that are no field and have no role -> why.
        doubts: guesses that a person should look at.
    """

    mapping: ImportMapping
    columns: tuple[str, ...]
    reasons: dict[str, str]
    unused: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    doubts: tuple[Doubt, ...] = ()


def guess(frame: pl.DataFrame, mapping: ImportMapping | None = None) -> Guess:
    """Roles of the columns; what `mapping` names is taken as said.

    Args:
        frame: text columns, as `read_table` gives them.

    Raises:
        UsageError: a named column is not there.
    """
    said = mapping or ImportMapping()
    said = said.model_copy(update={"raters": _expanded(said.raters, frame.columns)})
    require(frame, [said.gold, *said.raters, *said.counts, said.group, *said.fields.values()])
    roles = _Roles(_bucketed(frame, said), said)
    roles.find_split()
    roles.find_raters()
    roles.find_gold()
    roles.find_texts()
    roles.find_annotator()
    roles.leave_out()
    return Guess(roles.mapping, roles.texts, roles.reasons, roles.unused, roles.left_out, tuple(roles.doubts.values()))


class _Roles:
    """The roles of one file's columns while they are found, one after the other."""

    def __init__(self, frame: pl.DataFrame, said: ImportMapping) -> None:
        self.frame, self.said, self.mapping = frame, said, said
        self.few: Few = shape.few_values(frame)
        self.texts = tuple(said.fields.values())
        self.reasons: dict[str, str] = {}
        self.unused: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.doubts: dict[str, Doubt] = {}

    def _take(self, **roles: object) -> None:
        self.mapping = self.mapping.model_copy(update=roles)

    def _free(self) -> list[str]:
        """Columns that have no role yet."""
        m = self.mapping
        taken = {
            *m.fields.values(),
            *m.raters,
            *m.counts,
            m.gold,
            m.group,
            m.annotator,
            m.date,
            m.split,
            m.id,
            m.inclusion,
            m.weight,
        }
        return [name for name in self.frame.columns if name not in taken]

    def find_split(self) -> None:
        named = (n for n in self._free() if self.few.get(n) and {v.lower() for v in self.few[n]} <= set(SPLIT_NAMES))
        if self.said.split is None and (split := next(named, None)):
            self._take(split=split)

    def find_raters(self) -> None:
        found = () if self.said.raters or self.said.annotator else shape.raters(self._free(), self.few)
        if found and self.said.gold is None and len(found) == 1 and gold_named(self._free()) == found[0]:
            return
        if found:
            self._take(raters=found)
            self.reasons["raters"] = f"{', '.join(found)}: named like raters, {len(self.few[found[0]])} distinct values"

    def find_gold(self) -> None:
        if self.said.gold:
            return
        rated = frozenset().union(*(self.few.get(name) or () for name in self.mapping.raters))
        many = [n for n in self._free() if len(self.few.get(n, ())) >= 2]
        named = gold_named(many) or gold_named(name for name in self._free() if self.few.get(name))
        held = self.few[named] if named else frozenset()
        if named and rated and not shape.one_scale(held, rated):
            strange = ", ".join(in_order(held - rated)[:4])
            self.unused["gold"] = f"{named}: holds grades that no rater gives ({strange}); --gold {named} takes it"
        elif named:
            self._take(gold=named)
        elif not rated:
            self._find_unnamed_gold(many)
        if gold := self.mapping.gold:
            held = self.few[gold]
            whose = "; called like what a model said" if shape.by_machine(gold) else ""
            self.reasons["gold"] = f"{gold}: {len(held)} distinct values ({', '.join(in_order(held)[:6])}){whose}"

    def _find_unnamed_gold(self, many: list[str]) -> None:
        shares = self.said.counts or find_shares(self.frame, self._free())
        likely = [n for n in many if not (shape.asks(n) or shape.identifies(n) or shape.all_differ(self.frame[n]))]
        if odd := gold_named(self._free()):
            self.unused["gold"] = f"{odd}: {odd_grades(self.frame[odd])[0]}"
        elif shares:
            self._take(counts=shares)
            self.reasons["counts"] = f"{', '.join(shares)}: they add up; votes or probabilities of one grade each"
        elif likely:
            self._take(gold=likely[-1])
            if len(likely) > 1:
                self.doubts["gold"] = Doubt("gold", likely[-1], tuple(reversed(likely)))

    def find_texts(self) -> None:
        free, said_group = self._free(), self.said.group
        why = {name: shape.no_text(self.frame, name) for name in free}
        plain = [name for name in free if why[name] is None]
        handles = [name for name in free if why[name] == "ids or addresses"]
        group, sure = shape.group(self.frame, free, plain or handles) if not said_group else (said_group, True)
        if not group and self.texts:
            group = min(self.texts, key=lambda name: self.frame[name].n_unique())
        if group and not said_group:
            self._take(group=group)
            shown = f"{self.frame[group].n_unique():,} distinct values on {len(self.frame):,} rows"
            self.reasons["group"] = f"{group}: {shown}"
            if not sure and len(plain) > 1:
                self.doubts["group"] = Doubt("group", group, (group, *(n for n in plain if n != group)))
        if not self.said.fields:
            self._find_fields(plain or handles, group)
        self.left_out = {name: reason for name, reason in why.items() if reason and name not in (*self.texts, group)}
        self._check_split(group)

    def _find_fields(self, plain: list[str], group: str | None) -> None:
        """A group that a judge can read is read, however few its values are."""
        texts = list(plain)
        if group and group not in texts and self._is_read(group):
            texts = [name for name in self.frame.columns if name in texts or name == group]
        grade = self.mapping.gold or next(iter(self.mapping.raters), None)
        known = hindsight(self.frame, texts, group, grade)
        self.texts = tuple(name for name in texts if name not in known)
        self.unused |= {name: f"{name}: {why}, so no judge reads it; --fields takes it" for name, why in known.items()}
        self.reasons["fields"] = f"{', '.join(self.texts)}: text"

    def _is_read(self, group: str) -> bool:
        if shape.asks(group):
            return True
        why = shape.no_text(self.frame, group)
        return why is None or (why.endswith(("value", "values")) and not shape.identifies(group))

    def find_annotator(self) -> None:
        """One row a label: the grades are people's, and who they are stands beside."""
        if self.said.annotator or self.said.gold or self.mapping.raters or not self.mapping.gold:
            return
        free = self._free()
        if who := shape.annotator(self.frame, free, self.texts):
            when = self.said.date or shape.date(self.frame, free)
            self._take(annotator=who, raters=(self.mapping.gold,), gold=None, date=when)
            self.reasons["annotator"] = f"{who}: one row a label, {self.frame[who].n_unique():,} people"
            self.reasons["raters"] = f"{self.mapping.raters[0]}: {self.reasons.pop('gold').partition(': ')[2]}"

    def leave_out(self) -> None:
        """Columns without any role are named with a reason."""
        idle = {*self._free()} - {*self.texts} - {*self.unused}
        self.left_out = {name: self.left_out.get(name, "no role") for name in self.frame.columns if name in idle}

    def _check_split(self, group: str | None) -> None:
        split = self.mapping.split
        if split and not self.said.split and not _whole_groups(self.frame, group, split):
            self._take(split=None)
            self.unused["split"] = f"{split}: cuts through groups; --split {split} takes it all the same"


def _bucketed(frame: pl.DataFrame, said: ImportMapping) -> pl.DataFrame:
    """The frame as grades are to be read: the nearest whole ones where that was asked for."""
    names = [said.gold or gold_named(frame.columns), *said.raters] if said.bucket_grades else []
    known = [name for name in names if name]
    return frame.with_columns(pl.Series(n, [rounded(v) for v in frame[n].to_list()], pl.String) for n in known)


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
    if not found.columns:
        raise _no_text(frame, found)
    symbols = said.grades or _held(_bucketed(frame, said), found)
    if len(symbols) < 2:
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
    held = "; ".join(f"{name}: {why}" for name, why in list(found.left_out.items())[:6])
    return UsageError(
        f"No column of text for a judge to read was recognised{f' ({held})' if held else ''}.",
        "Name what is to be read: --map field=column, once for each column.",
    )


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
    return UsageError(
        f"No grade column was recognised among {', '.join(frame.columns)}.",
        "Name it: --gold COLUMN; or, where nothing is graded yet, the grades, lowest first: --grades 0,1,2.",
    )


def complete(frame: pl.DataFrame, task: Task, mapping: ImportMapping | None = None) -> Guess:
    """Roles of a file's columns for a task that is known: what `mapping` leaves open is guessed.

    A rater may be a pattern (`rater_*`). A guessed column of grades counts when it is called like one and holds a grade
    of the task, or holds nothing else: a row with an unknown grade is then left out alone.
    """
    said = mapping or ImportMapping()
    fields = {name: column for name in task.fields if (column := _column_of(name, frame.columns))} | said.fields
    group = said.group or _column_of(task.group_by, frame.columns)
    raters = _expanded(said.raters, frame.columns)
    found = guess(frame, said.model_copy(update={"fields": fields, "raters": raters, "group": group}))
    held = _bucketed(frame, said)
    holds = {name for name in (*found.mapping.raters, found.mapping.gold) if name and _holds(name, held[name], task)}
    chosen = {
        "raters": raters or tuple(name for name in found.mapping.raters if name in holds),
        "gold": said.gold or (found.mapping.gold if found.mapping.gold in holds else None),
    }
    if not all(grade_symbol(name, task) for name in grade_of(found.mapping.counts).values()):
        chosen["counts"] = said.counts
    if not chosen["raters"] and not said.annotator:
        chosen |= {"annotator": None, "date": said.date}
    reasons = {role: reason for role, reason in found.reasons.items() if role != "fields" and chosen.get(role, True)}
    unused = dict(found.unused)
    if (odd := found.mapping.gold) and not chosen["gold"] and gold_named([odd]):
        strange = ", ".join(in_order(_known_values(frame[odd], task)[1])[:4])
        unused["gold"] = f"{odd}: holds what is no grade of task.toml ({strange})"
    return Guess(found.mapping.model_copy(update=chosen), tuple(fields.values()), reasons, unused, found.left_out)


def _column_of(field: str, columns: list[str]) -> str | None:
    if field in columns:
        return field
    return next((column for column, name in field_names(columns).items() if name == field), None)


def _expanded(patterns: tuple[str, ...], columns: list[str]) -> tuple[str, ...]:
    """The columns that each pattern (`rater_*`) matches; a pattern that matches none stays as it is."""
    matching = ([c for c in columns if fnmatchcase(c, pattern)] or [pattern] for pattern in patterns)
    return tuple(dict.fromkeys(name for names in matching for name in names))


def _holds(name: str, column: pl.Series, task: Task) -> bool:
    known, unknown = _known_values(column, task)
    return bool(known) and (not unknown or gold_named([name]) is not None)


def _known_values(column: pl.Series, task: Task) -> tuple[set[str], set[str]]:
    """The distinct values of a column that are grades of the task, and those that are not."""
    values = {bare(value) for value in column.unique().to_list() if not missing(value)}
    known = {value for value in values if grade_symbol(value, task)}
    return known, values - known


def _whole_groups(frame: pl.DataFrame, group: str | None, split: str) -> bool:
    """Whether each group lies in one split: only then can a column be taken for a split without being named."""
    return (
        group is not None
        and group in frame.columns
        and not (frame.group_by(group).agg(pl.col(split).n_unique() > 1)[split].any())
    )


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
