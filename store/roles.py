"""What each column of a file is for: guessed from its name and values, with the reason."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from shlex import quote
from typing import Literal

import polars as pl

from store import columns as shape
from store import graders
from store.columns import Few, gold_named, in_order, odd_grades
from store.hindsight import hindsight
from store.prepare import SPLIT_NAMES, ImportMapping, bucketing, require
from store.shares import find_shares

_CONTENTS = 1.05  # for one id, on average: titles change now and then
_MOST_CUT = 0.05  # of the rows may be in groups that a column of splits cuts: published sets have a few


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
    said = said.model_copy(update={"raters": expanded(said.raters, frame.columns)})
    require(frame, [said.gold, *said.raters, *said.counts, said.group, *said.fields.values()])
    roles = _Roles(bucketed(frame, said), said)
    roles.find_split()
    roles.find_raters()
    roles.find_gold()
    roles.find_texts()
    roles.find_annotator()
    roles.find_id()
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
        if self.said.raters or self.said.annotator:
            return
        found = graders.raters(self._free(), self.few)
        rated = frozenset().union(*(self.few[name] for name in found))
        if self.said.gold and not shape.one_scale(self.few.get(self.said.gold, frozenset()), rated):
            return
        means = graders.averaged(self.frame.select(self._free()), self.few) if not self.said.gold else None
        if self.said.gold is None and len(found) == 1 and gold_named(self._free()) == found[0]:
            return
        if means and {*found} <= {*means[1]}:
            self._take(raters=means[1])
            self.reasons["raters"] = f"{', '.join(means[1])}: {means[0]} is their mean"
            self.unused["gold"] = f"{means[0]}: a mean of people's grades; --gold {quote(means[0])} takes it"
        elif found:
            self._take(raters=found)
            self.reasons["raters"] = f"{', '.join(found)}: named like raters, {len(self.few[found[0]])} distinct values"

    def find_gold(self) -> None:
        if self.said.gold:
            return
        if "gold" in self.unused:
            return
        rated = frozenset().union(*(self.few.get(name) or () for name in self.mapping.raters))
        some = [name for name in self._free() if self.few.get(name)]
        if self.said.annotator:  # what else stands on the row is that person's too
            some = [name for name in some if shape.settled(name)]
        many = [name for name in some if len(self.few[name]) >= 2]
        named = gold_named(many) or gold_named(some)
        held = self.few[named] if named else frozenset()
        if named and rated and not shape.one_scale(held, rated):
            strange = ", ".join(in_order(held - rated)[:4])
            self.unused["gold"] = f"{named}: no rater gives such grades ({strange}); --gold {quote(named)} takes it"
        elif named:
            self._take(gold=named)
        elif not rated:
            self._find_unnamed_gold(many)
        if passed := gold_named(name for name in self._free() if name not in self.few):
            why, mend = odd_grades(self.frame[passed])
            option = re.search(r"--(?:bucket-grades|cuts [\d.,]*\d)", mend)
            takes = f"; --gold {quote(passed)} {option[0]} takes it" if option else ""
            self.unused.setdefault("gold", f"{passed}: {why}{takes}")
        if gold := self.mapping.gold:
            held = self.few[gold]
            whose = "; called like what a model said" if shape.by_machine(gold) else ""
            self.reasons["gold"] = f"{gold}: {len(held)} distinct values ({', '.join(in_order(held)[:6])}){whose}"

    def _find_unnamed_gold(self, many: list[str]) -> None:
        shares = self.said.counts or find_shares(self.frame, self._free())
        passed = (shape.asks, shape.identifies, shape.tells_state, graders.is_about_people,
                  lambda n: shape.all_differ(self.frame[n]))  # fmt: skip
        likely = [name for name in many if not any(called(name) for called in passed)]
        likely = [name for name in likely if shape.answers(name)] or likely
        if (odd := gold_named(self._free())) and (shape.called_gold(odd) or not likely):
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
        texts = [name for name in free if why[name] is None]
        why |= {name: f"the words of {of}" for name, of in shape.copies(self.frame, texts).items()}
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
        m = self.mapping
        if self.said.annotator or self.said.gold or m.raters or not (m.gold or self._one_hot(m.counts)):
            return
        free = self._free()
        if who := graders.annotator(self.frame, free, self.texts):
            when = self.said.date or shape.date(self.frame, free)
            self._take(annotator=who, raters=(m.gold,) if m.gold else (), gold=None, date=when)
            self.reasons["annotator"] = f"{who}: one row a label, {self.frame[who].n_unique():,} people"
            if m.gold:
                self.reasons["raters"] = f"{m.gold}: {self.reasons.pop('gold').partition(': ')[2]}"

    def _one_hot(self, counts: Sequence[str]) -> bool:
        """Whether each row marks one grade at most: what one person said."""
        marks = {"0", "1", "0.0", "1.0", "true", "false", ""}
        return bool(counts) and all(set(self.frame[name].str.to_lowercase().unique()) <= marks for name in counts)

    def find_id(self) -> None:
        """The owner's own id: of what is judged, where one stands for one content; else one that no two rows share."""
        ids = [name for name in self._free() if shape.identifies(name) and name not in self.texts]
        judged = [name for name in self.texts if name != self.mapping.group] or list(self.texts)
        documents = [name for name in ids if shape.names_document(name) and self._is_of(name, judged)]
        rows = [name for name in ids if not shape.names_group(name) and shape.all_differ(self.frame[name])]
        if not self.said.id and (own := next(iter([*documents, *rows]), None)):
            self._take(id=own)
            self.reasons["id"] = f"{own}: kept beside ours, so that what is exported goes by it"

    def _is_of(self, name: str, texts: Sequence[str]) -> bool:
        """Whether a value of a column stands for one content, but for a few."""
        return self.frame.select(name, *texts).n_unique() <= _CONTENTS * self.frame[name].n_unique()

    def leave_out(self) -> None:
        """Columns without any role are named with a reason."""
        idle = {*self._free()} - {*self.texts} - {*self.unused}
        self.left_out = {name: self.left_out.get(name, "no role") for name in self.frame.columns if name in idle}

    def _check_split(self, group: str | None) -> None:
        split = self.mapping.split
        if not split or self.said.split:
            return
        cut = _cut(self.frame, group, split)
        if cut > _MOST_CUT * len(self.frame):
            self._take(split=None)
            self.unused["split"] = f"{split}: cuts through groups; --split {quote(split)} takes it all the same"
        elif cut:
            self.reasons["split"] = f"{split}: cuts through a few groups; what lies outside the most of one is left out"


def bucketed(frame: pl.DataFrame, said: ImportMapping) -> pl.DataFrame:
    """The frame as grades are to be read: the nearest whole ones, or classes, where that was asked for."""
    change = bucketing(said)
    names = [said.gold or gold_named(frame.columns), *said.raters] if change else []
    known = [name for name in names if name]
    return frame.with_columns(pl.Series(n, [change(v) for v in frame[n].to_list()], pl.String) for n in known if change)


def expanded(patterns: tuple[str, ...], columns: list[str]) -> tuple[str, ...]:
    """The columns that each pattern (`rater_*`) matches; a pattern that matches none stays as it is."""
    matching = ([c for c in columns if fnmatchcase(c, pattern)] or [pattern] for pattern in patterns)
    return tuple(dict.fromkeys(name for names in matching for name in names))


def _cut(frame: pl.DataFrame, group: str | None, split: str) -> int:
    """How many rows are in groups that lie in several splits."""
    if group is None or group not in frame.columns:
        return len(frame)
    return int((frame.select(pl.col(split).n_unique().over(group)).to_series() > 1).sum())
