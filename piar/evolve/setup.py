"""The beginning of a run: what must not change, who is in which split, what may be spent, and the champion on dev."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from piar.evolve.ledger import ledger
from piar.evolve.promotion import check_uses, power
from piar.evolve.redraft import redraft_calls
from piar.evolve.resume import Begun, OnEvent, RunLog, data_fingerprint
from piar.evolve.scoreboard import BudgetSpent, Scoreboard
from piar.evolve.slices import automatic, by_grade, members, owners
from piar.evolve.state import EvolveSettings, Loop, Models
from piar.evolve.steadiness import Canary, ask_again, changed_endpoint, known_canary, last_flip_rate
from piar.evolve.truth import load_truth, review_comments
from piar.instructions.prompts import template_source
from piar.judging.labeller import Labeller, LabelSettings
from piar.judging.outcome import OnProgress
from piar.llm.cost import Budget
from piar.llm.settings import require_price
from store.db import Store
from store.errors import PiarError
from store.ids import seed_of, short_hash
from store.journal import Journal
from store.stats import spend
from store.types import Instruction, Sample, Split

DEALT = 20  # so many groups put two or more into each split, when we deal them


def identity(
    store: Store, models: Models, instruction: Instruction, settings: EvolveSettings, prompts: Path | None
) -> dict[str, Any]:
    """What decides the outcome of a run; a run that was cut off goes on only while none of it has changed."""
    return {
        "seed": settings.seed,
        "task": store.task.hash,
        "data": data_fingerprint(store),
        "instruction": instruction.id,
        "teacher": models.teacher.model,
        "reviser": models.reviser.model,
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
    samples = [s for s in store.samples(where="split in ('train', 'dev', 'holdout', 'test')") if s.id in truths]
    splits: dict[Split, list[Sample]] = {"train": [], "dev": [], "holdout": [], "test": []}
    for sample in samples:
        splits[sample.split].append(sample)
    _require_groups(splits)
    _keep_back(splits, settings)
    budget = _search_budget(settings, splits)
    require_price(models.reviser_settings, budget)
    labeller = Labeller(
        store, models.teacher, journal, run_id=begun.run_id, budget=budget, model=models.teacher_settings,
        prompts=prompts, settings=label, on_progress=on_progress,
    )  # fmt: skip
    board = Scoreboard(labeller, samples, truths)
    log = RunLog(store, begun.run_id, on_event)
    loop = Loop(
        store, journal, models, settings, board, truths, splits, members(store, owners(store)), log, budget, prompts,
        [instruction], seen={instruction.id}, comments=review_comments(store),
        found={**members(store, automatic(store)), **by_grade(truths)},
    )  # fmt: skip
    if budget.max_calls is not None:
        loop.reserved = min(redraft_calls(loop), budget.max_calls - len(splits["dev"]))
        budget.max_calls -= loop.reserved
    return loop


def _require_groups(splits: Mapping[Split, list[Sample]]) -> None:
    """Refuse a project in which nothing could be learned or shown, and say whether it lacks labels or a split."""
    groups = {name: len({s.group for s in found}) for name, found in splits.items()}
    thin = [name for name, n in groups.items() if name != "test" and n < 2]
    if not thin:
        return
    counts = ", ".join(f"{name} {n:,}" for name, n in groups.items())
    if sum(groups.values()) < DEALT:
        raise PiarError(
            f"The {thin[0]} split has fewer than two labelled groups ({counts}): nothing can be learned or shown.",
            "Label more groups (`piar review push`, or import a file with more), then evolve.",
        )
    raise PiarError(
        f"There are labelled groups enough, but the splits that the imported file names leave too few of them in "
        f"{' and '.join(thin)} ({counts}): nothing can be learned or shown.",
        "Import the file without its split column into a new project (`piar init DIR --from FILE`), which deals the "
        "groups; or name some of its train groups dev and holdout there.",
    )


def _keep_back(splits: dict[Split, list[Sample]], settings: EvolveSettings) -> None:
    """Move some of train's groups to dev, the same ones for the same seed."""
    groups = sorted({s.group for s in splits["train"]})
    order = np.random.default_rng(seed_of(settings.seed, "kept back")).permutation(len(groups))
    moved = {groups[i] for i in order[: int(settings.kept_back * len(groups))]}
    splits["dev"] += [s for s in splits["train"] if s.group in moved]
    splits["train"] = [s for s in splits["train"] if s.group not in moved]


def final_calls(settings: EvolveSettings, splits: Mapping[Split, list[Sample]]) -> int:
    """Calls set aside for the end: two instructions on holdout and test, and the flip audit."""
    holdout = len(splits["holdout"])
    return 2 * (holdout + len(splits["test"])) + min(settings.audit.items, holdout)


def _search_budget(settings: EvolveSettings, splits: Mapping[Split, list[Sample]]) -> Budget:
    """The search's share: what is left when the final measurements are set aside."""
    final = final_calls(settings, splits)
    if settings.max_calls is None:
        return Budget(None, settings.max_usd, settings.max_tokens)
    least = final + len(splits["dev"])
    if settings.max_calls < least:
        raise PiarError(
            f"{settings.max_calls} calls are too few: judging dev once, two instructions on holdout and test, and the "
            f"flip audit take {least}.",
            "Raise --max-calls.",
        )
    return Budget(settings.max_calls - final, settings.max_usd, settings.max_tokens)


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
    _keep_for_the_end(loop, champion)
    score = float(loop.board.scores(champion, loop.dev).mean())
    loop.log.step("champion", instruction=champion.id, dev=score, rows=len(loop.dev))
    dull = _one_grade(loop, champion)
    alarm = _watch(loop, champion)
    loop.log.flush()
    return [said for said in (warning, dull, alarm) if said]


def _keep_for_the_end(loop: Loop, champion: Instruction) -> None:
    """Take from the search the dollars and tokens that the end will cost, as judging dev has shown."""
    budget, settings = loop.budget, loop.settings
    usd, tokens = _mean_cost(loop, champion)
    answers = 1.2 * final_calls(settings, loop.splits)
    if settings.max_usd is not None:
        budget.max_usd = max(0.0, settings.max_usd - answers * usd)
    if settings.max_tokens is not None:
        budget.max_tokens = max(0, settings.max_tokens - round(answers * tokens))


def _mean_cost(loop: Loop, champion: Instruction) -> tuple[float, float]:
    """Dollars and tokens of one answer: of this run's, else of those that earlier runs have paid for."""
    budget = loop.budget
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
    samples = [s for s in loop.store.samples() if s.id in canary.grades]
    found = ask_again(
        loop.board.labeller, loop.store.instruction(canary.instruction), samples,
        [canary.grades[s.id] for s in samples], "canary", loop.budget,
    )  # fmt: skip
    usual = last_flip_rate(loop.store, model, loop.log.run_id)
    alarm = changed_endpoint(found, canary, usual)
    loop.log.step("canary", model=model, asked=found.asked, flipped=found.flipped, warning=alarm)
    return alarm
