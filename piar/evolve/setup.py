"""The beginning of a run: what must not change, who is in which split, what may be spent, and the champion on dev."""

from pathlib import Path
from typing import Any

from piar.evolve.deal import Rows, deal
from piar.evolve.ledger import ledger
from piar.evolve.promotion import check_uses, power
from piar.evolve.purse import BudgetSpent, Needs, Purse
from piar.evolve.resume import Begun, OnEvent, RunLog, data_fingerprint
from piar.evolve.revision import evidence_limit
from piar.evolve.scoreboard import Scoreboard
from piar.evolve.settings import EvolveSettings
from piar.evolve.slices import automatic, by_grade, members, owners
from piar.evolve.state import Loop, Models, reviser_origin
from piar.evolve.steadiness import Canary, ask_again, changed_endpoint, known_canary, last_flip_rate
from piar.evolve.truth import load_truth, review_comments
from piar.instructions.prompts import template_source
from piar.judging.labeller import Labeller, LabelSettings
from piar.judging.origin import Origin
from piar.judging.outcome import OnProgress
from piar.llm.settings import require_price
from store.db import Store
from store.errors import PiarError
from store.ids import short_hash
from store.journal import Journal
from store.stats import spend
from store.types import Instruction


def identity(
    store: Store, models: Models, instruction: Instruction, settings: EvolveSettings, prompts: Path | None
) -> dict[str, Any]:
    """What decides the outcome of a run; a run that was cut off goes on only while none of it has changed."""
    return {
        "seed": settings.seed,
        "task": store.task.hash,
        "data": data_fingerprint(store),
        "instruction": instruction.id,
        "teacher": Origin(store, f"teacher:{models.teacher.model}", models.teacher_settings).name,
        "reviser": reviser_origin(store, models).name,
        "prompts": short_hash([template_source(name, prompts) for name in ("judge", "diagnose", "revise")]),
        "settings": settings.model_dump(mode="json", exclude={"seed"}),
    }


def prepare(
    store: Store,
    models: Models,
    instruction: Instruction,
    settings: EvolveSettings,
    journal: Journal,
    label: LabelSettings | None,
    prompts: Path | None,
    begun: Begun,
    on_event: OnEvent | None,
    on_progress: OnProgress | None,
) -> Loop:
    """Everything that a run needs, its samples dealt and its budget divided; nothing is asked.

    Raises:
        PiarError: too few labelled groups, or a budget that cannot suffice.
        UsageError: a cap in dollars, and a model without a price.
    """
    truths = load_truth(store, settings.truth)
    splits = deal(store, truths, settings)
    purse = Purse(settings, Needs(settings, Rows.of(splits), evidence_limit(models.reviser, settings.revision)))
    require_price(models.reviser_settings, purse.budget)
    labeller = Labeller(
        store, models.teacher, journal, run_id=begun.run_id, budget=purse.budget, model=models.teacher_settings,
        prompts=prompts, settings=label, on_progress=on_progress,
    )  # fmt: skip
    board = Scoreboard(labeller, [s for found in splits.values() for s in found], truths)
    log = RunLog(store, begun.run_id, on_event)
    return Loop(
        store, journal, models, settings, board, truths, splits, members(store, owners(store)), log, purse, prompts,
        [instruction], seen={instruction.id}, comments=review_comments(store),
        found={**members(store, automatic(store)), **by_grade(truths)},
    )  # fmt: skip


