"""Searching among candidates: how they race, whose child comes next, which two are merged.

Each is a table of named strategies; `[evolve]` says which. Decisions fall at block barriers only, on results in a fixed
order, so that the order in which answers arrive changes nothing.
"""

import random
from collections import Counter
from collections.abc import Sequence, Set

import numpy as np

from piar.evolve.purse import BudgetSpent
from piar.evolve.scoreboard import Scoreboard
from store.stats import Floats, group_codes, group_sums
from store.types import Instruction, Sample

_BEATEN_BY = 1.64  # standard errors by group: one-sided 5 %
_MIN_GROUPS = 5  # fewer say nothing about a standard error

Pair = tuple[Instruction, Instruction]


# -- racing ---------------------------------------------------------------------------------------


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
        best = max(alive, key=lambda c: board.scores(c, seen).mean())
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
    ranked = sorted(alive, key=lambda c: -float(board.scores(c, seen).mean())) if seen else list(alive)
    return ranked[affordable:]


def beaten_by(
    board: Scoreboard, candidate: Instruction, rivals: Sequence[Instruction], samples: Sequence[Sample]
) -> str | None:
    """The rival that is better beyond chance, by group; None while that is open."""
    codes, count = group_codes([s.group for s in samples])
    for rival in rivals:
        if rival.id != candidate.id and count >= _MIN_GROUPS:
            difference = board.scores(candidate, samples) - board.scores(rival, samples)
            sums = group_sums(difference, codes, count)[:, 0]
            if sums.sum() + _BEATEN_BY * float(np.sqrt((sums**2).sum())) < 0:
                return rival.id
    return None


# -- parents --------------------------------------------------------------------------------------


def group_means(board: Scoreboard, candidates: Sequence[Instruction], samples: Sequence[Sample]) -> Floats:
    """(P, G) mean score of each instruction on each group."""
    codes, count = group_codes([s.group for s in samples])
    sizes = np.bincount(codes, minlength=count)
    return np.stack([group_sums(board.scores(i, samples), codes, count)[:, 0] / sizes for i in candidates])


def draw_parent(
    board: Scoreboard, candidates: Sequence[Instruction], samples: Sequence[Sample], seed: int
) -> Instruction:
    """A member of the Pareto front over groups, more likely the more groups it leads (as GEPA does over items)."""
    means = group_means(board, candidates, samples)
    leads = Counter(int(i) for group in (means == means.max(axis=0)).T for i in np.flatnonzero(group))
    chosen = sorted(leads)
    return candidates[random.Random(seed).choices(chosen, weights=[leads[i] for i in chosen])[0]]


def best_parent(
    board: Scoreboard, candidates: Sequence[Instruction], samples: Sequence[Sample], seed: int
) -> Instruction:
    """The best so far."""
    return board.best(candidates, samples)


PARENTS = {"pareto": draw_parent, "best": best_parent}


# -- pairs ----------------------------------------------------------------------------------------


def complementary(
    board: Scoreboard, candidates: Sequence[Instruction], samples: Sequence[Sample], tried: Set[tuple[str, str]]
) -> Pair | None:
    """The untried pair that would gain most if each group went to the better of the two."""
    means = group_means(board, candidates, samples)
    best: tuple[float, Instruction, Instruction] | None = None
    for i, first in enumerate(candidates):
        for j, second in enumerate(candidates):
            if i == j or (first.id, second.id) in tried or means[i].mean() < means[j].mean():
                continue
            promise = float(np.maximum(means[i], means[j]).mean() - means[i].mean())
            if promise > 0 and (best is None or promise > best[0]):
                best = (promise, first, second)
    return None if best is None else best[1:]


def no_pair(
    board: Scoreboard, candidates: Sequence[Instruction], samples: Sequence[Sample], tried: Set[tuple[str, str]]
) -> Pair | None:
    """None: nothing is merged."""
    return None


PAIRS = {"complementary": complementary, "none": no_pair}
