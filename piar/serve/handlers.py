"""What is answered when a request is refused or fails, in the shape of the contract that was spoken."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from piar.serve.contracts import CONTRACTS, ELSEWHERE, Refused, answer_of, contract_of
from piar.serve.engine import Busy, Engine, Failed, TooMuch, Unfit
from piar.serve.offer import Offer

MOST_PROBLEMS = 20  # told of one request
_TAGS = ("score", "choice", "predicate", "noul", "str")  # pydantic names the members of unions in places
_PLACES = 3  # of them, where the contract has room for one sentence


def add_handlers(app: FastAPI) -> None:
    """Let the application answer what goes wrong."""
    for kind, answer in _HANDLERS.items():
        app.add_exception_handler(kind, answer)


def offer_of(request: Request) -> Offer:
    """What the student answers that serves now."""
    offer: Offer = request.app.state.offer
    return offer


def engine_of(request: Request) -> Engine:
    """The engine behind an application.

    Raises:
        Refused: its thread has stopped.
    """
    engine: Engine = request.app.state.engine
    if not engine.alive:
        raise Refused(503, "The model has stopped; restart the server.")
    return engine


def _answer(request: Request, refused: Refused, headers: dict[str, str] | None = None) -> Response:
    status, body, more = answer_of(refused, request.url.path, _spoken(request))
    return JSONResponse(body, status, {**more, **(headers or {})})


def _spoken(request: Request) -> str:
    """The contract that a route found its body to be in, where the path alone does not tell."""
    return getattr(request.state, "contract", "")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _answer(request, error)


async def _busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, Busy)
    refused = Refused(429, str(error), code="rate_limit_exceeded")
    return _answer(request, refused, {"Retry-After": str(error.retry_after)})


async def _unfit(request: Request, error: Exception) -> Response:
    assert isinstance(error, Unfit)
    words = f"sample {error.index}: {error}"
    return _answer(request, Refused(_too_long(request), words, code="context_length_exceeded"))


async def _too_much(request: Request, error: Exception) -> Response:
    return _answer(request, Refused(_too_long(request), str(error), code="context_length_exceeded"))


def _too_long(request: Request) -> int:
    return contract_of(request.url.path, _spoken(request)).too_long


async def _failed(request: Request, error: Exception) -> Response:
    return _answer(request, Refused(500, str(error)))


async def _http(request: Request, error: Exception) -> Response:
    """What Starlette refuses itself: no such path, another method."""
    status, words = getattr(error, "status_code", 404), getattr(error, "detail", "Not Found")
    return _answer(request, Refused(status, words), dict(getattr(error, "headers", None) or {}))


async def _invalid(request: Request, error: Exception) -> Response:
    """What is wrong and where, without echoing what was sent."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    problems = [{"loc": e["loc"], "msg": _words(e), "type": e["type"]} for e in found[:MOST_PROBLEMS]]
    if left := len(found) - len(problems):
        problems.append({"loc": ["body"], "msg": f"and {left:,} more problems", "type": "more"})
    if "json" not in request.headers.get("content-type", ""):
        problems = [{"loc": ["header", "content-type"], "msg": "send application/json", "type": "content_type"}]
    path = request.url.path
    if contract_of(path) is CONTRACTS["own"]:
        return JSONResponse({"detail": problems}, 422)
    sent = error.body if isinstance(error.body, dict) else {}
    if path == "/rerank" and "texts" in sent:
        request.state.contract = "tei"
    away = [
        words for key, (home, words) in ELSEWHERE.items() if key in sent and contract_of(home) is not contract_of(path)
    ][:1]
    words = "; ".join(away or [f"{_place(p['loc'])}: {p['msg']}" for p in problems[:_PLACES]])
    return _answer(request, Refused(422, words, param=_place(problems[0]["loc"])))


def _words(error: Mapping[str, Any]) -> str:
    if error["type"] == "union_tag_invalid":  # pydantic's words repeat what was sent
        return f"Input should be one of {error['ctx']['expected_tags']}"
    return str(error["msg"])


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    Refused: _refused,
    Busy: _busy,
    Unfit: _unfit,
    TooMuch: _too_much,
    Failed: _failed,
    HTTPException: _http,
    RequestValidationError: _invalid,
}


def _place(loc: Any) -> str:
    """A place as programs write it: `questions[0].levels`."""
    text = ""
    for part in loc[1:] or loc:
        if part in _TAGS or "[" in str(part):
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")[:200]
