"""The PIAR loop: prompt the teacher, inspect its errors, auto-revise the instruction; promote what is real.

Search is loose and cheap: candidates race on dev, survivors join the others, of which parents are drawn. Promotion is
strict: the winner of the search meets the incumbent once, on holdout groups that nobody has looked at. Passing makes
it a proposal; a person accepts it. Stated by the paper (arXiv 2602.10006): the loop and its name. All else is ours.
"""

from dataclasses import asdict

from pydantic import Field

from piar.evolve.attribution import attribute
from piar.evolve.ending import BUDGET_SPENT, ended
from piar.evolve.finish import compare, on_test, promote, promotion_json
from piar.evolve.inputs import Inputs
from piar.evolve.promotion import power
from piar.evolve.purse import BudgetSpent
from piar.evolve.results import Comparison, Tested, Worth
from piar.evolve.resume import OnEvent, RunLog, begin
from piar.evolve.reviser import Models
from piar.evolve.round import REDRAFTS, revised
from piar.evolve.search import PARENTS, Search, raced
from piar.evolve.settings import EvolveSettings
from piar.evolve.setup import identity, open_run, prepare
from piar.evolve.truth import ceiling, people_heard
from piar.judging.outcome import OnProgress
from store.db import Store
from store.errors import PiarError
from store.journal import Journal
from store.stats import Result
from store.turns import alone
from store.types import Instruction

__all__ = ["EvolveReport", "EvolveSettings", "Models", "evolve"]


class EvolveReport(Result):
    """What `piar evolve --json` prints, and what the run keeps.

    Attributes:
        champion: the instruction that stands after the run: the proposal, or the incumbent.
        seed_instruction: the incumbent, which was to be beaten.
        proposal: the id that waits for `piar accept`, or None.
        holdout: incumbent against standing instruction (`seed`, `champion`) where promotion was decided (optimistic
            given promotion).
        test: the same on the untouched split, against `gold` and `majority`.
        detectable: what the holdout can show, in words.
        ceiling: how often one person agrees with the truth, None without raters.
        people: how much of what people said was used; see `piar.evolve.truth.people_heard`.
        attribution: what each of its rules fixes and breaks; see `piar.evolve.attribution.attribute`.
        stopped: why the search ended.
        errors: fewest errors of an instruction on the train rows of a round; None where no round was made.
        ending: how it ended, one of `piar.evolve.ending.Ending`.
        headline: what was decided, in one sentence.
        detail: the figures behind the decision.
        advice: what to do next.
        priced: whether teacher and reviser have a price; without one, `cost_usd` means nothing.
    """

    run: str
    champion: str
    seed_instruction: str
    proposal: str | None
    calls: int
    cost_usd: float
    rounds: int
    promotions: list[Tested]
    holdout: Comparison
    test: dict[str, Comparison | str]
    attribution: list[Worth]
    detectable: str
    ceiling: float | None
    stopped: str
    errors: int | None = None
    ending: str = ""
    headline: str = ""
    detail: str = ""
    advice: str = ""
    people: dict[str, int] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    priced: bool = True


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
        report = _with_ending(EvolveReport.model_validate(begun.finished))
        return report, instruction if report.proposal is None else store.instruction(report.proposal)
    try:
        inputs, search, log = prepare(store, models, instruction, settings, journal, begun, on_event, on_progress)
        with search.board.labeller:
            report, standing = _run(inputs, search, log)
    except KeyboardInterrupt:
        store.finish_run(begun.run_id, "interrupted")
        raise
    except PiarError as error:
        store.finish_run(begun.run_id, "failed", detail={"error": error.message})
        raise
    store.finish_run(begun.run_id, "done", report.cost_usd, report.model_dump(mode="json"))
    return report, standing


def _run(inputs: Inputs, search: Search, log: RunLog) -> tuple[EvolveReport, Instruction]:
    """The whole loop on one screen."""
    settings, board = inputs.settings, search.board
    warnings = open_run(inputs, search, log)
    rounds, stopped, stale = 0, "all rounds made", 0
    best = inputs.incumbent
    for rounds in range(1, settings.rounds + 1):
        try:
            parent = PARENTS[settings.parents](board, search.candidates, inputs.dev, inputs.seed(rounds, "parent"))
            candidates = revised(inputs, search, log, parent, rounds)  # P, I, A
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
    return _close(inputs, search, log, winner, rounds, stopped, warnings)


# -- the end ---------------------------------------------------------------------------------------


def _unheard(inputs: Inputs, search: Search) -> list[str]:
    """A warning when nothing that the reviser said could be tried."""
    if not search.refused or len(search.seen) > 1:
        return []
    told = ", ".join(f"{reason} ({n})" for reason, n in search.refused.most_common(3))
    return [
        f"Nothing that the reviser {inputs.reviser.client.model} said could be tried: {told}. `piar show run` keeps "
        "the steps; ask another model in [reviser], or change prompts/revise.j2."
    ]


def _close(
    inputs: Inputs, search: Search, log: RunLog, winner: Instruction, rounds: int, stopped: str, warnings: list[str]
) -> tuple[EvolveReport, Instruction]:
    """Promotion on the holdout, the untouched test split, what each rule is worth; then the report."""
    incumbent, board, purse, splits = inputs.incumbent, search.board, search.purse, inputs.splits
    purse.open_end()
    outcome = promote(inputs, board, log, winner) if winner.id != incumbent.id else None
    standing = winner if outcome and outcome.passed else incumbent
    holdout = compare(board, incumbent, standing, splits["holdout"], inputs.truths) if outcome else Comparison()
    test = on_test(inputs, board, standing)
    purse.open_attribution()
    attribution = attribute(board, standing, [*splits["dev"], *splits["holdout"]])
    report = EvolveReport(
        run=log.run_id,
        champion=standing.id,
        seed_instruction=incumbent.id,
        proposal=standing.id if standing is not incumbent else None,
        calls=purse.budget.calls,
        cost_usd=purse.budget.usd,
        rounds=rounds,
        promotions=[promotion_json(outcome)] if outcome else [],
        holdout=holdout,
        test=test,
        attribution=attribution,
        detectable=power([s.group for s in splits["holdout"]], inputs.settings.promotion.alpha).sentence(),
        ceiling=ceiling(inputs.truths.values()),
        stopped=stopped,
        errors=search.errors,
        people=people_heard(inputs.store, [s.id for samples in splits.values() for s in samples]),
        warnings=(*warnings, *_unheard(inputs, search)),
    )
    return _with_ending(report), standing


def _with_ending(report: EvolveReport) -> EvolveReport:
    return report.model_copy(update=asdict(ended(report.model_dump(mode="json"))))
