"""One round of the loop (prompt, inspect, auto-revise, race), and the winner drafted anew at the end of the search.

A round is not begun with a budget that cannot end it, and a race narrows to what is left: no answer is paid for that
decides nothing.
"""

from collections.abc import Sequence

import numpy as np

from piar.evolve.diagnosis import diagnosing, informed, read_diagnoses
from piar.evolve.inspection import Cluster, Inspection, Judged, contrast_evidence, hints, inspect, whole_evidence
from piar.evolve.purse import BudgetSpent
from piar.evolve.revision import contradiction, counts_evidence, evidence_limit, request, revise, shares
from piar.evolve.selection import blocks, complementary, race
from piar.evolve.state import Loop, reviser_origin
from piar.instructions.operations import merge
from piar.instructions.revision_schema import EvidenceItem
from piar.judging.ask_once import ask_once
from piar.llm.base import Request
from store.types import Completion, Instruction, Sample

RACED_IN = 3  # a race has at least so many blocks, however small dev is


def revised(loop: Loop, parent: Instruction, number: int) -> list[Instruction]:
    """Prompt and inspect on train, ask the reviser, and add a merge of two that complement each other.

    Raises:
        BudgetSpent: what is left would not bring one candidate to the end of its race.
    """
    batch = _train_batch(loop, number)
    loop.purse.afford(len(loop.board.missing(parent, batch)) + 1 + len(loop.dev))
    judged = _judged(loop, parent, batch)
    found = inspect(judged, parent, {**loop.found, **loop.slices})
    loop.errors = len(found.errors) if loop.errors is None else min(loop.errors, len(found.errors))
    told = hints(found, learn=not counts_evidence(loop.models.reviser))
    loop.log.step(
        "inspected", round=number, parent=parent.id, rows=len(judged), errors=len(found.errors), causes=found.counts(),
        hints=list(told),
    )  # fmt: skip
    packs = _packs(loop, found, number)
    answers = _ask_reviser(loop, _diagnosed(loop, _requests(loop, parent, told, packs, number), number))
    revision = revise(
        answers, parent, packs, loop.store.task, loop.settings.revision,
        author=_author(loop), seen=loop.seen, taken=_ids_in_use(loop.pool),
    )  # fmt: skip
    candidates = [p.instruction for p in revision.proposals]
    joined = _merge(loop)
    candidates += [joined] if joined and joined.id not in {c.id for c in candidates} else []
    for candidate in candidates:
        loop.seen.add(candidate.id)
        loop.log.keep(candidate)
        loop.log.step("proposed", round=number, candidate=candidate.id, parent=candidate.parent, note=candidate.note)
    if revision.refused:
        loop.refused += revision.refused
        loop.log.step("refused", round=number, reasons=dict(sorted(revision.refused.items())))
    return candidates


def _requests(
    loop: Loop, parent: Instruction, told: Sequence[str], packs: Sequence[tuple[EvidenceItem, ...]], number: int
) -> list[Request]:
    """One question to the reviser for each pack of evidence."""
    settings = loop.settings.revision
    return [
        request(
            loop.models.reviser, parent, pack, told, loop.store.task, settings,
            loop.models.reviser_settings, candidates=wanted,
            seed=loop.seed(number, "reviser", i) % 2**31, prompts=loop.prompts,
        )
        for i, (pack, wanted) in enumerate(zip(packs, shares(settings.candidates, len(packs)), strict=True))
    ]  # fmt: skip


def _diagnosed(loop: Loop, requests: Sequence[Request], number: int) -> list[Request]:
    """The questions with the reviser's own diagnosis in them, where it reads evidence instead of counting it."""
    reviser = loop.models.reviser
    if not loop.settings.revision.diagnose or counts_evidence(reviser):
        return list(requests)
    asked = [diagnosing(reviser, r, loop.store.task, loop.models.reviser_settings, loop.prompts) for r in requests]
    found = [read_diagnoses(answer) for answer in _ask_reviser(loop, asked)]
    loop.log.step("diagnosed", round=number, findings=[d.sentence() for diagnoses in found for d in diagnoses])
    return [informed(reviser, r, diagnoses) for r, diagnoses in zip(requests, found, strict=True)]


