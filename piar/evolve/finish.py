"""The end of a run: promotion on the rows that decide, the untouched test split, and what each rule is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, cast

import numpy as np

from piar.evolve.ending import ended
from piar.evolve.guards import Paired
from piar.evolve.inputs import Inputs, together
from piar.evolve.ledger import fingerprints, ledger, record
from piar.evolve.promotion import Outcome, confirm, over_folds, power
from piar.evolve.purse import BudgetSpent
from piar.evolve.results import Audited, Comparison, EvolveReport, GuardJson, Revised, Side, Tested, Worth, gain_json
from piar.evolve.resume import RunLog
from piar.evolve.reviser import Reviser
from piar.evolve.revision import UNANSWERED
from piar.evolve.search import Scoreboard, Search
from piar.evolve.steadiness import Repeated, ask_again
from piar.evolve.truth import Truth, TruthMode, ceiling, load_truth, people_heard
from store.db import Store
from store.errors import PiarError
from store.metrics import accuracy, confusion_by_group, macro_f1
from store.stats import FEWEST, Floats, Ints, group_codes, paired_gain
from store.types import Instruction, Sample

Judging = tuple[Instruction, Sequence[Sample]]  # samples, and the instruction that they are judged under


@dataclass(frozen=True, slots=True)
class Found:
    """What a search ends with.

    Attributes:
        best: what would be proposed; the incumbent where nothing better was found.
        tested: what decides on it, each sample once: itself on the holdout, or the drafts of cross-fitting, each on
            its fold.
        rounds: that were made.
        stopped: why it ended.
        folds: of cross-fitting; 0 where what would be proposed is itself tested.
    """

    best: Instruction
    tested: Sequence[Judging]
    rounds: int
    stopped: str
    folds: int = 0

    @property
    def samples(self) -> list[Sample]:
        """The samples of all that is tested, in its order."""
        return [sample for _, rows in self.tested for sample in rows]


def finish(
    inputs: Inputs, search: Search, log: RunLog, found: Found, warnings: list[str]
) -> tuple[EvolveReport, Instruction]:
    """Promotion on the rows that decide, the untouched test split, what each rule is worth; then the report."""
    incumbent, board, purse, splits = inputs.incumbent, search.board, search.purse, inputs.splits
    purse.open_end()
    outcome = promote(inputs, board, log, found) if found.best.id != incumbent.id else None
    standing = found.best if outcome and outcome.passed else incumbent
    stood = found.tested if standing is not incumbent else [(incumbent, found.samples)]
    holdout = compare(board, incumbent, stood, inputs.truths, found.folds) if outcome else Comparison()
    test = on_test(inputs, board, standing)
    groups = [s.group for s in inputs.deciding]
    told = [*_plain(inputs, board, found), *_unseen(inputs, found)] if standing is not incumbent else []
    provable = power(groups, inputs.settings.promotion.alpha, board.metric, inputs.layout.name, inputs.layout.folds)
    purse.open_attribution()
    attribution = attribute(board, standing, [*splits["dev"], *splits["holdout"]])
    report = EvolveReport(
        run=log.run_id,
        champion=standing.id,
        seed_instruction=incumbent.id,
        proposal=standing.id if standing is not incumbent else None,
        calls=purse.budget.calls,
        cost_usd=purse.budget.usd,
        search=inputs.settings.search,
        rounds=found.rounds,
        promotions=[promotion_json(outcome)] if outcome else [],
        holdout=holdout,
        test=test,
        attribution=attribution,
        detectable=provable.sentence(),
        ceiling=ceiling(inputs.truths.values()),
        of_one=sum(truth.of_one for truth in inputs.truths.values()),
        stopped=found.stopped,
        errors=search.errors,
        revisers=_revisers(inputs, search, found.best),
        people=people_heard(inputs.store, [s.id for samples in splits.values() for s in samples]),
        warnings=(*warnings, *_unheard(inputs, search), *told),
    )
    return with_ending(report), standing


def with_ending(report: EvolveReport) -> EvolveReport:
    return report.model_copy(update=asdict(ended(report.model_dump(mode="json"))))


def _revisers(inputs: Inputs, search: Search, winner: Instruction) -> list[Revised]:
    """What each reviser brought, the project's own first."""
    asked = [one for one in (inputs.reviser, inputs.drafter) if one and one.author in search.revisions]
    return [_revised(one, search, winner) for one in asked]


