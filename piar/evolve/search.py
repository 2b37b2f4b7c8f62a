"""Searching among candidates on dev: what each scores, and how they race.

Races are a table of named strategies; `[evolve]` says which. Decisions fall at block barriers only, on results in a
fixed order, so that the order in which answers arrive changes nothing.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from piar.evolve.inputs import Inputs
from piar.evolve.purse import BudgetSpent, Purse
from piar.evolve.resume import RunLog
from piar.evolve.revision import Revision
from piar.evolve.truth import Truth
from piar.judging.labeller import Labeller
from piar.judging.requests import Assignment
from store.errors import PiarError
from store.gain_metrics import METRICS, Metric, rows_of
from store.stats import Floats, Ints, group_codes
from store.types import Instruction, Sample, Verdict

_UNKNOWN, _FAILED = -2, -1
_BEATEN_BY = 1.64  # standard errors by group: one-sided 5 %
_MIN_GROUPS = 5  # fewer say nothing about a standard error
_BLOCK = 100  # rows of dev between two decisions of a race
_RACED_IN = 3  # a race has at least so many blocks, however small dev is


class Scoreboard:
    """Every grade this run has seen, by instruction and sample; asks for what is missing.

    Args:
        labeller: judges what is not known.
        samples: all samples that may be judged, of every split.
        truths: sample id -> truth.
        metric: what candidates are compared by.
    """

    def __init__(
        self,
        labeller: Labeller,
        samples: Sequence[Sample],
        truths: Mapping[str, Truth],
        metric: Metric = METRICS["accuracy"],
    ) -> None:
        self.labeller, self.metric = labeller, metric
        self.symbols = labeller.store.task.symbols
        self._values = [grade.value for grade in labeller.store.task.grades]
        self._groups = group_codes([s.group for s in samples])[0]  # as numbers, which sort faster than texts
        self._row = {s.id: i for i, s in enumerate(samples)}
        self._codes = {symbol: i for i, symbol in enumerate(self.symbols)}
        self._grades: dict[str, NDArray[np.int8]] = {}
        soft = [[truths[s.id].score(g) for g in (*self.symbols, None)] for s in samples]
        self._scores = np.array(soft).reshape(len(samples), len(self.symbols) + 1)
        self._truth = np.array([self._codes[truths[s.id].grade] for s in samples], dtype=np.int64)

    @property
    def teacher(self) -> str:
        """Who judges, as the run's record names it: the model, and what it is shown beside a row."""
        return self.labeller.judge_name.removeprefix("teacher:")

    def verdicts(self, instruction: Instruction, samples: Sequence[Sample]) -> list[Verdict]:
        """Full verdicts, with traces, in the order asked.

        Raises:
            BudgetSpent: not all could be asked.
        """
        return self._ask([Assignment(instruction, samples)])

    def judge(self, instructions: Sequence[Instruction], samples: Sequence[Sample]) -> None:
        """Make sure that all grades are known; what is missing is asked in one go.

        Raises:
            BudgetSpent: not all could be asked.
        """
        open_rows = [(instruction, self.missing(instruction, samples)) for instruction in instructions]
        assignments = [Assignment(instruction, rows) for instruction, rows in open_rows if rows]
        if assignments:
            self._ask(assignments)

    def missing(self, instruction: Instruction, samples: Sequence[Sample]) -> list[Sample]:
        """The samples that this run has not judged under the instruction."""
        known = self._grades_of(instruction.id)
        return [s for s in samples if known[self._row[s.id]] == _UNKNOWN]

    def grades(self, instruction: Instruction, samples: Sequence[Sample]) -> NDArray[np.int64]:
        """(N,) grade positions, -1 where the answer failed."""
        found = self._grades_of(instruction.id)[self.rows(samples)]
        if np.any(found == _UNKNOWN):
            raise KeyError("not all of these samples have been judged")
        return found.astype(np.int64)

    def scores(self, instruction: Instruction, samples: Sequence[Sample]) -> Floats:
        """(N,) score of each verdict: 1 where right, or the share of people who agree."""
        found: Floats = self._scores[self.rows(samples), self.grades(instruction, samples)]
        return found

    def sums(self, instruction: Instruction, samples: Sequence[Sample], truth: Ints | None = None) -> Floats:
        """(G, S) what each group contributes to the metric.

        Args:
            truth: (N,) positions to go by instead of the run's own.
        """
        return self.sums_of(self.grades(instruction, samples), samples, truth)

    def sums_of(self, said: Ints, samples: Sequence[Sample], truth: Ints | None = None) -> Floats:
        """The same of grades, (N,), whoever gave them."""
        rows = self.rows(samples)
        score = self._scores[rows, said] if truth is None else (said == truth).astype(float)
        known = self.truth(samples) if truth is None else truth
        return self.metric.sums(rows_of(self._groups[rows], known, said, score, self._values))

    def value(self, instruction: Instruction, samples: Sequence[Sample]) -> float:
        """The metric over these samples."""
        return self.metric.value(self.sums(instruction, samples))

    def told(self, instruction: Instruction, samples: Sequence[Sample]) -> dict[str, Any]:
        """The same for a run's record; which metric it is, where it is not accuracy."""
        named = {} if self.metric.name == "accuracy" else {"metric": self.metric.name}
        return {"dev": self.value(instruction, samples), **named}

    def best(self, candidates: Sequence[Instruction], samples: Sequence[Sample]) -> Instruction:
        """Best by the metric; of equals the one with fewer rules, then the earlier."""
        return max(candidates, key=lambda i: (self.value(i, samples), -len(i.rules)))

    def truth(self, samples: Sequence[Sample]) -> NDArray[np.int64]:
        """(N,) positions of the true grades."""
        return self._truth[self.rows(samples)]

    def rows(self, samples: Sequence[Sample]) -> NDArray[np.int64]:
        """(N,) row of each sample in the board."""
        return np.fromiter((self._row[s.id] for s in samples), dtype=np.int64, count=len(samples))

    def _ask(self, assignments: Sequence[Assignment]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        self.labeller.judge(assignments, verdicts.append)
        for v in verdicts:
            if v.failure != "budget":
                self._grades_of(v.instruction)[self._row[v.sample_id]] = self._codes.get(v.grade or "", _FAILED)
        if any(v.failure == "budget" for v in verdicts):
            raise BudgetSpent
        return verdicts

    def _grades_of(self, instruction_id: str) -> NDArray[np.int8]:
        return self._grades.setdefault(instruction_id, np.full(len(self._row), _UNKNOWN, dtype=np.int8))


def one_grade(board: Scoreboard, instruction: Instruction, samples: Sequence[Sample]) -> str | None:
    """A warning when the teacher gives one grade to everything.

    Raises:
        PiarError: it gives none to anything.
    """
    grades = board.grades(instruction, samples)
    failed = int((grades < 0).sum())
    if failed == len(grades):
        raise PiarError(
            f"The teacher {board.labeller.session.client.model} gave no grade on any of {failed} dev rows: it refuses "
            "or answers otherwise than asked. Its answers are kept.",
            "Read some with `piar sql \"select text from completions where role = 'teacher' limit 5\"`, then change "
            "[teacher] or prompts/judge.j2 and add --restart.",
        )
    said = set(grades[grades >= 0].tolist())
    lost = f" and no grade on {failed} more" if failed else ""
    if len(said) > 1 or len(grades) < 10:
        return (
            f"The teacher gave no grade on {failed} of {len(grades)} dev rows." if failed > 0.1 * len(grades) else None
        )
    symbol, heard = board.symbols[said.pop()], len(grades) - failed
    return (
        f"The teacher says {symbol} on all of {heard} dev rows{lost}: the instruction may tell it nothing yet. A model "
        "that should know better needs examples of the other grades in instruction.md, or is the wrong one."
    )


@dataclass(slots=True)
class Search:
    """How far the search has come.

    Attributes:
        candidates: the incumbent first, then whatever survived a race.
        seen: wordings of all instructions that were ever proposed.
        revisions: what each reviser brought in all rounds, by the name that it writes under.
        errors: fewest errors that any parent made on the train rows of a round; None before the first.
    """

    board: Scoreboard
    purse: Purse
    candidates: list[Instruction]
    seen: set[str]
    revisions: dict[str, Revision] = field(default_factory=dict)
    errors: int | None = None

    @property
    def rule_ids(self) -> set[str]:
        """Ids of rules that stand for something."""
        return {rule.id for instruction in self.candidates for rule in instruction.rules}


# -- racing ---------------------------------------------------------------------------------------


def raced(
    inputs: Inputs, search: Search, log: RunLog, candidates: Sequence[Instruction], number: int
) -> list[Instruction]:
    """The candidates that are not beaten on dev.

    Raises:
        BudgetSpent: not even one could be judged on all of dev.
    """
    best = search.board.best(search.candidates, inputs.dev)
    size = min(_BLOCK, -(-len(inputs.dev) // _RACED_IN))
    draw = whole if search.board.metric.whole_groups else RACES[inputs.settings.race]
    plan = draw(search.board, best, inputs.dev, size, inputs.seed(number, "race"))
    survivors, dropped = race(search.board, best, candidates, plan)
    for name, reason in dropped.items():
        log.step("dropped", round=number, candidate=name, reason=reason)
    for candidate in survivors:
        log.step("survived", round=number, candidate=candidate.id, **search.board.told(candidate, inputs.dev))
    return survivors


def blocks(
    board: Scoreboard, incumbent: Instruction, samples: Sequence[Sample], size: int, seed: int
) -> list[list[Sample]]:
    """Samples in blocks: where the incumbent is wrong and as many rights first, then the rest."""
    order = sorted(samples, key=lambda s: s.id)
    random.Random(seed).shuffle(order)
    wrong = board.grades(incumbent, order) != board.truth(order)
    errors = [s for s, w in zip(order, wrong, strict=True) if w]
    rights = [s for s, w in zip(order, wrong, strict=True) if not w]
    pairs = [s for pair in zip(errors, rights, strict=False) for s in pair]
    matched = len(pairs) // 2
    ordered = pairs + errors[matched:] + rights[matched:]
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def whole(
    board: Scoreboard, incumbent: Instruction, samples: Sequence[Sample], size: int, seed: int
) -> list[list[Sample]]:
    """All samples at once: no race."""
    return [list(samples)]


RACES = {"blocks": blocks, "whole": whole}


def race(
    board: Scoreboard, incumbent: Instruction, candidates: Sequence[Instruction], blocks: Sequence[Sequence[Sample]]
) -> tuple[list[Instruction], dict[str, str]]:
    """Judge the candidates block by block, dropping the beaten at each barrier.

    The survivors have been judged on every block, so their final figure is the plain mean over all of
    them: the order in which samples were asked does not bias it.

    A budget that cannot bring all of them to the end drops the worst at each barrier (the last ones before
    anything is known), so that at least one is judged on everything.

    Returns:
        the survivors in the order given, and id -> reason for the others.

    Raises:
        BudgetSpent: what is left is not enough for one; nothing has been asked.
    """
    alive, dropped, seen = list(candidates), dict[str, str](), list[Sample]()
    for at, block in enumerate(blocks):
        if not alive:
            break
        for candidate in _too_many(board, alive, seen, blocks[at:]):
            alive.remove(candidate)
            dropped[candidate.id] = f"the budget is too small for all of them after {len(seen)} rows"
        board.judge(alive, block)
        seen += block
        best = max(alive, key=lambda c: board.value(c, seen))
        for candidate in list(alive):
            rival = beaten_by(board, candidate, (best, incumbent), seen)
            if rival is not None:
                alive.remove(candidate)
                dropped[candidate.id] = f"beaten by {rival} after {len(seen)} rows"
    return alive, dropped


def _too_many(
    board: Scoreboard, alive: Sequence[Instruction], seen: Sequence[Sample], ahead: Sequence[Sequence[Sample]]
) -> list[Instruction]:
    """The worst candidates, beyond those that can have the next block while one of them can have all the rest."""
    left = board.labeller.budget.answers_left
    if left is None:
        return []
    affordable = (left - sum(map(len, ahead[1:]))) // len(ahead[0])
    if affordable < 1:
        raise BudgetSpent
    ranked = sorted(alive, key=lambda c: -board.value(c, seen)) if seen else list(alive)
    return ranked[affordable:]


def beaten_by(
    board: Scoreboard, candidate: Instruction, rivals: Sequence[Instruction], samples: Sequence[Sample]
) -> str | None:
    """The rival that is better beyond chance, by group; None while that is open."""
    mine = board.sums(candidate, samples)
    for rival in rivals:
        if rival.id != candidate.id and len(mine) >= _MIN_GROUPS:
            gained = board.metric.contributions(board.sums(rival, samples), mine)
            if gained.sum() + _BEATEN_BY * float(np.sqrt((gained**2).sum())) < 0:
                return rival.id
    return None