def open_run(loop: Loop, champion: Instruction) -> list[str]:
    """Judge the champion on dev, set money aside for the end, and say what the holdout can show.

    Returns:
        warnings: a worn holdout, an endpoint that changed.
    """
    used = ledger(loop.store, [s.group for s in loop.splits["holdout"]], loop.log.run_id)
    warning = check_uses(used, loop.settings.promotion)
    level = spend(used.spent, total=loop.settings.promotion.alpha)
    told = power([s.group for s in loop.splits["holdout"]], level)
    loop.log.keep(champion)
    loop.log.step("opened", champion=champion.id, level=level, detectable=told.sentence(), warning=warning)
    try:
        loop.board.judge([champion], loop.dev)
    except BudgetSpent:
        fix = "Raise --max-usd, --max-calls or --max-tokens."
        raise PiarError("The budget does not cover judging dev once.", fix) from None
    loop.purse.keep_for_the_end(*_mean_cost(loop, champion))
    score = float(loop.board.scores(champion, loop.dev).mean())
    loop.log.step("champion", instruction=champion.id, dev=score, rows=len(loop.dev))
    dull = _one_grade(loop, champion)
    alarm = _watch(loop, champion)
    loop.log.flush()
    return [said for said in (warning, dull, alarm) if said]


def _mean_cost(loop: Loop, champion: Instruction) -> tuple[float, float]:
    """Dollars and tokens of one answer: of this run's, else of those that earlier runs have paid for."""
    budget = loop.purse.budget
    if budget.calls:
        return budget.usd / budget.calls, budget.tokens / budget.calls
    sql = """select coalesce(avg(cost_usd), 0), coalesce(avg(tokens_in + tokens_out), 0) from completions
             where key in (select key from verdicts where judge = ? and instruction = ?)"""
    with loop.store.read() as con:
        found = con.execute(sql, [loop.board.labeller.judge_name, champion.id]).fetchone()
    return found or (0.0, 0.0)


def _one_grade(loop: Loop, champion: Instruction) -> str | None:
    """A warning when the teacher gives one grade to everything.

    Raises:
        PiarError: it gives none to anything.
    """
    grades = loop.board.grades(champion, loop.dev)
    failed = int((grades < 0).sum())
    if failed == len(grades):
        loop.log.flush()
        raise PiarError(
            f"The teacher {loop.models.teacher.model} gave no grade on any of {failed} dev rows: it refuses or answers "
            "otherwise than asked. Its answers are kept.",
            "Read some with `piar sql \"select text from completions where role = 'teacher' limit 5\"`, then change "
            "[teacher] or prompts/judge.j2 and add --restart.",
        )
    said = set(grades[grades >= 0].tolist())
    lost = f" and no grade on {failed} more" if failed else ""
    if len(said) > 1 or len(grades) < 10:
        return (
            f"The teacher gave no grade on {failed} of {len(grades)} dev rows." if failed > 0.1 * len(grades) else None
        )
    symbol, heard = loop.board.symbols[said.pop()], len(grades) - failed
    return f"The teacher says {symbol} on all of {heard} dev rows{lost}: the instruction may tell it nothing yet."


def _watch(loop: Loop, champion: Instruction) -> str | None:
    """Ask the canary rows of this teacher again, or begin a canary; a warning when the endpoint has changed."""
    model, size = loop.models.teacher.model, loop.settings.audit.canary
    if not size:
        return None
    canary = known_canary(loop.store, model, loop.log.run_id)
    if canary is None:
        rows = sorted(loop.dev, key=lambda s: s.id)[:size]
        grades = loop.board.grades(champion, rows)
        first = {s.id: loop.board.symbols[g] for s, g in zip(rows, grades, strict=True) if g >= 0}
        loop.log.step("canary", **Canary(champion.id, first).to_json(model), asked=0, flipped=0)
        return None
    samples = loop.store.samples(ids=list(canary.grades)[: min(size, len(loop.dev))])
    found = ask_again(
        loop.board.labeller, loop.store.instruction(canary.instruction), samples,
        [canary.grades[s.id] for s in samples], "canary", loop.purse.budget,
    )  # fmt: skip
    usual = last_flip_rate(loop.store, model, loop.log.run_id)
    alarm = changed_endpoint(found, canary, usual)
    loop.log.step("canary", model=model, asked=found.asked, flipped=found.flipped, warning=alarm)
    return alarm