def _revised(reviser: Reviser, search: Search, winner: Instruction) -> Revised:
    brought = search.revisions[reviser.author]
    return {
        "model": reviser.client.model,
        "answers": brought.answers,
        "read": brought.read,
        "asked": brought.asked,
        "offered": brought.offered,
        "usable": len(brought.proposals),
        "survived": sum(c.author == reviser.author for c in search.candidates[1:]),
        "won": winner is not search.candidates[0] and winner.author == reviser.author,
        "refused": dict(brought.refused.most_common()),
        "shortened": list(reviser.fit.told),
    }


def _unheard(inputs: Inputs, search: Search) -> list[str]:
    """A warning when nothing that the reviser said could be tried."""
    brought = search.revisions.get(inputs.reviser.author)
    if not brought or not brought.refused or brought.proposals:
        return []
    told = ", ".join(f"{reason} ({n})" for reason, n in brought.refused.most_common(3))
    silent = all(reason.startswith(UNANSWERED) for reason in brought.refused)
    mend = "`piar doctor --ask` tests it" if silent else "ask another model in [reviser], or change prompts/revise.j2"
    return [
        f"Nothing that the reviser {inputs.reviser.client.model} said could be tried: {told}. `piar show run` keeps "
        f"the steps; {mend}."
    ]


def _plain(inputs: Inputs, board: Scoreboard, found: Found) -> list[str]:
    """A warning when a proposal is not shown to be better than one grade for every row: a gain over a worse constant
    is a gain, and worth nothing."""
    parts = inputs.layout.parts
    known = [s for names in parts[:-1] or parts for s in together(inputs.splits, names)]
    often = int(np.bincount(board.truth(known)).argmax())
    truth = board.truth(found.samples)
    constant, right = truth == often, said(board, found.tested) == truth
    gain = paired_gain(constant, right, [s.group for s in found.samples])
    if gain.above:
        return []
    return [
        f'The proposal is not shown to be better than giving "{board.symbols[often]}" to every row: right on '
        f"{100 * np.mean(right):.1f} % of the rows {inputs.layout.where}, that grade on "
        f"{100 * np.mean(constant):.1f} %. See what it says (`piar show proposal`) before you accept it."
    ]


def _unseen(inputs: Inputs, found: Found) -> list[str]:
    """A warning where a text that was not itself tested has too few untouched groups for a figure of its own."""
    groups = len({s.group for s in inputs.splits["test"]})
    if not found.folds or groups >= FEWEST:
        return []
    return [
        f"What is proposed has no figure of its own: every labelled row but those of test has taught it, and test has "
        f"{groups} labelled group{'' if groups == 1 else 's'}, fewer than {FEWEST}. Label more before you rely on it."
    ]


def promote(inputs: Inputs, board: Scoreboard, log: RunLog, found: Found) -> Outcome:
    """Test what the search found against the incumbent, audit the teacher, and record the outcome.

    Raises:
        PiarError: the budget ended first.
    """
    incumbent, samples = inputs.incumbent, found.samples
    groups = [s.group for s in samples]
    try:
        board.judge([incumbent], samples)
        for instruction, rows in found.tested:
            board.judge([instruction], rows)
    except BudgetSpent:
        raise PiarError("The budget ended before the final test.", "Raise --max-usd, then run it again.") from None
    used, paired = ledger(inputs.store, groups, log.run_id), _paired(inputs, board, found)
    outcome = confirm(
        found.best.id,
        incumbent.id,
        paired,
        inputs.store.task,
        used,
        inputs.settings.promotion,
        inputs.seed("promotion"),
        board.metric,
        inputs.layout.where,
        found.folds,
    )
    audited = _audit(inputs, board, log, found) if outcome.passed else None
    if audited and (less := _wavers(paired, outcome, audited)):
        reason = (
            f"{outcome.reason}, but the teacher changes its own answer on {100 * audited.rate:.0f} % of "
            f"{audited.asked} rows asked twice: {less}"
        )
        outcome = replace(outcome, refused_by="audit", reason=reason)
    drafted = sum(instruction.id != incumbent.id for instruction, _ in found.tested)
    outcome = replace(outcome, audit=audited, drafted=drafted)
    detail = {**promotion_json(outcome), "level": outcome.level, "holdout_groups": fingerprints(groups)}
    verdict = "proposed" if outcome.passed else "refused"
    record(inputs.store, "promotion", found.best.id, incumbent.id, verdict, outcome.reason, detail, "piar", log.run_id)
    log.step("promotion", candidate=found.best.id, passed=outcome.passed, reason=outcome.reason)
    log.flush()
    return outcome


