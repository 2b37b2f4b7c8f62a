"""The beginning of a run: what its rows can show, the incumbent judged on dev, and money set aside for the end."""

from piar.evolve.inputs import Inputs
from piar.evolve.ledger import check_uses, ledger, taught
from piar.evolve.promotion import power
from piar.evolve.purse import BudgetSpent, cost_of_an_answer
from piar.evolve.resume import RunLog
from piar.evolve.search import Search, one_grade
from piar.evolve.steadiness import watch
from store.errors import PiarError
from store.stats import spend


def open_run(inputs: Inputs, search: Search, log: RunLog) -> list[str]:
    """Judge the incumbent on dev, set money aside for the end, and say what the rows that decide can show.

    Returns:
        warnings: worn groups, groups that have taught the incumbent, an endpoint that changed.
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
    try:
        board.judge([incumbent], first)
    except BudgetSpent:
        fix = "Raise --max-usd, --max-calls or --max-tokens."
        raise PiarError("The budget does not cover judging dev once.", fix) from None
    judge = board.labeller.judge_name
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
