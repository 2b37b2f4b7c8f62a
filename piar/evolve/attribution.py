"""What each rule is worth: left out, on the rows that cite it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from piar.evolve.purse import BudgetSpent
from piar.evolve.results import Worth, gain_json
from piar.evolve.search import Scoreboard
from store.stats import paired_gain
from store.types import Instruction, Sample


def attribute(board: Scoreboard, instruction: Instruction, samples: Sequence[Sample]) -> list[Worth]:
    """What each rule is worth: the instruction with and without it, on the rows that cite it.

    Rows that do not cite a rule are taken to be untouched by it. That is exact for the offline teacher and saves
    most calls for a language model, where any edit can flip any row: there it is an estimate.

    Args:
        samples: of dev and holdout.

    Returns:
        one for each rule; fewer when the budget ends.
    """
    found: list[Worth] = []
    try:
        verdicts = board.verdicts(instruction, samples)
        cited = {
            r.id: [s for s, v in zip(samples, verdicts, strict=True) if v.trace and r.id in v.trace.rules]
            for r in instruction.rules
        }
        without = {
            r.id: replace(instruction, rules=tuple(o for o in instruction.rules if o is not r))
            for r in instruction.rules
        }
        for rule in instruction.rules:
            board.judge([without[rule.id]], cited[rule.id])
            found.append(_worth(board, rule.id, instruction, without[rule.id], cited[rule.id]))
    except BudgetSpent:
        pass
    return found


def _worth(board: Scoreboard, rule: str, whole: Instruction, without: Instruction, rows: Sequence[Sample]) -> Worth:
    if not rows:
        return {"rule": rule, "cited": 0, "fixes": 0, "breaks": 0, "gain": None, "state": "dead"}
    truth = board.truth(rows)
    right, otherwise = (board.grades(i, rows) == truth for i in (whole, without))
    gain = paired_gain(otherwise, right, [s.group for s in rows])
    state: Literal["helps", "harms", "unclear"] = "helps" if gain.above else "harms" if gain.below else "unclear"
    return {
        "rule": rule,
        "cited": len(rows),
        "fixes": int(np.sum(right & ~otherwise)),
        "breaks": int(np.sum(otherwise & ~right)),
        "gain": gain_json(gain),
        "state": state,
    }
