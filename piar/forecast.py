"""What a paying command would ask, of whom, with which fields, at what cost; and what it did cost.

Tokens are forecast from earlier answers of the same model where there are enough; otherwise a token is taken
for four bytes and an answer for its limit, and the forecast says so. A reservation (`--max-usd`) never relies on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piar.llm.base import Request
    from piar.llm.connect import ModelSettings
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
    """

    model: str
    host: str | None
    fields: tuple[str, ...]
    asked: int
    tokens_in: int
    tokens_out: int
    cost_usd: float
    basis: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a command asked and what that cost. `calls` were sent; `cached` verdicts were known already."""

    calls: int
    cached: int
    failed: dict[str, int]
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    cost_usd: float
    seconds: float


def forecast(store: "Store", settings: "ModelSettings", requests: "Iterable[Request]") -> Forecast:
    """What it would take to send these requests.

    Args:
        store: its earlier answers of the same model tell how many tokens to expect.
        requests: consumed one by one.
    """
    size = count = limit = 0
    for request in requests:
        count += 1
        size += sum(len(message.content.encode()) for message in request.messages)
        limit += request.max_tokens
    seen = _earlier(store, settings.model)
    tokens_in, tokens_out = size // BYTES_A_TOKEN, round(count * seen[1]) if seen else limit
    basis = f"answers as long as {seen[0]:,} earlier ones" if seen else "every answer as long as its limit"
    cost = (tokens_in * settings.price.input + tokens_out * settings.price.output) / 1e6
    return Forecast(
        settings.model, settings.host, store.task.fields, count, tokens_in, tokens_out, cost,
        f"{BYTES_A_TOKEN} bytes a token, {basis}",
    )  # fmt: skip


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


def _earlier(store: "Store", model: str) -> tuple[int, float] | None:
    """How many answers this model gave, and their mean length in tokens; None when too few."""
    with store.read() as con:
        row = con.execute(
            "select count(*), avg(tokens_out) from completions where model = ? and failure is null and tokens_out > 0",
            [model],
        ).fetchone()
    return (row[0], row[1]) if row and row[0] >= ENOUGH else None


def receipt(store: "Store", run_id: str, cached: int = 0, seconds: float = 0.0) -> Receipt:
    """What a run asked, from the answers it kept."""
    with store.read() as con:
        row = con.execute(
            "select count(*), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_cached), 0), "
            "coalesce(sum(tokens_out), 0), coalesce(sum(cost_usd), 0) from completions where run_id = ?",
            [run_id],
        ).fetchall()[0]
        failed = con.execute(
            "select failure, count(*) from completions where run_id = ? and failure is not null group by 1 order by 1",
            [run_id],
        ).fetchall()
    calls, tokens_in, tokens_cached, tokens_out, cost = row
    return Receipt(calls, cached, dict(failed), tokens_in, tokens_cached, tokens_out, cost, seconds)
