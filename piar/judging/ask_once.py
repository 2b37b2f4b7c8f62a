"""Asking a model something that is not a verdict: revisions, diagnoses, syntheses. Nothing is asked twice."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace

from piar.judging.origin import Origin
from piar.judging.session import Session
from piar.llm.base import OnCompletion, Request
from piar.llm.cost import charged
from store.db import Store
from store.ids import content_id
from store.types import Completion, Failure, Usage


def ask_once(
    session: Session,
    requests: Sequence[Request],
    *,
    role: str,
    origin: Origin | None = None,
    on_completion: OnCompletion | None = None,
) -> list[Completion]:
    """Answers in the order asked; those that the store holds are taken from there.

    What lies in the journal must have been folded before. An answer that this run has paid for before is
    charged to its budget again, so that a resumed run has the budget of an uninterrupted one. Requests
    beyond the budget, taken at their highest cost, fail with class `budget`.

    Args:
        role: what the answers are kept as.
        origin: where the model is asked; what it was answered elsewhere then is no answer here, and that is said.
        on_completion: told of each new answer, once it is kept.
    """
    budget, journal = session.budget, session.journal
    if origin is not None:
        requests = _of_origin(requests, origin)
    known = _stored(session.store, [r.key for r in requests])
    for completion, paid_by in known.values():
        if paid_by == session.run_id:
            budget.reserve(charged(completion))
            budget.settle(charged(completion), charged(completion))
    wanted = [r for r in requests if r.key not in known]
    holds = ((r, budget.hold(session.ceiling(r))) for r in wanted)
    granted = [replace(request, hold=hold) for request, hold in holds if hold is not None]

    def keep(completion: Completion) -> None:
        journal.append(role, session.run_id, completion, None)
        if on_completion is not None:
            on_completion(completion)

    with journal.room():
        fresh = session.client.generate(granted, keep)
    for request, completion in zip(granted, fresh, strict=True):
        if request.hold is not None:
            request.hold.settle(completion)
    answers = {c.key: c for c, _ in known.values()} | {c.key: c for c in fresh}
    spent = Failure("budget", "The budget is spent.")
    return [answers.get(r.key) or Completion(r.key, session.client.model, failure=spent) for r in requests]


def unanswered(store: Store, requests: Iterable[Request]) -> list[Request]:
    """Those that `ask_once` would send, each once; for a forecast."""
    once = {request.key: request for request in requests}
    known = _stored(store, list(once))
    return [request for key, request in once.items() if key not in known]


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
