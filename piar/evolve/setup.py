"""The beginning of a run: what must not change, who is in which split, what may be spent, and the incumbent on dev."""

from typing import Any

from piar.evolve.inputs import Inputs, automatic, by_grade, deal, members, owners, rows_of
from piar.evolve.ledger import check_uses, ledger
from piar.evolve.promotion import power
from piar.evolve.purse import BudgetSpent, Needs, Purse
from piar.evolve.resume import Begun, OnEvent, RunLog, data_fingerprint
from piar.evolve.reviser import Models, Reviser, reviser_origin
from piar.evolve.revision import evidence_limit
from piar.evolve.search import Scoreboard, Search
from piar.evolve.settings import EvolveSettings
from piar.evolve.steadiness import Canary, ask_again, changed_endpoint, known_canary, last_flip_rate
from piar.evolve.truth import load_truth, review_comments
from piar.instructions.prompts import template_source
from piar.judging.labeller import Labeller
from piar.judging.origin import Origin
from piar.judging.outcome import OnProgress
from store.db import Store
from store.errors import PiarError
from store.ids import short_hash
from store.journal import Journal
from store.stats import spend
from store.types import Instruction

_PROMPTS = ("judge", "diagnose", "revise")


def identity(store: Store, models: Models, instruction: Instruction, settings: EvolveSettings) -> dict[str, Any]:
    """What decides the outcome of a run; a run that was cut off goes on only while none of it has changed."""
    return {
        "seed": settings.seed,
        "task": store.task.hash,
        "data": data_fingerprint(store),
        "instruction": instruction.id,
        "teacher": Origin(store, models.teacher.judge, models.teacher.model).name,
        "reviser": reviser_origin(store, models.reviser).name,
        "prompts": short_hash([template_source(name, models.teacher.prompts) for name in _PROMPTS]),
        "settings": _kept(settings),
    }


_LATER = ("race", "parents", "merge")  # settings that came later; runs begun before did as their defaults say


def _kept(settings: EvolveSettings) -> dict[str, Any]:
    """The settings as runs have kept them from the first version on, so that one which was cut off goes on."""
    usual = {n for n in _LATER if getattr(settings, n) == EvolveSettings.model_fields[n].default}
    told = settings.model_dump(mode="json", exclude={"seed", *usual})
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
    evidence = evidence_limit(models.reviser.client, settings.revision)
    purse = Purse(settings, Needs(settings, rows_of(splits), evidence))
    labeller = Labeller(models.teacher.session(store, journal, begun.run_id, purse.budget, on_progress))
    reviser = Reviser(models.reviser.session(store, journal, begun.run_id, purse.budget), settings.revision)
    board = Scoreboard(labeller, [s for found in splits.values() for s in found], truths)
    inputs = Inputs(
        store,
        settings,
        reviser,
        instruction,
        truths,
        splits,
        slices=members(store, owners(store)),
        noticed={**members(store, automatic(store)), **by_grade(truths)},
        comments=review_comments(store),
    )
    search = Search(board, purse, candidates=[instruction], seen={instruction.id})
    return inputs, search, RunLog(store, begun.run_id, on_event)


def open_run(inputs: Inputs, search: Search, log: RunLog) -> list[str]:
    """Judge the incumbent on dev, set money aside for the end, and say what the holdout can show.

    Returns:
        warnings: a worn holdout, an endpoint that changed.
    """
    incumbent, board = inputs.incumbent, search.board
    used = ledger(inputs.store, [s.group for s in inputs.splits["holdout"]], log.run_id)
    warning = check_uses(used)
    level = spend(used.spent, total=inputs.settings.promotion.alpha)
    told = power([s.group for s in inputs.splits["holdout"]], level)
    log.keep(incumbent)
    log.step("opened", champion=incumbent.id, level=level, detectable=told.sentence(), warning=warning)
    try:
        board.judge([incumbent], inputs.dev)
    except BudgetSpent:
        fix = "Raise --max-usd, --max-calls or --max-tokens."
        raise PiarError("The budget does not cover judging dev once.", fix) from None
    search.purse.keep_for_the_end(*_mean_cost(inputs, search))
    score = float(board.scores(incumbent, inputs.dev).mean())
    log.step("champion", instruction=incumbent.id, dev=score, rows=len(inputs.dev))
    dull = _one_grade(inputs, board, log)
    alarm = _watch(inputs, board, log)
    log.flush()
    return [said for said in (warning, dull, alarm) if said]


def _mean_cost(inputs: Inputs, search: Search) -> tuple[float, float]:
    """Dollars and tokens of one answer: of this run's, else of those that earlier runs have paid for."""
    budget = search.purse.budget
    if budget.calls:
        return budget.usd / budget.calls, budget.tokens / budget.calls
    sql = """select coalesce(avg(cost_usd), 0), coalesce(avg(tokens_in + tokens_out), 0) from completions
             where key in (select key from verdicts where judge = ? and instruction = ?)"""
    with inputs.store.read() as con:
        found = con.execute(sql, [search.board.labeller.judge_name, inputs.incumbent.id]).fetchone()
    return found or (0.0, 0.0)


def _one_grade(inputs: Inputs, board: Scoreboard, log: RunLog) -> str | None:
    """A warning when the teacher gives one grade to everything.

    Raises:
        PiarError: it gives none to anything.
    """
    grades = board.grades(inputs.incumbent, inputs.dev)
    failed = int((grades < 0).sum())
    if failed == len(grades):
        log.flush()
        raise PiarError(
            f"The teacher {board.labeller.session.client.model} gave no grade on any of {failed} dev rows: it refuses "
            "or answers otherwise than asked. Its answers are kept.",
            "Read some with `piar sql \"select text from completions where role = 'teacher' limit 5\"`, then change "
            "[teacher] or prompts/judge.j2 and add --restart.",
        )
    said = set(grades[grades >= 0].tolist())
    lost = f" and no grade on {failed} more" if failed else ""
    if len(said) > 1 or len(grades) < 10:
        return (
            f"The teacher gave no grade on {failed} of {len(grades)} dev rows." if failed > 0.1 * len(grades) else None
        )
    symbol, heard = board.symbols[said.pop()], len(grades) - failed
    return f"The teacher says {symbol} on all of {heard} dev rows{lost}: the instruction may tell it nothing yet."


def _watch(inputs: Inputs, board: Scoreboard, log: RunLog) -> str | None:
    """Ask the canary rows of this teacher again, or begin a canary; a warning when the endpoint has changed."""
    model, size = board.labeller.session.client.model, inputs.settings.audit.canary
    if not size:
        return None
    canary = known_canary(inputs.store, model, log.run_id)
    if canary is None:
        rows = sorted(inputs.dev, key=lambda s: s.id)[:size]
        grades = board.grades(inputs.incumbent, rows)
        first = {s.id: board.symbols[g] for s, g in zip(rows, grades, strict=True) if g >= 0}
        log.step("canary", **Canary(inputs.incumbent.id, first).to_json(model), asked=0, flipped=0)
        return None
    samples = inputs.store.samples(ids=list(canary.grades)[: min(size, len(inputs.dev))])
    found = ask_again(
        board.labeller,
        inputs.store.instruction(canary.instruction),
        samples,
        [canary.grades[s.id] for s in samples],
        "canary",
    )
    usual = last_flip_rate(inputs.store, model, log.run_id)
    alarm = changed_endpoint(found, canary, usual)
    log.step("canary", model=model, asked=found.asked, flipped=found.flipped, warning=alarm)
    return alarm
