"""Our promotion test for anybody's optimizer: what it promotes, what it remembers, and what it refuses to look at."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from piar.evolve.adapters import GatedOptimizer, GroupTest
from store.errors import PiarError, UsageError
from tests.environments import peer_python

GROUPS = [f"query {i // 5}" for i in range(150)]


def scores(share: float, seed: int) -> list[float]:
    return (np.random.default_rng(seed).random(len(GROUPS)) < share).astype(float).tolist()


def test_a_plain_gain_is_promoted_and_none_is_not() -> None:
    found = GroupTest()(scores(0.5, 1), scores(0.9, 2), GROUPS)
    assert (found.promoted, found.groups, found.gain.above) == (True, 30, True)
    assert found.reason.startswith("better: +0.")
    same = GroupTest()(scores(0.5, 1), scores(0.5, 1), GROUPS)
    assert not same.promoted
    assert same.reason.startswith("no gain")


def test_a_procedure_that_is_tested_over_folds_has_more_to_show() -> None:
    before, after = scores(0.5, 1), scores(0.63, 2)
    one, over = GroupTest()(before, after, GROUPS), GroupTest()(before, after, GROUPS, folds=5)
    assert (one.promoted, over.promoted) == (True, False)
    assert over.gain.mean == one.gain.mean
    assert over.gain.p_value > one.gain.p_value


def test_a_gain_that_one_group_brings_is_not_promoted() -> None:
    before, after = [0.0] * 150, [0.0] * 145 + [1.0] * 5
    assert not GroupTest()(before, after, GROUPS).promoted
    few = GroupTest()(before, [1.0] * 150, ["one"] * 75 + ["other"] * 75)
    assert not few.promoted
    assert few.reason.startswith("too few groups")


def test_false_promotions_stay_within_alpha_over_repeated_tests() -> None:
    promoted = 0
    for world in range(40):
        test, rng = GroupTest(), np.random.default_rng(world)
        for _ in range(3):  # candidates that are no better, alike within a group
            shift = np.repeat(rng.normal(size=30), 5)
            if test([0.0] * 150, (shift + rng.normal(size=150)).tolist(), GROUPS).promoted:
                promoted += 1
                break
    assert promoted <= 6  # 2 are expected; more than 6 come by chance three times in a thousand


def test_a_ledger_makes_the_next_process_stricter_until_the_groups_are_worn(tmp_path: Path) -> None:
    ledger = tmp_path / "tests.jsonl"
    levels = [GroupTest(ledger=ledger)(scores(0.5, 1), scores(0.9, 2), GROUPS).level for _ in range(8)]
    assert levels == sorted(levels, reverse=True)
    assert sum(levels) < 0.05
    assert "query" not in ledger.read_text()
    with pytest.raises(PiarError, match="prove nothing more"):
        GroupTest(ledger=ledger)(scores(0.5, 1), scores(0.9, 2), GROUPS)
    assert GroupTest(ledger=ledger)([0.0], [1.0], ["fresh"]).level == pytest.approx(0.03)


def test_a_ledger_whose_last_line_a_kill_cut_off_goes_on(tmp_path: Path) -> None:
    ledger = tmp_path / "tests.jsonl"
    GroupTest(ledger=ledger)(scores(0.5, 1), scores(0.9, 2), GROUPS)
    with ledger.open("a") as file:
        file.write('{"groups": ["a')
    GroupTest(ledger=ledger)(scores(0.5, 1), scores(0.9, 2), GROUPS)
    assert len([json.loads(line) for line in ledger.read_text().splitlines()]) == 2
    ledger.write_text("not ours\n")
    with pytest.raises(PiarError, match="is no ledger"):
        GroupTest(ledger=ledger)([0.0], [1.0], ["a"])


@pytest.mark.parametrize(
    ("before", "after", "groups"), [([], [], []), ([0.0], [1.0, 1.0], ["a"]), ([0.0], [float("nan")], ["a"])]
)
def test_what_cannot_be_compared_is_said(before: list[float], after: list[float], groups: list[str]) -> None:
    with pytest.raises(UsageError):
        GroupTest()(before, after, groups)


class Doubler:
    """Stands for DSPy's optimizer and program: compiling gives a program that is always right."""

    def __init__(self, right: bool = False) -> None:
        self.right = right

    def deepcopy(self) -> "Doubler":
        return Doubler(self.right)

    def compile(self, student: "Doubler", *, trainset: object) -> "Doubler":
        student.right = True
        return student

    def __call__(self, n: int) -> bool:
        return self.right


class Example(dict[str, object]):
    def inputs(self) -> dict[str, object]:
        return {"n": self["n"]}


def test_a_compiled_program_is_returned_only_where_it_is_better_on_groups_it_never_saw() -> None:
    rows = [Example(n=i, query=str(i // 4)) for i in range(80)]
    gated = GatedOptimizer(Doubler(), lambda example, said: float(said), rows[40:], "query")
    student = Doubler()
    assert gated.compile(student, trainset=rows[:40]).right
    assert not student.right
    assert getattr(gated.decision, "promoted", None) is True
    useless = GatedOptimizer(Doubler(), lambda example, said: 0.0, rows[40:], "query")
    assert useless.compile(student, trainset=rows[:40]) is student
    with pytest.raises(UsageError, match="1 of 11 groups"):
        GatedOptimizer(Doubler(), lambda *_: 1.0, rows[36:], "query").compile(student, trainset=rows[:40])


@pytest.mark.peers
@pytest.mark.parametrize("name", ["gepa", "dspy"])
def test_the_real_package_promotes_what_is_better_and_nothing_else(name: str) -> None:
    script = Path(__file__).with_name(f"with_{name}.py")
    done = subprocess.run([peer_python(name), str(script)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"better": [True, True], "useless": [False, False]}