def _wavers(paired: Paired, outcome: Outcome, audited: Repeated) -> str:
    """Why a gain is within what the teacher changes by itself; "" where it is not.

    An accuracy cannot move by more than the share of answers that change. Of other metrics that is not so: there the
    candidate has to change more answers than asking twice does.
    """
    if outcome.metric.name == "accuracy":
        return "a gain no larger than that is not claimed" if outcome.gain.mean <= audited.rate else ""
    changed = float(np.mean(paired.after != paired.before))
    less = f"the candidate changes no more ({100 * changed:.0f} %), and its gain is not claimed"
    return less if changed <= audited.rate else ""


def _audit(inputs: Inputs, board: Scoreboard, log: RunLog, found: Found) -> Repeated | None:
    """Ask some of the rows that decided a second time; the same ones for the same seed."""
    rows = len(found.samples)
    size = min(inputs.settings.audit.items, rows)
    if not size:
        return None
    chosen = set(np.random.default_rng(inputs.seed("audit")).choice(rows, size, replace=False).tolist())
    at, asked, flipped = 0, 0, 0
    for instruction, held in found.tested:
        samples = [s for i, s in enumerate(held, at) if i in chosen]
        before = [board.symbols[g] if g >= 0 else None for g in board.grades(instruction, samples)]
        again = ask_again(board.labeller, instruction, samples, before, "audit")
        at, asked, flipped = at + len(held), asked + again.asked, flipped + again.flipped
    log.step("audit", model=board.teacher, asked=asked, flipped=flipped)
    return Repeated(asked, flipped)


def said(board: Scoreboard, tested: Sequence[Judging]) -> Ints:
    """(N,) grade positions of samples, each under its own instruction, in order."""
    return np.concatenate([board.grades(instruction, rows) for instruction, rows in tested])


def _paired(inputs: Inputs, board: Scoreboard, found: Found) -> Paired:
    samples = found.samples
    return Paired(
        groups=np.array([s.group for s in samples]),
        truth=board.truth(samples),
        before=board.grades(inputs.incumbent, samples),
        after=said(board, found.tested),
        score_before=board.scores(inputs.incumbent, samples),
        score_after=np.concatenate([board.scores(instruction, rows) for instruction, rows in found.tested]),
        slices={name: np.array([s.id in ids for s in samples]) for name, ids in inputs.slices.items()},
    )


def promotion_json(outcome: Outcome) -> Tested:
    """An outcome as plain JSON."""
    return {
        "candidate": outcome.candidate,
        "against": outcome.against,
        "groups": outcome.groups,
        "n": outcome.n,
        "fixed": outcome.fixed,
        "broke": outcome.broke,
        "accuracy": {"before": outcome.before, "after": outcome.after},
        "metric": outcome.metric.name,
        "score": {"before": outcome.scores[0], "after": outcome.scores[1]},
        "gain": gain_json(outcome.gain),
        "p_value": outcome.gain.p_value,
        "level": outcome.level,
        "guards": [cast("GuardJson", asdict(g)) for g in outcome.guards],
        "passed": outcome.passed,
        "refused_by": outcome.refused_by,
        "reason": outcome.reason,
        "folds": outcome.folds,
        "drafted": outcome.drafted,
        "audit": Audited(asked=outcome.audit.asked, flipped=outcome.audit.flipped) if outcome.audit else None,
    }


