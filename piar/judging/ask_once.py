"""Asking a model something that is not a verdict: revisions, diagnoses, syntheses. Nothing is asked twice."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

from piar.judging.origin import Origin
from piar.llm.base import Client, Request
from piar.llm.cost import Budget, ceiling, charged
from piar.llm.settings import ModelSettings, require_price
from store.db import Store
from store.ids import content_id
from store.journal import Journal
from store.types import Completion, Failure, Usage


def ask_once(
    store: Store,
    client: Client,
    journal: Journal,
    requests: Sequence[Request],
    *,
    role: str,
    run_id: str,
    budget: Budget,
    model: ModelSettings,
    origin: Origin | None = None,
) -> list[Completion]:
    """Answers in the order asked; those that the store holds are taken from there.

    What lies in the journal must have been folded before. An answer that this run has paid for before is
    charged to its budget again, so that a resumed run has the budget of an uninterrupted one. Requests
    beyond the budget, taken at their highest cost, fail with class `budget`.

    Args:
        origin: where the model is asked; what it was answered elsewhere then is no answer here, and that is said.

    Raises:
        UsageError: a cap in dollars, and a model without a price.
    """
    require_price(model, budget)
    if origin is not None:
        requests = _of_origin(requests, origin)
    known = _stored(store, [r.key for r in requests])
    for completion, paid_by in known.values():
        if paid_by == run_id:
            budget.reserve(charged(completion))
            budget.settle(charged(completion), charged(completion))
    wanted = [r for r in requests if r.key not in known]
    holds = ((r, budget.hold(ceiling(r, model.price, model.sent))) for r in wanted)
    granted = [replace(request, hold=hold) for request, hold in holds if hold is not None]
    with journal.room():
        fresh = client.generate(granted, lambda c: journal.append(role, run_id, c, None))
    for request, completion in zip(granted, fresh, strict=True):
        if request.hold is not None:
            request.hold.settle(completion)
    answers = {c.key: c for c, _ in known.values()} | {c.key: c for c in fresh}
    spent = Failure("budget", "The budget is spent.")
    return [answers.get(r.key) or Completion(r.key, client.model, failure=spent) for r in requests]


def _of_origin(requests: Sequence[Request], origin: Origin) -> list[Request]:
    """The requests with keys of their own where the model is asked elsewhere than at first."""
    if news := origin.news():
        warnings.warn(news, stacklevel=3)
    origin.note()
    mark = origin.mark
    return [replace(r, key=content_id(r.key, mark)) if mark else r for r in requests]


def _stored(store: Store, keys: Sequence[str]) -> dict[str, tuple[Completion, str]]:
    with store.read() as con:
        rows = con.execute(
            "select key, model, text, tokens_in, tokens_cached, tokens_out, cost_usd, seconds, attempts, run_id "
            "from completions where failure is null and key in (select unnest(?::varchar[])) order by created_at desc",
            [list(keys)],
        ).fetchall()
    return {
        key: (Completion(key, model, text, None, None, Usage(tin, cached, out), usd, seconds, attempts), run)
        for key, model, text, tin, cached, out, usd, seconds, attempts, run in rows
    }
