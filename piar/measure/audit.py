"""`piar audit`: does a judge change its mind when nothing that matters has changed? Each probe beside its own noise.

Every row is asked twice as it is, and once under each probe. A row counts +1 where the probe's answer differs from the
first one, less 1 where the second one does. Without an effect the probe's answer and the second one can be exchanged,
so the sign of a group's sum can, too: the sign-flip test by group is exact, however noisy the judge. The mean grade is
compared between the probe's answers and the second ones in the same way, to both sides. Holm's correction covers all
tests of an audit. Chosen by us: these anchors, and that one audit is one family.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from piar.measure.audit_plan import LEVEL, Plan, least_detectable
from piar.measure.audited_judges import AGAIN, FIRST, Audited, Grades, Parts
from piar.measure.probes import Probe, Question
from store.judges import Judge
from store.stats import (
    Floats,
    Gain,
    GroupBootstrap,
    Interval,
    Ints,
    group_codes,
    group_sums,
    holm,
    ratio,
    sign_flip_test,
)
from store.task import Task

UNREADABLE = "no answer could be read"
PLANTINGS = 100
SHOWN = 5  # changed rows that are kept to be looked at
TWICE, CONTROL = AGAIN


@dataclass(frozen=True, slots=True)
class Changed:
    """A row whose grade a probe changed, though asking twice did not."""

    sample_id: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change does to the answers, each with its p-value before any correction.

    Attributes:
        flips: share of rows that change beyond the noise, by group; one-sided.
        shift: mean change of the grade against the second answer, in grades, by group; two-sided. None where grades
            have no order.
    """

    flips: Gain
    shift: Gain | None

    @property
    def p_values(self) -> list[float]:
        """Of its tests."""
        return [gain.p_value for gain in (self.flips, self.shift) if gain is not None]

    @property
    def size(self) -> float:
        """The larger one of both: a share of rows, or grades."""
        return max(self.flips.mean, abs(self.shift.mean) if self.shift else 0.0)


@dataclass(frozen=True, slots=True)
class Probed:
    """What one probe found.

    Attributes:
        name, words, expects: of the probe.
        rows, groups: that it changed, that could move, and that answered all three times.
        unanswered: rows without a readable grade under the probe.
        noise: share of these rows that change when asked twice.
        effect: of the change.
        p_value: the smallest of its tests, corrected over all tests of the audit; None where nothing is tested.
        found: whether it is shown at the level of the audit.
        detectable: the smallest share of rows that these rows find, as of `Plan`, with the noise that was measured.
        examples: rows to look at.
    """

    name: str
    words: str
    expects: Literal["same", "any"]
    rows: int
    groups: int
    unanswered: int
    noise: float
    effect: Effect
    p_value: float | None
    found: bool
    detectable: float | None
    examples: tuple[Changed, ...] = ()


