"""The PIAR loop: prompt the teacher, inspect its errors, auto-revise the instruction; promote what is real.

Search is loose and cheap: candidates race on dev, survivors join the others, and the best is revised next. Promotion
is strict: the winner of the search meets the incumbent once, on holdout groups that nobody has looked at. Passing makes
it a proposal; a person accepts it. Stated by the paper (arXiv 2602.10006): the loop and its name. All else is ours.
`SEARCHES` holds the ways to search; the beginning, the test and the end are those of all.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from piar.evolve.cross_fitting import cross_fitted
from piar.evolve.ending import BUDGET_SPENT
from piar.evolve.finish import Found, finish, with_ending
from piar.evolve.inputs import Inputs, automatic, by_grade, compared_on, deal, members, owners, rows_of, together
from piar.evolve.ledger import check_uses, ledger, taught
from piar.evolve.metric import chosen
from piar.evolve.promotion import power
from piar.evolve.purse import BudgetSpent, Purse, cost_of_an_answer, earlier_cost
from piar.evolve.results import EvolveReport
from piar.evolve.resume import Begun, OnEvent, RunLog, begin, data_fingerprint
from piar.evolve.reviser import Models, Reviser, counts_evidence, drafts_beside, needs_of, reviser_origin
from piar.evolve.round import REDRAFTS, revised
from piar.evolve.search import Scoreboard, Search, one_grade, raced
from piar.evolve.settings import EvolveSettings, ReviserSettings, SearchName
from piar.evolve.steadiness import watch
from piar.evolve.truth import load_truth, review_comments
from piar.instructions.prompts import template_source
from piar.judging.labeller import Labeller
from piar.judging.origin import Origin
from piar.judging.outcome import OnProgress
from piar.judging.requests import Assignment
from piar.offline import RulebookClient
from store.db import Store
from store.errors import PiarError
from store.ids import short_hash
from store.journal import Journal
from store.stats import spend
from store.turns import alone
from store.types import Instruction

__all__ = ["EvolveReport", "EvolveSettings", "Models", "evolve"]


def evolve(
    store: Store,
    models: Models,
    instruction: Instruction,
    settings: EvolveSettings | None = None,
    *,
    journal: Journal,
    restart: bool = False,
    on_event: OnEvent | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[EvolveReport, Instruction]:
    """Search for a better instruction and test the best one; ends with a proposal or with a plain no.

    The same call after a crash goes on where it was and ends the same way. A second one at the same time waits for the
    first and then has its report.

    Args:
        instruction: the incumbent, to be beaten: the committed `instruction.md`.
        journal: makes answers durable; the caller closes it.
        restart: abandon a run that was cut off, or search anew although nothing changed.

    Returns:
        the report, and the instruction that stands: the proposal, or the one given.

    Raises:
        UsageError: a run was cut off and its seed, data, task or models have changed since.
        PiarError: too few labelled samples, a worn-out holdout, a budget too small, a dead endpoint.
        KeyboardInterrupt: everything so far is kept.
    """
    with alone(journal.folder / "evolve.lock", "piar evolve"):
        asked = settings or EvolveSettings()
        return _evolve(store, models, instruction, asked, journal, restart, on_event, on_progress)


def _evolve(
    store: Store,
    models: Models,
    instruction: Instruction,
    settings: EvolveSettings,
    journal: Journal,
    restart: bool,
    on_event: OnEvent | None,
    on_progress: OnProgress | None,
) -> tuple[EvolveReport, Instruction]:
    begun = begin(store, "evolve", identity(store, models, instruction, settings), settings.seed, restart=restart)
    if begun.finished:
        report = with_ending(EvolveReport.model_validate(begun.finished))
        return report, instruction if report.proposal is None else store.instruction(report.proposal)
    try:
        inputs, search, log = prepare(store, models, instruction, settings, journal, begun, on_event, on_progress)
        with search.board.labeller:
            warnings = open_run(inputs, search, log)
            found = SEARCHES[settings.search](inputs, search, log)
            report, standing = finish(inputs, search, log, found, warnings)
    except KeyboardInterrupt:
        store.finish_run(begun.run_id, "interrupted")
        raise
    except PiarError as error:
        store.finish_run(begun.run_id, "failed", detail={"error": error.message})
        raise
    store.finish_run(begun.run_id, "done", report.cost_usd, report.model_dump(mode="json"))
    return report, standing


def by_rounds(inputs: Inputs, search: Search, log: RunLog) -> Found:
    """The whole loop on one screen."""
    settings, board = inputs.settings, search.board
    rounds, stopped, stale = 0, "all rounds made", 0
    best = inputs.incumbent
    for rounds in range(1, settings.rounds + 1):
        try:
            candidates = revised(inputs, search, log, best, rounds)  # P, I, A
            search.candidates += raced(inputs, search, log, candidates, rounds)  # S
        except BudgetSpent:
            stopped = BUDGET_SPENT
            break
        before, best = best, board.best(search.candidates, inputs.dev)
        stale = 0 if best.id != before.id else stale + 1
        log.flush()
        if stale >= settings.patience:
            stopped = f"no better candidate in {stale} rounds"
            break
    winner = REDRAFTS[settings.redraft](inputs, search, log, best)
    log.step("searched", rounds=rounds, stopped=stopped, pool=[i.id for i in search.candidates], best=winner.id)
    return Found(winner, [(winner, inputs.deciding)], rounds, stopped)


SEARCHES: dict[SearchName, Callable[[Inputs, Search, RunLog], Found]] = {
    "rounds": by_rounds,
    "cross_fitted": cross_fitted,
}


# -- the beginning ---------------------------------------------------------------------------------


def identity(store: Store, models: Models, instruction: Instruction, settings: EvolveSettings) -> dict[str, Any]:
    """What decides the outcome of a run; a run that was cut off goes on only while none of it has changed."""
    prompts = ["judge", "diagnose", "revise"]
    prompts += ["exemplify"] if settings.revision.max_examples else []
    prompts += ["neighbours"] if models.teacher.neighbours else []
    return {
        "seed": settings.seed,
        "task": store.task.hash,
        "data": data_fingerprint(store),
        "instruction": instruction.id,
        "teacher": Origin(store, models.teacher.judge, models.teacher.model).name,
        "reviser": reviser_origin(store, models.reviser).name,
        "prompts": short_hash([template_source(name, models.teacher.prompts) for name in prompts]),
        "settings": _kept(settings, counts=counts_evidence(models.reviser.client)),
    }


# Settings that came later; runs begun before did as their defaults say.
_LATER = ("search", "race", "metric")


def _kept(settings: EvolveSettings, *, counts: bool) -> dict[str, Any]:
    """The settings as runs have kept them from the first version on, so that one which was cut off goes on.

    Args:
        counts: whether the reviser is the offline inducer, beside which nobody drafts.
    """
    usual = {n for n in _LATER if getattr(settings, n) == EvolveSettings.model_fields[n].default}
    told = settings.model_dump(mode="json", exclude={"seed", *usual})
    if not told["revision"]["max_examples"]:
        del told["revision"]["max_examples"]
    if counts or settings.revision.draft == "none":
        del told["revision"]["draft"]
    told["redraft"], told["revision"]["diagnose"] = settings.redraft != "none", settings.revision.diagnose != "none"
    told["promotion"] |= {"guard_alpha": 0.1, "warn_uses": 3, "max_uses": 8}  # settings that are constants now
    return told | {"block": 100}


def prepare(
    store: Store,
    models: Models,
    instruction: Instruction,
    settings: EvolveSettings,
    journal: Journal,
    begun: Begun,
    on_event: OnEvent | None,
    on_progress: OnProgress | None,
) -> tuple[Inputs, Search, RunLog]:
    """Everything that a run needs, its samples dealt and its budget divided; nothing is asked.

    Raises:
        PiarError: too few labelled groups, or a budget that cannot suffice.
        UsageError: a cap in dollars, and a model without a price.
    """
    truths = load_truth(store, settings.truth)
    splits = deal(store, truths, settings)
    purse = Purse(settings, needs_of(settings, rows_of(splits), models.reviser.client))
    labeller = Labeller(models.teacher.session(store, journal, begun.run_id, purse.budget, on_progress))
    reviser = Reviser.of(models.reviser.session(store, journal, begun.run_id, purse.budget), settings.revision)
    drafter = _drafter(reviser) if drafts_beside(models.reviser.client, settings.revision) else None
    metric = chosen(settings.metric, store.task, compared_on(splits, settings.search), truths)
    board = Scoreboard(labeller, [s for found in splits.values() for s in found], truths, metric)
    inputs = Inputs(
        store,
        settings,
        reviser,
        drafter,
        instruction,
        truths,
        splits,
        slices=members(store, owners(store)),
        noticed={**members(store, automatic(store)), **by_grade(truths)},
        comments=review_comments(store),
    )
    search = Search(board, purse, candidates=[instruction], seen={instruction.wording})
    return inputs, search, RunLog(store, begun.run_id, on_event)


def _drafter(beside: Reviser) -> Reviser:
    """The offline inducer, in the run of a reviser that reads: one candidate, from all rows."""
    session = replace(beside.session, client=RulebookClient(), model=ReviserSettings())
    return Reviser.of(session, beside.settings.model_copy(update={"candidates": 1, "evidence": None}))


def open_run(inputs: Inputs, search: Search, log: RunLog) -> list[str]:
    """Judge the incumbent on dev, set money aside for the end, and say what the rows that decide can show.

    Returns:
        warnings: worn groups, groups that have taught the incumbent, an endpoint that changed.

    Raises:
        PiarError: worn out groups, a budget that cannot end the run, or a teacher that gives no grades.
    """
    incumbent, board, first = inputs.incumbent, search.board, inputs.dev or inputs.deciding
    groups = [s.group for s in inputs.deciding]
    used = ledger(inputs.store, groups, log.run_id)
    warning, learnt = check_uses(used), _learnt(inputs, groups)
    level = spend(used.spent, total=inputs.settings.promotion.alpha)
    told = power(groups, level, board.metric, inputs.layout.name, inputs.layout.folds)
    log.keep(incumbent)
    log.step(
        "opened",
        champion=incumbent.id,
        level=level,
        detectable=told.sentence(),
        warning=warning,
        neighbours=shown.k if (shown := board.labeller.session.neighbours) else 0,
    )
    judge = board.labeller.judge_name
    asked = board.labeller.agenda.pending([Assignment(incumbent, together(inputs.splits, inputs.layout.parts[-2:][0]))])
    search.purse.refuse_too_little(asked, *earlier_cost(inputs.store, judge, incumbent.id, but=log.run_id))
    try:
        board.judge([incumbent], first)
    except BudgetSpent:
        fix = "Raise --max-usd, --max-calls or --max-tokens."
        raise PiarError("The budget does not cover judging dev once.", fix) from None
    search.purse.keep_for_the_end(*cost_of_an_answer(search.purse.budget, inputs.store, judge, incumbent.id))
    log.step("champion", instruction=incumbent.id, **board.told(incumbent, first), rows=len(first))
    log.flush()
    dull = one_grade(board, incumbent, first)
    alarm = watch(inputs, board, log)
    log.flush()
    return [said for said in (warning, learnt, dull, alarm) if said]


def _learnt(inputs: Inputs, groups: list[str]) -> str:
    """A warning where rows that decide have taught the incumbent; "" where none has."""
    names = set(groups)
    known = names & taught(inputs.store, inputs.incumbent.id)
    if not known:
        return ""
    return (
        f"{len(known)} of the {len(names)} groups that decide have taught the instruction in force, in a search by "
        "cross-fitting: what it is right on there flatters it, so a better one is harder to show. Newly labelled "
        "groups tell more."
    )
