"""The winner drafted once more from train and dev together, where cross-validation says that it pays."""

from collections.abc import Iterable, Sequence
from math import ceil

import numpy as np

from piar.evolve.inspection import whole_evidence
from piar.evolve.purse import FOLDS, BudgetSpent
from piar.evolve.resume import RunLog
from piar.evolve.revision import revise
from piar.evolve.round import judged
from piar.evolve.selection import beaten_by
from piar.evolve.state import Inputs, Search
from store.types import Instruction, Sample


def redrafted(inputs: Inputs, search: Search, log: RunLog, winner: Instruction) -> Instruction:
    """What the reviser drafts from train and dev together, in proportion to rows with as many edits as did well on dev.

    As a model is fitted to all data once validation has said how flexible it may be: with few groups drafts suffer most
    from the groups that they were not shown. Whether that holds here is asked first: such drafts, each made without a
    third of dev's groups, have to do as well on that third as the winner (cross-validation). The holdout decides in the
    end.

    Returns:
        the new draft, or the winner.
    """
    if winner.id == inputs.incumbent.id or not search.purse.needs.redraft:
        return winner
    search.purse.open_redraft()
    rows = sorted([*inputs.splits["train"], *inputs.dev], key=lambda s: s.id)
    try:
        search.purse.afford(len(search.board.missing(inputs.incumbent, rows)) + search.purse.needs.redraft)
        expected = _cross_validated(inputs, search, winner, rows)
        stands = expected is not None and expected >= float(search.board.scores(winner, inputs.dev).mean())
        draft = _draft(inputs, search, winner, rows, search.seen) if stands else None
        if draft is not None:
            search.board.judge([draft], inputs.dev)
    except BudgetSpent:
        return winner
    log.step("redrafted", candidate=draft and draft.id, winner=winner.id, dev=expected, stands=draft is not None)
    if draft is None:
        return winner
    log.keep(draft)
    return draft


def _cross_validated(inputs: Inputs, search: Search, winner: Instruction, rows: Sequence[Sample]) -> float | None:
    """Mean score on dev of drafts that were not shown the group; None where one cannot be drafted."""
    groups = sorted({s.group for s in inputs.dev})
    order = np.random.default_rng(inputs.seed("redraft folds")).permutation(len(groups))
    fold = {groups[at]: i % FOLDS for i, at in enumerate(order)}
    scores = []
    for k in range(FOLDS):
        held = [s for s in inputs.dev if fold[s.group] == k]
        apart = {s.id for s in held}
        draft = _draft(inputs, search, winner, [s for s in rows if s.id not in apart], {inputs.incumbent.id})
        if draft is None:
            return None
        search.board.judge([draft], held)
        scores += list(search.board.scores(draft, held))
    return float(np.mean(scores))


def _draft(
    inputs: Inputs, search: Search, winner: Instruction, rows: Sequence[Sample], seen: Iterable[str]
) -> Instruction | None:
    """One candidate from these rows; None where nothing new or allowed is said."""
    reviser, incumbent, seed = inputs.reviser, inputs.incumbent, inputs.seed("redraft")
    edits = ceil(_flexibility(inputs, search, winner) * len(rows) / len(inputs.splits["train"]))
    settings = reviser.settings.model_copy(update={"max_operations": edits})
    shown = whole_evidence(judged(inputs, search, incumbent, rows), reviser.limit, seed)
    asked = reviser.question(incumbent, shown, (), candidates=1, seed=seed, settings=settings)
    found = revise(
        reviser.ask([asked]),
        incumbent,
        [shown],
        inputs.store.task,
        settings,
        author=reviser.author,
        seen=seen,
        taken=search.rule_ids,
    )
    return found.proposals[0].instruction if found.proposals else None


def _flexibility(inputs: Inputs, search: Search, winner: Instruction) -> float:
    """Edits of the winner, or of those that dev cannot tell from it, on average, where that is more."""
    incumbent, board = inputs.incumbent, search.board
    alike = [i for i in search.candidates if i.id != incumbent.id and not beaten_by(board, i, [winner], inputs.dev)]
    return max(_edits(incumbent, winner), sum(_edits(incumbent, i) for i in alike) / max(1, len(alike)))


def _edits(before: Instruction, after: Instruction) -> int:
    """Rules that are new or changed, and rules that are gone."""
    new = sum(before.rule(rule.id) != rule for rule in after.rules)
    return new + sum(after.rule(rule.id) is None for rule in before.rules)
