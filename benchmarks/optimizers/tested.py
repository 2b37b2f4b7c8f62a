"""Arms that end with our test by group, and arms that ask what should be drafted once the test has passed.

`tested` is for anybody's optimizer: it never sees the holdout, and what it ends with is shipped only if it is better
there by group. `refit` drafts once more from everything after ours has passed; `cross_fitted` is our loop's other
strategy; `from_disagreements` validates where the text in force is wrong, and nowhere else.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from benchmarks.optimizers.arms import Arm, Ended, best_of_drafts, clients, draft, grades_of, one_draft, ours, peer
from benchmarks.optimizers.texts import read_text, write_text
from benchmarks.optimizers.worlds import Row, World
from piar.evolve.adapters import Decision, GroupTest
from piar.llm.base import Client
from piar.offline.endpoint import Simulator
from store.types import Instruction

FEWEST = 5  # validation rows of a gate that draws them from disagreements
Run = Callable[[World, Simulator, int, int], Ended]


def tested(run: Run) -> Run:
    """An optimizer whose end meets the seed once, on groups that it never saw; their calls are in the budget."""

    def arm(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
        holdout = world.of("holdout")
        open_ = replace(world, rows=tuple(r for r in world.rows if r.split != "holdout"))
        ended = run(open_, endpoint, budget - 2 * len(holdout), seed)
        if read_text(ended.text).rules == read_text(write_text(world.seed)).rules:
            return Ended(write_text(world.seed), confirmed=False)
        found = _decision(clients(endpoint)[0], world.seed, read_text(ended.text), holdout)
        return Ended(ended.text if found.promoted else write_text(world.seed), confirmed=found.promoted)

    return arm


def refit(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
    """Ours; where its test has passed, one more draft from all labels, which nobody tests."""
    ended = ours(world, endpoint, budget, seed)
    return replace(one_draft(world, endpoint, budget, seed), confirmed=True) if ended.confirmed else ended


def cross_fitted(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
    """Ours, by the strategy whose labels all teach: one draft, tested by cross-fitting."""
    return ours(world, endpoint, budget, seed, search="cross_fitted")


def from_disagreements(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
    """One draft from half of the rows that are wrong, kept where it does better on the other half of them."""
    teacher, reviser = clients(endpoint)
    rows = world.of("train", "dev", "holdout")
    wrong = [r for r, right in zip(rows, _right(teacher, world.seed, rows), strict=True) if not right]
    Random(f"disagreements-{seed}").shuffle(wrong)
    held, shown_ = wrong[: max(FEWEST, len(wrong) // 2)], wrong[max(FEWEST, len(wrong) // 2) :]
    drafted = draft(reviser, world.seed, shown_, Random(f"draft-{seed}"))
    better = sum(_right(teacher, drafted, held)) > 0  # of these the seed has none right
    return Ended(write_text(drafted if better else world.seed))


def _right(teacher: Client, instruction: Instruction, rows: list[Row]) -> list[bool]:
    return [said == r.gold for said, r in zip(grades_of(teacher, instruction, rows), rows, strict=True)]


def _decision(teacher: Client, before: Instruction, after: Instruction, rows: list[Row]) -> Decision:
    return GroupTest()(_right(teacher, before, rows), _right(teacher, after, rows), [r.query for r in rows])


TESTED: dict[str, Arm] = {
    "gepa, our test": Arm(tested(peer("gepa", "gepa").run)),
    "gepa, tuned, our test": Arm(tested(peer("gepa", "gepa", reflection_minibatch_size=40).run)),
    "dspy GEPA, our test": Arm(tested(peer("dspy", "dspy_gepa").run)),
    "dspy MIPROv2, our test": Arm(tested(peer("dspy", "mipro").run)),
    "best of N drafts, our test": Arm(tested(best_of_drafts)),
    "one draft, our test": Arm(tested(one_draft)),
    "disagreements only": Arm(from_disagreements),
    "disagreements only, our test": Arm(tested(from_disagreements)),
    "ours, refit after the test": Arm(refit),
    "ours, cross-fitted": Arm(cross_fitted),
}