def on_test(inputs: Inputs, board: Scoreboard, standing: Instruction) -> dict[str, Comparison | str]:
    """Incumbent and standing instruction on the untouched split, against gold and against the raters' majority."""
    samples = inputs.splits["test"]
    if not samples:
        return {}
    try:
        board.judge([inputs.incumbent, standing], samples)
    except BudgetSpent:
        return {"skipped": "the budget is spent"}
    found: dict[str, Comparison | str] = {
        inputs.settings.truth: compare(board, inputs.incumbent, [(standing, samples)], inputs.truths)
    }
    others: tuple[TruthMode, ...] = ("gold", "majority")
    for mode in others:
        if mode not in found and (truths := _other_truth(inputs.store, mode)):
            known = [(standing, [s for s in samples if s.id in truths])]
            found[mode] = compare(board, inputs.incumbent, known, truths)
    return found


def _other_truth(store: Store, mode: TruthMode) -> dict[str, Truth]:
    try:
        return load_truth(store, mode)
    except PiarError:
        return {}


def compare(
    board: Scoreboard, incumbent: Instruction, standing: Sequence[Judging], truths: Mapping[str, Truth], folds: int = 0
) -> Comparison:
    """Two sides on the same rows, and the gain by the run's metric with its interval by group.

    Args:
        standing: one side; the incumbent is the other.
        folds: of cross-fitting, where that is how one side was judged.
    """
    samples = [s for _, rows in standing for s in rows]
    if not samples:
        return {}
    codes, count = group_codes([s.group for s in samples])
    symbols = board.symbols
    truth = np.array([symbols.index(truths[s.id].grade) for s in samples])
    sums, sides = list[Floats](), list[Side]()
    for grades in (board.grades(incumbent, samples), said(board, standing)):
        sums.append(board.sums_of(grades, samples, truth))
        table = confusion_by_group(codes, count, truth, grades, len(symbols)).sum(axis=0)
        square = table.reshape(len(symbols), len(symbols) + 1)
        score = board.metric.value(sums[-1])
        sides.append({"accuracy": float(accuracy(square)), "macro_f1": float(macro_f1(square)), "score": score})
    return {
        "n": len(samples),
        "groups": count,
        "seed": sides[0],
        "champion": sides[1],
        "metric": board.metric.name,
        "gain": gain_json(over_folds(board.metric.gain(sums[0], sums[1], seed=0), folds)),
    }


# -- what each rule is worth -----------------------------------------------------------------------


def attribute(board: Scoreboard, instruction: Instruction, samples: Sequence[Sample]) -> list[Worth]:
    """What each rule is worth: the instruction with and without it, on the rows that cite it.

    Rows that do not cite a rule are taken to be untouched by it. That is exact for the offline teacher and saves
    most calls for a language model, where any edit can flip any row: there it is an estimate.

    Args:
        samples: of dev and holdout.

    Returns:
        one for each rule; fewer when the budget ends, none for a judge that gives grades without a reason.
    """
    found: list[Worth] = []
    try:
        verdicts = board.verdicts(instruction, samples)
        if not any(v.trace and (v.trace.rules or v.trace.evidence or v.trace.steps) for v in verdicts):
            return []  # this judge writes grades alone: who cites nothing anywhere says nothing of rules
        cited = {
            r.id: [s for s, v in zip(samples, verdicts, strict=True) if v.trace and r.id in v.trace.rules]
            for r in instruction.rules
        }
        without = {
            r.id: replace(instruction, rules=tuple(o for o in instruction.rules if o is not r))
            for r in instruction.rules
        }
        for rule in instruction.rules:
            board.judge([without[rule.id]], cited[rule.id])
            found.append(_worth(board, rule.id, instruction, without[rule.id], cited[rule.id]))
    except BudgetSpent:
        pass
    return found


def _worth(board: Scoreboard, rule: str, whole: Instruction, without: Instruction, rows: Sequence[Sample]) -> Worth:
    if not rows:
        return {"rule": rule, "cited": 0, "fixes": 0, "breaks": 0, "gain": None, "state": "dead"}
    truth = board.truth(rows)
    right, otherwise = (board.grades(i, rows) == truth for i in (whole, without))
    gain = paired_gain(otherwise, right, [s.group for s in rows])
    state: Literal["helps", "harms", "unclear"] = "helps" if gain.above else "harms" if gain.below else "unclear"
    return {
        "rule": rule,
        "cited": len(rows),
        "fixes": int(np.sum(right & ~otherwise)),
        "breaks": int(np.sum(otherwise & ~right)),
        "gain": gain_json(gain),
        "state": state,
    }
