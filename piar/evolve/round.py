"""One round of the loop: prompt, inspect, auto-revise, race.

A round is not begun with a budget that cannot end it, and a race narrows to what is left: no answer is paid for that
decides nothing.
"""

from collections.abc import Sequence

import numpy as np

from piar.evolve.inspection import Cluster, Inspection, Judged, contrast_evidence, hints, inspect, whole_evidence
from piar.evolve.resume import RunLog
from piar.evolve.revision import contradiction, revise, shares
from piar.evolve.selection import PAIRS, RACES, race
from piar.evolve.state import Inputs, Search
from piar.instructions.operations import merge
from piar.instructions.revision_schema import EvidenceItem
from piar.llm.base import Request
from store.types import Instruction, Sample

RACED_IN = 3  # a race has at least so many blocks, however small dev is


def revised(inputs: Inputs, search: Search, log: RunLog, parent: Instruction, number: int) -> list[Instruction]:
    """Prompt and inspect on train, ask the reviser, and add a merge of two that complement each other.

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
    packs = _packs(inputs, found, number)
    answers = inputs.reviser.ask(_questions(inputs, log, parent, told, packs, number))
    revision = revise(
        answers,
        parent,
        packs,
        inputs.store.task,
        inputs.settings.revision,
        author=inputs.reviser.author,
        seen=search.seen,
        taken=search.rule_ids,
    )
    candidates = [p.instruction for p in revision.proposals]
    joined = _merge(inputs, search)
    candidates += [joined] if joined and joined.id not in {c.id for c in candidates} else []
    for candidate in candidates:
        search.seen.add(candidate.id)
        log.keep(candidate)
        log.step("proposed", round=number, candidate=candidate.id, parent=candidate.parent, note=candidate.note)
    if revision.refused:
        search.refused += revision.refused
        log.step("refused", round=number, reasons=dict(sorted(revision.refused.items())))
    return candidates


def _questions(
    inputs: Inputs,
    log: RunLog,
    parent: Instruction,
    told: Sequence[str],
    packs: Sequence[Sequence[EvidenceItem]],
    number: int,
) -> list[Request]:
    """One question to the reviser for each pack of evidence; with its own diagnosis in it, where it reads evidence
    instead of counting it."""
    reviser, settings = inputs.reviser, inputs.settings.revision
    wanted = shares(settings.candidates, len(packs))
    questions = [
        reviser.question(parent, pack, told, candidates=wanted[i], seed=inputs.seed(number, "reviser", i))
        for i, pack in enumerate(packs)
    ]
    if not settings.diagnose or reviser.counts:
        return questions
    informed, findings = reviser.diagnosed(questions)
    log.step("diagnosed", round=number, findings=[d.sentence() for d in findings])
    return informed


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


def _packs(inputs: Inputs, found: Inspection, number: int) -> list[tuple[EvidenceItem, ...]]:
    """What each request shows: everything for a reviser that counts, one cluster each for one that reads."""
    reviser, seed = inputs.reviser, inputs.seed(number, "evidence")
    if reviser.counts:
        return [whole_evidence(found.judged, reviser.limit, seed)]
    focuses: list[Cluster | None] = [*found.clusters[: inputs.settings.revision.candidates]] or [None]
    return [contrast_evidence(found, reviser.limit, seed, focus) for focus in focuses]


def _merge(inputs: Inputs, search: Search) -> Instruction | None:
    pair = PAIRS[inputs.settings.merge](search.board, search.candidates, inputs.dev, search.merged)
    if pair is None:
        return None
    search.merged.add((pair[0].id, pair[1].id))
    merged = merge(*pair, taken=search.rule_ids)
    fits = len(merged.rules) <= inputs.settings.revision.max_rules and contradiction(merged) is None
    return merged if fits and merged.id not in search.seen else None


def judged(inputs: Inputs, search: Search, instruction: Instruction, samples: Sequence[Sample]) -> list[Judged]:
    """Samples with their truth, the teacher's verdict under an instruction, and what people wrote.

    Raises:
        BudgetSpent: not all could be asked.
    """
    verdicts = search.board.verdicts(instruction, samples)
    return [
        Judged(s, inputs.truths[s.id], v, inputs.comments.get(s.id, "")) for s, v in zip(samples, verdicts, strict=True)
    ]


def raced(
    inputs: Inputs, search: Search, log: RunLog, candidates: Sequence[Instruction], number: int
) -> list[Instruction]:
    """The candidates that are not beaten on dev.

    Raises:
        BudgetSpent: not even one could be judged on all of dev.
    """
    best = search.board.best(search.candidates, inputs.dev)
    size = min(inputs.settings.block, -(-len(inputs.dev) // RACED_IN))
    plan = RACES[inputs.settings.race](search.board, best, inputs.dev, size, inputs.seed(number, "race"))
    survivors, dropped = race(search.board, best, candidates, plan)
    for name, reason in dropped.items():
        log.step("dropped", round=number, candidate=name, reason=reason)
    for candidate in survivors:
        score = float(search.board.scores(candidate, inputs.dev).mean())
        log.step("survived", round=number, candidate=candidate.id, dev=score)
    return survivors