def _ask_reviser(loop: Loop, requests: Sequence[Request]) -> list[Completion]:
    """Answers in order.

    Raises:
        BudgetSpent: not all could be asked.
    """
    answers = ask_once(
        loop.store, loop.models.reviser, loop.journal, requests, role="reviser", run_id=loop.log.run_id,
        budget=loop.purse.budget, model=loop.models.reviser_settings,
        origin=reviser_origin(loop.store, loop.models),
    )  # fmt: skip
    if any(a.failure and a.failure.kind == "budget" for a in answers):
        raise BudgetSpent
    return answers


def _train_batch(loop: Loop, number: int) -> list[Sample]:
    """Whole groups of train at random, up to about `train_rows` rows, in a fixed order."""
    by_group: dict[str, list[Sample]] = {}
    for sample in loop.splits["train"]:
        by_group.setdefault(sample.group, []).append(sample)
    order = np.random.default_rng(loop.seed(number, "train")).permutation(len(by_group))
    names, batch = sorted(by_group), list[Sample]()
    for i in order:
        if not batch or len(batch) + len(by_group[names[i]]) <= loop.settings.train_rows:
            batch += by_group[names[i]]
    return sorted(batch, key=lambda s: s.id)


def _packs(loop: Loop, found: Inspection, number: int) -> list[tuple[EvidenceItem, ...]]:
    """What each request shows: everything for a reviser that counts, one cluster each for one that reads."""
    settings, seed = loop.settings.revision, loop.seed(number, "evidence")
    limit = evidence_limit(loop.models.reviser, settings)
    if counts_evidence(loop.models.reviser):
        return [whole_evidence(found.judged, limit, seed)]
    focuses: list[Cluster | None] = [*found.clusters[: settings.candidates]] or [None]
    return [contrast_evidence(found, limit, seed, focus) for focus in focuses]


def _merge(loop: Loop) -> Instruction | None:
    pair = complementary(loop.board, loop.pool, loop.dev, loop.merged)
    if pair is None:
        return None
    loop.merged.add((pair[0].id, pair[1].id))
    merged = merge(*pair, taken=_ids_in_use(loop.pool))
    fits = len(merged.rules) <= loop.settings.revision.max_rules and contradiction(merged) is None
    return merged if fits and merged.id not in loop.seen else None


def _ids_in_use(pool: Sequence[Instruction]) -> set[str]:
    return {rule.id for instruction in pool for rule in instruction.rules}


def _author(loop: Loop) -> str:
    return f"reviser:{loop.models.reviser.model}"


def _judged(loop: Loop, instruction: Instruction, samples: Sequence[Sample]) -> list[Judged]:
    verdicts = loop.board.verdicts(instruction, samples)
    return [
        Judged(s, loop.truths[s.id], v, loop.comments.get(s.id, "")) for s, v in zip(samples, verdicts, strict=True)
    ]


def raced(loop: Loop, candidates: Sequence[Instruction], number: int) -> list[Instruction]:
    """The candidates that are not beaten on dev.

    Raises:
        BudgetSpent: not even one could be judged on all of dev.
    """
    best = loop.best()
    size = min(loop.settings.block, -(-len(loop.dev) // RACED_IN))
    plan = blocks(loop.board, best, loop.dev, size, loop.seed(number, "race"))
    survivors, dropped = race(loop.board, best, candidates, plan)
    for name, reason in dropped.items():
        loop.log.step("dropped", round=number, candidate=name, reason=reason)
    for candidate in survivors:
        score = float(loop.board.scores(candidate, loop.dev).mean())
        loop.log.step("survived", round=number, candidate=candidate.id, dev=score)
    return survivors
