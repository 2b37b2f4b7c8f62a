"""A search all of whose labels teach: what is tested is the procedure "one draft from labels", and no single text.

The groups of train, dev and holdout are dealt into folds. For each fold the reviser drafts from the labels of the
others, and that draft is judged on the fold left out; all folds together meet the incumbent in the test that every
candidate has to pass. What is proposed is drafted once more, from all of these labels, and nobody tests it. That models
are judged so and then fitted to everything is how cross-validation is used (Stone 1974); that a promotion is decided
so, and by which test, is ours. Drafts of two folds share most of their labels, so that what they show is widened
(`piar.evolve.promotion.over_folds`); docs/experiments/optimizers.md has how often what is no better passes still.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from piar.evolve.ending import BUDGET_SPENT
from piar.evolve.finish import Found, Judging
from piar.evolve.inputs import Inputs
from piar.evolve.inspection import hints, inspect
from piar.evolve.purse import CROSS_FOLDS, BudgetSpent
from piar.evolve.resume import RunLog
from piar.evolve.round import judged, proposed
from piar.evolve.search import Search
from piar.judging.requests import Assignment
from store.splits import normal_form
from store.types import Instruction, Sample

NOTHING_DRAFTED = "the reviser drafted nothing that could be tried"


def cross_fitted(inputs: Inputs, search: Search, log: RunLog) -> Found:
    """Draft from all labels, and from those of all folds but one for each of them.

    The draft from all comes first: where there is none, nothing else is paid for and no group is used. A fold from
    whose others nothing is drafted counts as no change.

    Returns:
        the draft from all labels, and the folds' drafts by which it is decided.
    """
    incumbent, rows = inputs.incumbent, sorted(inputs.deciding, key=lambda s: s.id)
    draft, stopped, tested = incumbent, NOTHING_DRAFTED, list[Judging]()
    try:
        _afford(inputs, search, rows)
        search.board.judge([incumbent], rows)
        draft = _draft(inputs, search, log, rows, 0) or incumbent
        if draft.id != incumbent.id:
            log.keep(draft)
            log.step("proposed", round=0, candidate=draft.id, parent=draft.parent, note=draft.note)
            tested, stopped = _folds(inputs, search, log, rows), "drafted once from all labels"
            search.candidates.append(draft)
    except BudgetSpent:
        draft, stopped = incumbent, BUDGET_SPENT
    log.step("searched", rounds=0, stopped=stopped, pool=[i.id for i in search.candidates], best=draft.id)
    return Found(draft, tested, 0, stopped, folds=len(tested))


def deal_folds(groups: Sequence[str], seed: int) -> dict[str, int]:
    """Group -> fold, at most six, at random; groups that differ in spelling only are in the same fold."""
    forms = {group: normal_form(group) for group in groups}
    units = sorted(set(forms.values()))
    order = np.random.default_rng(seed).permutation(len(units))
    fold = {units[at]: i % CROSS_FOLDS for i, at in enumerate(order)}
    return {group: fold[form] for group, form in forms.items()}


def _afford(inputs: Inputs, search: Search, rows: Sequence[Sample]) -> None:
    """Go on where the budget pays for the incumbent's verdicts on all rows; a part of them would tell nothing.

    Raises:
        BudgetSpent: it does not.
    """
    wanted = Assignment(inputs.incumbent, search.board.missing(inputs.incumbent, rows))
    search.purse.afford(sum(1 for _ in search.board.labeller.agenda.pending([wanted])))


def _folds(inputs: Inputs, search: Search, log: RunLog, rows: Sequence[Sample]) -> list[Judging]:
    """Each fold's rows, and what was drafted without them."""
    fold = deal_folds([s.group for s in rows], inputs.seed("folds"))
    count, found = len(set(fold.values())), list[Judging]()
    for k in range(count):
        held = [s for s in rows if fold[s.group] == k]
        draft = _draft(inputs, search, log, [s for s in rows if fold[s.group] != k], k + 1)
        if draft is not None:
            log.keep(replace(draft, note=f"Fold {k + 1} of {count}. {draft.note}"))
        log.step("fold", fold=k + 1, of=count, rows=len(held), candidate=draft and draft.id)
        found.append((draft or inputs.incumbent, held))
    return found


def _draft(inputs: Inputs, search: Search, log: RunLog, rows: Sequence[Sample], number: int) -> Instruction | None:
    """One draft from these rows and no others; None where nothing new or allowed is said.

    Args:
        number: of the fold that is left out, 0 for none.
    """
    reviser, incumbent = inputs.reviser, inputs.incumbent
    found = inspect(judged(inputs, search, incumbent, rows), incumbent, {**inputs.noticed, **inputs.slices})
    told = hints(found, learn=not reviser.counts)
    if not number:
        search.errors = len(found.errors)
        log.step("inspected", round=0, parent=incumbent.id, rows=len(rows), errors=len(found.errors),
                 causes=found.counts(), hints=list(told))  # fmt: skip
    one = replace(reviser, settings=reviser.settings.model_copy(update={"candidates": 1}))
    alone = replace(search, seen={incumbent.wording})  # what another fold has drafted may be drafted again
    drafts = proposed(inputs, alone, log, one, incumbent, found, told, number)
    return drafts[0] if drafts else None
