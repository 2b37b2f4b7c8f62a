"""How each contract that the server speaks says no: the shape of its errors, and the statuses that it uses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class Refused(Exception):
    """Why a request is not answered.

    Args:
        status: HTTP's; 422, for a body that does not fit, becomes what the contract has for it.
        param: the place in the body, as `questions[0].levels`.
        code: a word for programs, where the contract has one.
        contract: whose shape the answer has; by default that of the path.
    """

    def __init__(
        self, status: int, words: str, *, param: str | None = None, code: str | None = None, contract: str = ""
    ) -> None:
        super().__init__(words)
        self.status, self.param, self.code, self.contract = status, param, code, contract


@dataclass(frozen=True, slots=True)
class Contract:
    """One contract's way to say no.

    Attributes:
        shape: status, words, place and code, to the body of the answer.
        invalid: status for a body that does not fit the contract.
        too_long: status for a sample that the student cannot read.
    """

    shape: Callable[[Refused], Mapping[str, Any]]
    invalid: int = 400
    too_long: int = 400


def _own(refused: Refused) -> Mapping[str, Any]:
    return {"detail": str(refused)}


def _openai(refused: Refused) -> Mapping[str, Any]:
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        refused.status, "invalid_request_error" if refused.status < 500 else "server_error"
    )
    return {"error": {"message": str(refused), "type": kind, "param": refused.param, "code": refused.code}}


# OpenAI's error object, as the `openai` package reads it.
CONTRACTS = {
    "own": Contract(_own, invalid=422, too_long=413),
    "openai": Contract(_openai),
}
_PATHS = {"/v1/": "openai"}  # a prefix of a path -> its contract


def contract_of(path: str) -> Contract:
    """Whose shape the answers under a path have."""
    return CONTRACTS[next((name for prefix, name in _PATHS.items() if path.startswith(prefix)), "own")]


def answer_of(refused: Refused, path: str) -> tuple[int, Mapping[str, Any], dict[str, str]]:
    """Status, body and headers of a request to `path` that is refused."""
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(refused.status, {})
    contract = CONTRACTS[refused.contract] if refused.contract else contract_of(path)
    return contract.invalid if refused.status == 422 else refused.status, contract.shape(refused), headers