@dataclass(frozen=True, slots=True)
class Control:
    """Whether this audit sees what is there: all rows asked a third time, and a bias planted in what was said.

    Attributes:
        planted: share of the answers that were moved by one grade.
        found, plantings: how many of so many plantings are found at the audit's strictest level.
        clean: nothing is found in the third answers as they are.
    """

    planted: float
    found: int
    plantings: int
    clean: bool


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        noise: share of the rows that change when asked twice, by group.
        plan: what was expected of it.
        probes: in the order of the table.
        left_out: probe -> why it shows nothing of this judge.
        control: None where it was not wanted.
        unanswered: rows without a readable grade at first or when asked again; no probe counts them.
        said: grade -> rows that it gave it to at first. Where one has nearly all, hardly anything can move.
        unpaid: answers that the budget did not reach.
    """

    judge: Judge
    noise: Interval
    plan: Plan
    probes: tuple[Probed, ...]
    left_out: dict[str, str]
    control: Control | None
    unanswered: int
    said: dict[str, int]
    unpaid: int = 0

    @property
    def found(self) -> tuple[Probed, ...]:
        """The probes that found something."""
        return tuple(probe for probe in self.probes if probe.found)


def altered(probe: Probe, questions: Sequence[Question]) -> dict[int, Question]:
    """Place of a question -> the question as a probe changes it, where it does."""
    made = {place: probe.alter(asked) for place, asked in enumerate(questions)}
    return {place: asked for place, asked in made.items() if asked is not None}


def parts(questions: Sequence[Question], probes: Sequence[Probe], *, control: bool = True) -> Parts:
    """All that an audit would ask at most."""
    again = dict.fromkeys((FIRST, TWICE, CONTROL) if control else (FIRST, TWICE), questions)
    return {**again, **{probe.name: list(altered(probe, questions).values()) for probe in probes}}


def audit(
    judge: Audited,
    questions: Sequence[Question],
    probes: Sequence[Probe],
    planned: Plan,
    *,
    control: bool = True,
    seed: int = 0,
) -> Audit:
    """Ask a judge, and measure.

    Args:
        questions: unaltered, one at least.
        control: ask them all a third time, and plant an effect of the planned size.
        seed: of intervals and plantings.
    """
    task = questions[0].task
    first = _positions(judge.grades({FIRST: questions})[FIRST], task)
    chosen = {probe.name: _asked(judge, questions, first, probe) for probe in probes}
    left_out = {name: why for name, why in chosen.items() if isinstance(why, str)}
    asked = {name: rows for name, rows in chosen.items() if not isinstance(rows, str)}
    wanted = {kind: dict(enumerate(questions)) for kind in ((TWICE, CONTROL) if control else (TWICE,))} | asked
    grades = judge.grades({kind: list(rows.values()) for kind, rows in wanted.items()})
    said = {kind: _placed(grades[kind], rows, len(questions), task) for kind, rows in wanted.items()}
    rows = _Rows.of(questions, first, said[TWICE], seed)
    found = [
        _probed(rows, probe, asked[probe.name], said[probe.name], planned.tests)
        for probe in probes
        if probe.name in asked
    ]
    return Audit(
        judge.judge,
        rows.noise(),
        planned,
        tuple(_corrected([probe for probe in found if probe.rows])),
        left_out | {probe.name: UNREADABLE for probe in found if not probe.rows},
        _controlled(rows, said[CONTROL], planned) if control else None,
        len(questions) - len(rows.answered(rows.second)),
        {symbol: int((first == place).sum()) for place, symbol in enumerate(task.symbols)},
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """The questions, and what the judge said of them twice, as positions on the scale; -1 for no answer."""

    questions: Sequence[Question]
    first: Ints
    second: Ints
    codes: Ints
    groups: int
    bootstrap: GroupBootstrap
    seed: int

    @classmethod
    def of(cls, questions: Sequence[Question], first: Ints, second: Ints, seed: int) -> "_Rows":
        codes, groups = group_codes([asked.sample.group for asked in questions])
        return cls(questions, first, second, codes, groups, GroupBootstrap(groups, seed=seed), seed)

    def answered(self, said: Ints) -> Ints:
        """Places that were answered twice, and a third time."""
        return np.flatnonzero((self.first >= 0) & (self.second >= 0) & (said >= 0))

    def sizes(self, places: Ints) -> list[int]:
        """How many of these places each group has, those that have any."""
        return [size for size in np.bincount(self.codes[places]).tolist() if size]

    def noise(self) -> Interval:
        """Share of the rows that change when asked twice."""
        places = self.answered(self.second)
        return self._interval(self._sums(places, self.first[places] != self.second[places]), 0)

    def effect(self, places: Ints, said: Ints) -> Effect:
        """Of what was said at these places the third time."""
        sums, tests = self._changes(places, said), self.p_values(places, said)
        found = [self._interval(sums, column) for column in range(len(tests))]
        gains = [
            Gain(mean=f.value or 0.0, low=f.low, high=f.high, p_value=p) for f, p in zip(found, tests, strict=True)
        ]
        return Effect(gains[0], gains[1] if len(gains) > 1 else None)

    def p_values(self, places: Ints, said: Ints) -> list[float]:
        """Of the tests behind an effect: more changes, and where grades have an order a mean that moved either way."""
        more, up, _ = self._changes(places, said).T
        tests = [sign_flip_test(more, seed=self.seed)]
        if self.questions[0].task.ordered:
            tests.append(min(1.0, 2 * min(sign_flip_test(side * up, seed=self.seed) for side in (1, -1))))
        return tests

    def _changes(self, places: Ints, said: Ints) -> Floats:
        first, second, after = self.first[places], self.second[places], said[places]
        return self._sums(places, (after != first).astype(int) - (second != first), after - second)

    def _sums(self, places: Ints, *columns: ArrayLike) -> Floats:
        """Sums by group (G, S + 1) of values at these places, and of the places."""
        return group_sums(np.stack([*columns, np.ones(len(places))], axis=1), self.codes[places], self.groups)

    def _interval(self, sums: Floats, column: int) -> Interval:
        return self.bootstrap.interval(sums[:, [column, -1]], ratio)


def _asked(judge: Audited, questions: Sequence[Question], first: Ints, probe: Probe) -> dict[int, Question] | str:
    """The questions that a probe changes for this judge and whose answers may move, by place; or why there are none."""
    changed = altered(probe, questions)
    if not changed:
        return "no row has what it would change"
    before = judge.shown([questions[place] for place in changed])
    after = judge.shown(list(changed.values()))
    read = [place for place, a, b in zip(changed, before, after, strict=True) if a != b]
    if not read:
        return "this judge reads the same either way"
    highest = len(questions[0].task.symbols) - 1
    movable = [place for place in read if first[place] >= 0 and not (probe.upward and first[place] == highest)]
    if not movable:
        return "every row has the highest grade already, or none"
    return {place: changed[place] for place in movable}


def _placed(grades: Grades, places: Iterable[int], count: int, task: Task) -> Ints:
    """Positions on the scale by place of the question, -1 where nothing was asked or said."""
    said = np.full(count, -1, dtype=np.int64)
    said[list(places)] = _positions(grades, task)
    return said


def _positions(grades: Grades, task: Task) -> Ints:
    place = {symbol: at for at, symbol in enumerate(task.symbols)}
    return np.array([place.get(grade or "", -1) for grade in grades], dtype=np.int64)


def _probed(rows: _Rows, probe: Probe, asked: Collection[int], said: Ints, tests: int) -> Probed:
    """What a probe found, before any correction."""
    places, symbols = rows.answered(said), rows.questions[0].task.symbols
    sizes = rows.sizes(places)
    stayed = rows.first[places] == rows.second[places]
    noise = float(np.mean(~stayed)) if len(places) else 0.0
    moved = places[stayed & (said[places] != rows.first[places])]
    return Probed(
        probe.name,
        probe.words,
        probe.expects,
        len(places),
        len(sizes),
        len(asked) - len(places),
        noise,
        rows.effect(places, said),
        None,
        False,
        least_detectable(sizes, noise, tests) if probe.expects == "same" else None,
        tuple(Changed(rows.questions[p].sample.id, symbols[rows.first[p]], symbols[said[p]]) for p in moved[:SHOWN]),
    )


def _corrected(found: Sequence[Probed]) -> list[Probed]:
    """With p-values corrected over the tests of all probes that expect the same grade."""
    tests = [(probe.name, p) for probe in found if probe.expects == "same" for p in probe.effect.p_values]
    adjusted: dict[str, float] = {}
    for (name, _), p in zip(tests, holm([p for _, p in tests]), strict=True):
        adjusted[name] = min(p, adjusted.get(name, 1.0))
    return [
        replace(probe, p_value=adjusted.get(probe.name), found=adjusted.get(probe.name, 1.0) <= LEVEL)
        for probe in found
    ]


def _controlled(rows: _Rows, third: Ints, planned: Plan) -> Control:
    """Plant an effect of the planned size in the third answers, again and again."""
    places, highest = rows.answered(third), len(rows.questions[0].task.symbols) - 1
    level, draw = LEVEL / planned.tests, np.random.default_rng(rows.seed)
    seen, size = 0, round(planned.wanted * len(places))
    for _ in range(PLANTINGS):
        said, moved = third.copy(), draw.permutation(places)[:size]
        said[moved] += np.where(third[moved] < highest, 1, -1)
        seen += min(rows.p_values(places, said)) <= level
    share = size / len(places) if len(places) else 0.0
    return Control(share, seen, PLANTINGS, min(rows.p_values(places, third)) > level)
