"""How each contract that the server speaks says no: the shape of its errors, and the statuses that it uses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


class Refused(Exception):
    """Why a request is not answered.

    Args:
        status: HTTP's; 422, for a body that does not fit, becomes what the contract has for it.
        param: the place in the body, as `questions[0].levels`.
        code: a word for programs, where the contract has one.
    """

    def __init__(self, status: int, words: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(words)
        self.status, self.param, self.code = status, param, code


@dataclass(frozen=True, slots=True)
class Contract:
    """One contract's way to say no.

    Attributes:
        shape: of the answer's body.
        invalid: status for a body that does not fit the contract.
        too_long: status for samples that are longer than the student reads.
    """

    shape: Callable[[Refused], Mapping[str, Any]]
    invalid: int = 400
    too_long: int = 400


def _openai(refused: Refused) -> Mapping[str, Any]:
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        refused.status, "invalid_request_error" if refused.status < 500 else "server_error"
    )
    return {"error": {"message": str(refused), "type": kind, "param": refused.param, "code": refused.code}}


def _placed(refused: Refused) -> str:
    said = not refused.param or str(refused).startswith(f"{refused.param}: ")  # by who checks the body's form
    return str(refused) if said else f"{refused.param}: {refused}"


CONTRACTS = {
    "own": Contract(lambda refused: {"detail": str(refused)}, invalid=422, too_long=413),
    "openai": Contract(_openai),
    "systemone": Contract(_openai),  # as vLLM answers it
    # `message` is Cohere's, `detail` Jina's
    "rerank": Contract(lambda refused: {"message": _placed(refused), "detail": _placed(refused)}),
    # of text-embeddings-inference
    "tei": Contract(
        lambda refused: {
            "error": _placed(refused),
            "error_type": {429: "Overloaded", 500: "Backend", 503: "Unhealthy"}.get(refused.status, "Validation"),
        },
        invalid=422,
        too_long=413,
    ),
}
# The beginning of a path -> its contract; the first that fits.
_PATHS = {"/rerank": "rerank", "/v1/rerank": "rerank", "/v2/": "rerank", "/v1/systemone": "systemone", "/v1/": "openai"}

# A key that one contract has -> the path where it belongs, and what its sender should know.
ELSEWHERE = {
    "state": ("/v1/systemone", "a `state` with a map of questions goes to POST /v1/systemone"),
    "input": ("/v1/decisions", "an `input` with a list of questions goes to POST /v1/decisions"),
    "documents": ("/v1/rerank", "a `query` with `documents` goes to POST /v1/rerank"),
    "texts": ("/rerank", "a `query` with `texts` goes to POST /rerank"),
    "samples": ("/score", "`samples` go to POST /score"),
    "messages": ("", "this is no chat model: it grades samples, see /docs"),
    "top_k": ("", "the number of results is called `top_n`"),
    "stream": ("", "this route does not stream; POST /explain streams the reason"),
}


def contract_of(path: str, spoken: str = "") -> Contract:
    """Whose shape the answers under a path have; `spoken` is the contract that its body was found to be in."""
    name = next((name for beginning, name in _PATHS.items() if path.startswith(beginning)), "own")
    return CONTRACTS[spoken or name]


def answer_of(refused: Refused, path: str, spoken: str = "") -> tuple[int, Mapping[str, Any], dict[str, str]]:
    """Status, body and headers of a request that is refused; the arguments as for `contract_of`."""
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(refused.status, {})
    contract = contract_of(path, spoken)
    return contract.invalid if refused.status == 422 else refused.status, contract.shape(refused), headers


class _Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """OpenAI's error object."""

    error: _Error


class RerankError(BaseModel):
    """Why nothing was ranked, as clients of Cohere (`message`) and of Jina (`detail`) look for it."""

    message: str
    detail: str


class TeiError(BaseModel):
    """The same as text-embeddings-inference says it, to a body with `texts`."""

    error: str
    error_type: str


def documented(model: Any, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's description says of refusals: all of them, unless some are named."""
    found = statuses or (400, 401, 404, 408, 413, 421, 422, 429, 500, 503)
    return {status: {"model": model, "description": "Refused; the answer says why."} for status in found}


def known_keys(body: BaseModel, known: frozenset[str]) -> None:
    """Make sure that a body asks for nothing that is not done here; what is null or false is not asked for.

    Args:
        body: of a model that allows more keys.
        known: keys that are taken and change nothing.

    Raises:
        Refused: it has a key of another contract, or one that is unknown.
    """
    for key, value in (body.model_extra or {}).items():
        if key not in known and value is not None and value is not False:
            _, words = ELSEWHERE.get(key, ("", "this server knows no such parameter here"))
            raise Refused(422, words, param=key[:80], code="unknown_parameter")
