"""One round of the loop: prompt, inspect, auto-revise, race.

Beside a language model the offline inducer drafts a candidate in the first round, from all of its rows: it costs no
call but those of the race, which both run alike.

A round is not begun with a budget that cannot end it, and a race narrows to what is left: no answer is paid for that
decides nothing.
"""

from collections.abc import Iterable, Sequence
from math import ceil

import numpy as np

from piar.evolve.inputs import Inputs
from piar.evolve.inspection import Inspection, Judged, hints, inspect, whole_evidence
from piar.evolve.purse import FOLDS, BudgetSpent
from piar.evolve.resume import RunLog
from piar.evolve.reviser import Reviser
from piar.evolve.revision import Revision, revise
from piar.evolve.search import Search, beaten_by
from store.stats import Floats
from store.types import Instruction, Sample


def revised(inputs: Inputs, search: Search, log: RunLog, parent: Instruction, number: int) -> list[Instruction]:
    """Prompt and inspect on train, and ask the reviser.

    Raises:
        BudgetSpent: what is left would not bring one candidate to the end of its race.
    """
    batch = _train_batch(inputs, number)
    search.purse.afford(len(search.board.missing(parent, batch)) + 1 + len(inputs.dev))
    found = inspect(judged(inputs, search, parent, batch), parent, {**inputs.noticed, **inputs.slices})
    search.errors = len(found.errors) if search.errors is None else min(search.errors, len(found.errors))
    told = hints(found, learn=not inputs.reviser.counts)
    log.step(
        "inspected",
        round=number,
        parent=parent.id,
        rows=len(found.judged),
        errors=len(found.errors),
        causes=found.counts(),
        hints=list(told),
    )
    candidates = proposed(inputs, search, log, inputs.reviser, parent, found, told, number)
    if inputs.drafter and number == 1:
        candidates += proposed(inputs, search, log, inputs.drafter, parent, found, told, number)
    for candidate in candidates:
        log.keep(candidate)
        log.step("proposed", round=number, candidate=candidate.id, parent=candidate.parent, note=candidate.note)
    return candidates


def proposed(
    inputs: Inputs,
    search: Search,
    log: RunLog,
    reviser: Reviser,
    parent: Instruction,
    found: Inspection,
    told: Sequence[str],
    number: int,
) -> list[Instruction]:
    """What one reviser makes of the errors, asked for causes first where it reads."""
    packs = reviser.packs(found, inputs.seed(number, "evidence"))
    seeds = [inputs.seed(number, "reviser", i) for i in range(len(packs))]
    questions, findings = reviser.diagnosed(reviser.questions(parent, packs, told, seeds))
    if findings is not None:
        log.step("diagnosed", round=number, findings=[d.sentence() for d in findings])
    revision = revise(
        reviser.ask(questions),
        parent,
        packs,
        inputs.store.task,
        reviser.settings,
        author=reviser.author,
        seen=search.seen,
        taken=search.rule_ids,
    )
    search.revisions.setdefault(reviser.author, Revision()).add(revision)
    search.seen |= {proposal.instruction.wording for proposal in revision.proposals}
    if revision.refused:
        reasons = dict(sorted(revision.refused.items()))
        log.step("refused", round=number, reviser=reviser.client.model, reasons=reasons)
    return [proposal.instruction for proposal in revision.proposals]


def _train_batch(inputs: Inputs, number: int) -> list[Sample]:
    """Whole groups of train at random, up to about `train_rows` rows, in a fixed order."""
    by_group: dict[str, list[Sample]] = {}
    for sample in inputs.splits["train"]:
        by_group.setdefault(sample.group, []).append(sample)
    order = np.random.default_rng(inputs.seed(number, "train")).permutation(len(by_group))
    names, batch = sorted(by_group), list[Sample]()
    for i in order:
        if not batch or len(batch) + len(by_group[names[i]]) <= inputs.settings.train_rows:
            batch += by_group[names[i]]
    return sorted(batch, key=lambda s: s.id)


def judged(inputs: Inputs, search: Search, instruction: Instruction, samples: Sequence[Sample]) -> list[Judged]:
    """Samples with their truth, the teacher's verdict under an instruction, and what people wrote.

    Raises:
        BudgetSpent: not all could be asked.
    """
    verdicts = search.board.verdicts(instruction, samples)
    return [
        Judged(s, inputs.truths[s.id], v, inputs.comments.get(s.id, "")) for s, v in zip(samples, verdicts, strict=True)
    ]


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
        stands = expected is not None and expected >= search.board.value(winner, inputs.dev)
        draft = _draft(inputs, search, winner, rows, search.seen) if stands else None
        if draft is not None:
            search.board.judge([draft], inputs.dev)
    except BudgetSpent:
        return winner
    told = search.board.told(winner, inputs.dev) | {"dev": expected}
    log.step("redrafted", candidate=draft and draft.id, winner=winner.id, **told, stands=draft is not None)
    if draft is None:
        return winner
    log.keep(draft)
    return draft


def kept(inputs: Inputs, search: Search, log: RunLog, winner: Instruction) -> Instruction:
    """The winner as the search found it."""
    return winner


REDRAFTS = {"cross_validated": redrafted, "none": kept}


def _cross_validated(inputs: Inputs, search: Search, winner: Instruction, rows: Sequence[Sample]) -> float | None:
    """The metric on dev of drafts that were not shown the group; None where one cannot be drafted."""
    groups = sorted({s.group for s in inputs.dev})
    order = np.random.default_rng(inputs.seed("redraft folds")).permutation(len(groups))
    fold = {groups[at]: i % FOLDS for i, at in enumerate(order)}
    board, found = search.board, list[Floats]()
    for k in range(FOLDS):
        held = [s for s in inputs.dev if fold[s.group] == k]
        apart = {s.id for s in held}
        draft = _draft(inputs, search, winner, [s for s in rows if s.id not in apart], {inputs.incumbent.id})
        if draft is None:
            return None
        board.judge([draft], held)
        found.append(board.sums(draft, held))
    return board.metric.value(np.concatenate(found))


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
        exemplary=False,
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
