"""Racing drops what is beaten, by group."""

from typing import get_args

import numpy as np
import pytest

from piar.evolve.purse import BudgetSpent
from piar.evolve.round import REDRAFTS
from piar.evolve.search import RACES, Scoreboard, blocks, race
from piar.evolve.settings import EvolveSettings
from piar.evolve.truth import Truth
from piar.judging.outcome import LabelReport
from piar.llm.cost import Budget
from store.types import Instruction, Sample, Verdict
from tests.worlds import TASK

SAMPLES = [Sample(f"s{i:03d}", f"g{i // 5}", {"n": str(i)}) for i in range(200)]
INCUMBENT, GOOD, BAD, ODD = (Instruction(name) for name in ("incumbent", "good", "bad", "odd"))
RIGHT = {
    INCUMBENT.id: lambda i: i % 2 == 0,
    GOOD.id: lambda i: i % 10 != 0,
    BAD.id: lambda i: i % 10 == 0,
    ODD.id: lambda i: i < 40 or i % 2 == 1,
}


class Known:
    """Answers from `RIGHT`; stands for the labeller."""

    def __init__(self):
        self.store = type("S", (), {"task": TASK})()
        self.asked = []
        self.budget = Budget()

    def judge(self, batches, on_verdict):
        for batch in batches:
            for sample in batch.samples:
                grade = "1" if RIGHT[batch.instruction.id](int(sample.fields["n"])) else "0"
                self.asked.append((batch.instruction.id, sample.id))
                assert self.budget.reserve()
                on_verdict(Verdict("k", sample.id, "j", batch.instruction.id, 0, grade))
        return LabelReport()


def board():
    made = Scoreboard(Known(), SAMPLES, {s.id: Truth("1") for s in SAMPLES})
    made.judge([INCUMBENT], SAMPLES)
    return made


def test_nothing_is_asked_twice_and_scores_are_as_judged():
    made = board()
    made.judge([INCUMBENT, GOOD], SAMPLES)
    assert len(made.labeller.asked) == len(set(made.labeller.asked)) == 400
    assert made.scores(GOOD, SAMPLES).mean() == 0.9


def test_blocks_hold_everything_once_informative_first():
    plan = blocks(board(), INCUMBENT, SAMPLES, 50, seed=3)
    assert sorted(s.id for b in plan for s in b) == [s.id for s in SAMPLES]
    wrong = [int(s.fields["n"]) % 2 for s in plan[0]]
    assert sum(wrong) == 25


def test_a_race_drops_the_beaten_early_and_keeps_the_good_to_the_end():
    made = board()
    plan = blocks(made, INCUMBENT, SAMPLES, 50, seed=3)
    alive, dropped = race(made, INCUMBENT, [GOOD, BAD, ODD], plan)
    assert GOOD in alive
    assert f"beaten by {GOOD.id} after 50 rows" == dropped[BAD.id]
    assert sum(name == BAD.id for name, _ in made.labeller.asked) == 50
    assert np.all(made.grades(GOOD, SAMPLES) >= 0)


def test_a_race_narrows_to_what_the_budget_can_finish():
    made = board()
    budget = made.labeller.budget
    plan = blocks(made, INCUMBENT, SAMPLES, 50, seed=3)
    budget.max_calls = budget.calls + 250  # two candidates on the first block, one on the other three
    alive, dropped = race(made, INCUMBENT, [ODD, GOOD, BAD], plan)
    assert alive == [GOOD]
    assert "the budget is too small" in dropped[BAD.id]
    assert budget.calls <= budget.max_calls
    budget.max_calls = budget.calls + 199
    asked = len(made.labeller.asked)
    with pytest.raises(BudgetSpent):
        race(made, INCUMBENT, [Instruction("odd too")], plan)
    assert len(made.labeller.asked) == asked


def test_a_race_can_be_switched_off_and_the_best_is_known_after_it():
    made = board()
    candidates = [INCUMBENT, GOOD, BAD, ODD]
    (plan,) = RACES["whole"](made, INCUMBENT, SAMPLES, 50, 3)
    alive, dropped = race(made, INCUMBENT, [GOOD, BAD], [plan])
    assert (alive, set(dropped)) == ([GOOD], {BAD.id})
    assert sum(name == BAD.id for name, _ in made.labeller.asked) == len(SAMPLES)
    made.judge(candidates, SAMPLES)
    assert made.best(candidates, SAMPLES) == GOOD


def test_settings_name_strategies_that_there_are():
    tables = {"race": RACES, "redraft": REDRAFTS}
    for name, table in tables.items():
        assert set(get_args(EvolveSettings.model_fields[name].annotation)) == set(table)
        assert getattr(EvolveSettings(), name) in table


def test_what_was_yes_or_no_before_it_had_a_name_still_opens():
    on, off = (EvolveSettings.model_validate({"redraft": v, "revision": {"diagnose": v}}) for v in (True, False))
    assert (on.redraft, on.revision.diagnose) == ("cross_validated", "causes")
    assert (off.redraft, off.revision.diagnose) == ("none", "none")
