"""What a paying command would ask, of whom, with which fields, at what cost; and what it did cost.

Tokens are forecast from earlier answers: under the same instruction where there are enough (a pilot such as
`piar label --max-calls 50` makes them), else the length of any answer of the same model; otherwise a token is taken for
four bytes and an answer for its limit. The forecast says which. A reservation (`--max-usd`) never relies on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piar.judging.session import Respondent
    from piar.llm.base import Request
    from piar.llm.settings import ModelSettings
    from store.db import Store

ENOUGH = 20
BYTES_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would be asked.

    Attributes:
        model: of whom.
        host: where the samples would go; None: they stay in this process.
        fields: what would leave.
        asked: requests to be sent; what is known already is not among them.
        basis: where the token figures come from.
        priced: whether a price is set; without one, `cost_usd` is 0 and means nothing.
        most_asked: with adaptive votes, requests if no sample is ever sure.
        most_usd: what those would cost.
    """

    model: str
    host: str | None
    fields: tuple[str, ...]
    asked: int
    tokens_in: int
    tokens_out: int
    cost_usd: float
    basis: str
    most_asked: int | None = None
    most_usd: float | None = None
    priced: bool = True


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a command asked and what that cost: `calls` that may have been paid for, repeated ones included.

    `cached` verdicts were known already.
    """

    calls: int
    cached: int
    failed: dict[str, int]
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    cost_usd: float
    seconds: float
    priced: bool = True


def forecast(
    store: "Store", respondent: "Respondent", requests: "Iterable[Request]", instruction: str = ""
) -> Forecast:
    """What it would take to send these requests.

    Args:
        store: its earlier answers of the same model tell how many tokens to expect.
        respondent: who would be asked.
        requests: consumed one by one.
        instruction: id of the one that all of them read, if they do.
    """
    from store.types import Usage

    settings, name = respondent.model, respondent.client.model
    size = count = limit = 0
    for request in requests:
        count += 1
        size += sum(len(message.content.encode()) for message in request.messages)
        limit += request.max_tokens
    if pilot := _earlier(store, name, (respondent.judge, instruction)):
        usage = Usage(round(count * pilot.tokens_in), round(count * pilot.cached), round(count * pilot.tokens_out))
        basis = f"as {pilot.answers:,} earlier answers under this instruction"
    elif seen := _earlier(store, name):
        usage = Usage(size // BYTES_A_TOKEN, 0, round(count * seen.tokens_out))
        basis = f"{BYTES_A_TOKEN} bytes a token, answers as long as {seen.answers:,} earlier ones"
    else:
        usage = Usage(size // BYTES_A_TOKEN, 0, limit)
        basis = f"{BYTES_A_TOKEN} bytes a token, every answer as long as its limit"
    return Forecast(
        settings.model,
        settings.host,
        store.task.fields,
        count,
        usage.prompt,
        usage.completion,
        settings.price.cost(usage),
        basis,
        priced=settings.priced,
    )


def scaled(found: Forecast, asked: int) -> Forecast:
    """The same requests, but `asked` of them at most."""
    share = asked / found.asked if found.asked else 0.0
    return replace(
        found,
        asked=asked,
        tokens_in=round(found.tokens_in * share),
        tokens_out=round(found.tokens_out * share),
        cost_usd=found.cost_usd * share,
        basis=f"at most; {found.basis}",
    )


@dataclass(frozen=True, slots=True)
class _Earlier:
    """Earlier answers, and their mean tokens."""

    answers: int
    tokens_in: float
    cached: float
    tokens_out: float


def _earlier(store: "Store", model: str, under: tuple[str, str] | None = None) -> _Earlier | None:
    """What this model's answers took, any or those of a judge under an instruction; None when there are too few."""
    among = "and key in (select key from verdicts where judge = $2 and instruction = $3)" if under else ""
    with store.read() as con:
        row = con.execute(
            "select count(*), avg(tokens_in), avg(tokens_cached), avg(tokens_out) from completions "
            f"where model = $1 and failure is null and tokens_out > 0 {among}",
            [model, *(under or ())],
        ).fetchone()
    return _Earlier(*row) if row and row[0] >= ENOUGH else None


def receipt(store: "Store", run_id: str, cached: int = 0, seconds: float = 0.0, *, priced: bool = True) -> Receipt:
    """What a run asked, from the answers it kept; `priced`: whether what it cost is known."""
    with store.read() as con:
        row = con.execute(
            "select coalesce(sum(attempts), 0), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_cached), 0), "
            "coalesce(sum(tokens_out), 0), coalesce(sum(cost_usd), 0) from completions where run_id = ?",
            [run_id],
        ).fetchall()[0]
        failed = con.execute(
            "select failure, count(*) from completions where run_id = ? and failure is not null group by 1 order by 1",
            [run_id],
        ).fetchall()
    calls, tokens_in, tokens_cached, tokens_out, cost = row
    return Receipt(int(calls), cached, dict(failed), tokens_in, tokens_cached, tokens_out, cost, seconds, priced)


def cost_is_known(store: "Store", run_id: str, models: "Iterable[ModelSettings]" = ()) -> bool:
    """Whether what a run's answers cost can be told: an endpoint's that took tokens and no dollars had no price.

    Args:
        models: as they are set now; an endpoint that has a price now, be it 0, had it then.
    """
    with store.read() as con:
        rows = con.execute(
            "select distinct split_part(model, '#', 1) from completions "
            "where run_id = ? and split_part(model, ':', 1) in ('openai', 'decisions') "
            "and cost_usd = 0 and tokens_in + tokens_out > 0",
            [run_id],
        ).fetchall()
    return {name for (name,) in rows} <= {model.model for model in models if model.priced}
