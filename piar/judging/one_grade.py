"""Noticing a teacher that gives one grade to nearly everything, while it runs.

For each grade g the first answer on each group is a bet against "it says g of a share p of the groups at most", p the
upper bound by group of the share that gold has, else people's votes, else the judge's earlier verdicts. The stakes are
those of Wald's likelihood ratio (1945) for the share `NEARLY_ALL`: the odds are multiplied by NEARLY_ALL / p at an
answer g, else by (1 - NEARLY_ALL) / (1 - p). By Ville's inequality they reach K / `ALPHA` for one of K grades with a
chance of `ALPHA` at most, however long one looks. Where one grade truly dominates, p leaves nothing to win.

Chosen by us: groups as what is bet on (rows of one group are alike), and both constants.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from store.calibrated import kept
from store.db import Store
from store.judges import Judge
from store.stats import FEWEST, Floats, GroupBootstrap, ratio
from store.types import Verdict

NEARLY_ALL = 0.99
ALPHA = 0.01
_TAIL = 0.025
# Of at most so many answers, always the same ones: the views that say which of them count read all there are.
_SOME = "using sample reservoir(50000 rows) repeatable (0)"
_LABELS = f"""
with said as (from (select sample_id, grade from labels where source = $source and grade is not null) {_SOME})
select s.group_key, t.grade, count(*) as n from said t join samples s using (sample_id)
where s.split in ('train', 'dev') and s.origin = 'import' group by all"""
_EARLIER = f"""
with said as (from (select sample_id, grade from verdicts where judge = $judge and instruction <> $instruction
                    and vote = 0 and grade is not null) {_SOME})
select s.group_key, v.grade, count(*) as n from said v join samples s using (sample_id) group by all"""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a judge's answers are compared with: each grade's share and its upper bound by group."""

    whose: str
    share: Floats
    most: Floats

    @property
    def won(self) -> Floats:
        """What an answer adds to the logarithm of its grade's odds; 0 where there is nothing to win."""
        return np.log(NEARLY_ALL / np.minimum(self.most, NEARLY_ALL))

    @property
    def lost(self) -> Floats:
        """What it adds to that of every other grade; at most 0."""
        out: Floats = np.log((1 - NEARLY_ALL) / (1 - np.minimum(self.most, NEARLY_ALL)))
        return out


@dataclass(slots=True)
class _Run:
    """What one instruction has brought so far: groups that answered, first answers, the odds for each grade."""

    expected: Expected | None
    odds: Floats
    groups: set[str] = field(default_factory=set)
    said: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    answers: int = 0


class OneGrade:
    """Looks at first votes as they come.

    Args:
        judge: as verdicts name it.
    """

    def __init__(self, store: Store, judge: str) -> None:
        self._store, self._judge, self._symbols = store, judge, store.task.symbols
        self._runs: dict[str, _Run] = {}
        self._truth = _shares_of(store, "gold says so", _LABELS, {"source": "gold"})
        self._truth = self._truth or _shares_of(store, "people say so", _LABELS, {"source": "human"})
        self._told = False

    def begin(self, instructions: Iterable[str]) -> None:
        """Learn what is known before answers under these come; the store is asked here, and not while they do."""
        for instruction in instructions:
            if instruction not in self._runs:
                judge = Judge(self._judge, instruction)
                mended = kept(self._store, judge) is not None
                earlier = {"judge": judge.name, "instruction": instruction}
                known = self._truth or _shares_of(self._store, "it said so earlier", _EARLIER, earlier)
                self._runs[instruction] = _Run(None if mended else known, np.zeros(len(self._symbols)))

    def see(self, verdict: Verdict, group: str) -> str | None:
        """Count an answer under an instruction that was begun; what to tell, once, when nearly all are one grade.

        Args:
            group: of the sample; empty where it has none, and is its own.
        """
        if self._told or verdict.vote or verdict.grade not in self._symbols:
            return None
        run = self._runs.get(verdict.instruction)
        if run is None or run.expected is None:
            return None
        run.answers += 1
        run.said[verdict.grade] += 1
        name = group or verdict.sample_id
        if name in run.groups:
            return None
        run.groups.add(name)
        here = self._symbols.index(verdict.grade)
        run.odds += run.expected.lost
        run.odds[here] += run.expected.won[here] - run.expected.lost[here]
        if run.odds[here] < math.log(len(self._symbols) / ALPHA):
            return None
        self._told = True
        return self._words(run, run.expected, here, probs=verdict.probs is not None)

    def _words(self, run: _Run, known: Expected, here: int, *, probs: bool) -> str:
        grade = self._symbols[here]
        share = 100 * run.said[grade] / run.answers
        said = f"{self._judge} says {grade!r} of {share:.0f} % of {run.answers:,} samples in {len(run.groups):,} groups"
        than = f"{known.whose} of {100 * known.share[here]:.0f} %, of {100 * known.most[here]:.0f} % at most"
        return f"{said}; {than}. {_WITH_PROBS if probs else _WITHOUT}"


_WITH_PROBS = (
    "Its probabilities may know better: `piar calibrate` corrects them where truth shows that it helps. "
    "Else give examples of the other grades in instruction.md, or name another model under [teacher]."
)
_WITHOUT = (
    "Give examples of the other grades in instruction.md, or name another model under [teacher]; "
    "with log-probabilities, `piar calibrate` could correct it."
)


def _shares_of(store: Store, whose: str, query: str, values: dict[str, str]) -> Expected | None:
    """The grades' shares by group; None where too few groups say anything."""
    with store.read() as con:
        rows = con.execute(query, values).fetchall()
    few = len({group for group, _, _ in rows}) < FEWEST
    return None if few else _shares(whose, rows, store.task.symbols)


def _shares(whose: str, rows: list[tuple[str, str, int]], symbols: tuple[str, ...]) -> Expected:
    place = {group: i for i, group in enumerate(sorted({group for group, _, _ in rows}))}
    counts = np.zeros((len(place), len(symbols)))
    for group, grade, n in rows:
        counts[place[group], symbols.index(grade)] += n
    bootstrap, total = GroupBootstrap(len(place)), counts.sum(axis=1)
    bounds = [bootstrap.interval(np.stack([column, total], axis=1), ratio) for column in counts.T]
    # Where no group has a grade, or all have it alone: what so many groups could have hidden (exact).
    unseen = 1 - _TAIL ** (1 / len(place))
    share = np.array([bound.value or 0.0 for bound in bounds])
    most = np.array([bound.high if bound.high is not None else max(bound.value or 0.0, unseen) for bound in bounds])
    return Expected(whose, share, np.clip(most, unseen, 1.0))
