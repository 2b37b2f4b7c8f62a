"""The winner drafted once more from train and dev together, where cross-validation says that it pays."""

from collections.abc import Iterable, Sequence
from math import ceil

import numpy as np

from piar.evolve.inspection import whole_evidence
from piar.evolve.purse import FOLDS, BudgetSpent
from piar.evolve.revision import evidence_limit, request, revise
from piar.evolve.round import _ask_reviser, _author, _ids_in_use, _judged
from piar.evolve.selection import beaten_by
from piar.evolve.state import Loop
from store.types import Instruction, Sample


def redrafted(loop: Loop, champion: Instruction, winner: Instruction) -> Instruction:
    """What the reviser drafts from train and dev together, in proportion to rows with as many edits as did well on dev.

    As a model is fitted to all data once validation has said how flexible it may be: with few groups drafts suffer most
    from the groups that they were not shown. Whether that holds here is asked first: such drafts, each made without a
    third of dev's groups, have to do as well on that third as the winner (cross-validation). The holdout decides in the
    end.

    Returns:
        the new draft, or the winner.
    """
    if winner.id == champion.id or not loop.purse.needs.redraft:
        return winner
    loop.purse.open_redraft()
    rows = sorted([*loop.splits["train"], *loop.dev], key=lambda s: s.id)
    try:
        loop.purse.afford(len(loop.board.missing(champion, rows)) + loop.purse.needs.redraft)
        expected = _cross_validated(loop, champion, winner, rows)
        stands = expected is not None and expected >= float(loop.board.scores(winner, loop.dev).mean())
        draft = _draft(loop, champion, winner, rows, loop.seen) if stands else None
        if draft is not None:
            loop.board.judge([draft], loop.dev)
    except BudgetSpent:
        return winner
    loop.log.step("redrafted", candidate=draft and draft.id, winner=winner.id, dev=expected, stands=draft is not None)
    if draft is None:
        return winner
    loop.log.keep(draft)
    return draft


def _cross_validated(loop: Loop, champion: Instruction, winner: Instruction, rows: Sequence[Sample]) -> float | None:
    """Mean score on dev of drafts that were not shown the group; None where one cannot be drafted."""
    groups = sorted({s.group for s in loop.dev})
    order = np.random.default_rng(loop.seed("redraft folds")).permutation(len(groups))
    fold = {groups[at]: i % FOLDS for i, at in enumerate(order)}
    scores = []
    for k in range(FOLDS):
        held = [s for s in loop.dev if fold[s.group] == k]
        apart = {s.id for s in held}
        draft = _draft(loop, champion, winner, [s for s in rows if s.id not in apart], {champion.id})
        if draft is None:
            return None
        loop.board.judge([draft], held)
        scores += list(loop.board.scores(draft, held))
    return float(np.mean(scores))


def _draft(
    loop: Loop, champion: Instruction, winner: Instruction, rows: Sequence[Sample], seen: Iterable[str]
) -> Instruction | None:
    """One candidate from these rows; None where nothing new or allowed is said."""
    reviser, settings = loop.models.reviser, loop.settings.revision
    edits = ceil(_flexibility(loop, champion, winner) * len(rows) / len(loop.splits["train"]))
    settings = settings.model_copy(update={"max_operations": edits})
    seed = loop.seed("redraft")
    shown = whole_evidence(_judged(loop, champion, rows), evidence_limit(reviser, settings), seed)
    asked = request(
        reviser, champion, shown, (), loop.store.task, settings, loop.models.reviser_settings,
        candidates=1, seed=seed % 2**31, prompts=loop.prompts,
    )  # fmt: skip
    found = revise(
        _ask_reviser(loop, [asked]), champion, [shown], loop.store.task, settings,
        author=_author(loop), seen=seen, taken=_ids_in_use(loop.pool),
    )  # fmt: skip
    return found.proposals[0].instruction if found.proposals else None


def _flexibility(loop: Loop, champion: Instruction, winner: Instruction) -> float:
    """Edits of the winner, or of those that dev cannot tell from it, on average, where that is more."""
    alike = [i for i in loop.pool if i.id != champion.id and not beaten_by(loop.board, i, [winner], loop.dev)]
    return max(_edits(champion, winner), sum(_edits(champion, i) for i in alike) / max(1, len(alike)))


def _edits(before: Instruction, after: Instruction) -> int:
    """Rules that are new or changed, and rules that are gone."""
    new = sum(before.rule(rule.id) != rule for rule in after.rules)
    return new + sum(after.rule(rule.id) is None for rule in before.rules)
