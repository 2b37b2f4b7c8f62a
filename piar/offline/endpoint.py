"""The offline teacher behind an OpenAI-compatible endpoint, so that any client can be run against it.

`/v1/chat/completions` (log-probabilities of every token, JSON schema, seeds, token limits), `/v1/decisions` and
`/v1/systemone` (see `piar.offline.endpoint_decisions`), `/v1/models`, and
`/ledger`: what the server itself counted, by the model name that was asked for; `/v1/files` and `/v1/batches` (see
`piar.offline.endpoint_batches`) for the batch API. Latency and faults can be
dialled in; which call meets which fault depends on the seed and the call's number only. Standard library only.
"""

import asyncio
import json
import math
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

from piar.llm.base import Client, Completion, Message, Request, Usage
from piar.llm.cost import read_usage
from piar.llm.settings import is_local
from piar.offline.endpoint_batches import Batches
from piar.offline.endpoint_decisions import decision_reply, read_decision
from store.ids import short_hash

MAX_BODY = 64 * 2**20
SLOW_BODY = 64 * 2**10  # longer requests (revisions) are answered in a thread, so that others need not wait
_PIECES = re.compile(r"\w+|[^\w]+")
Read = Callable[[Mapping[str, Any]], Request]  # a contract's request as ours
Said = Callable[[Mapping[str, Any], Request, Completion, str], dict[str, Any]]  # and the answer in its shape
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class Faults:
    """What goes wrong, as shares of all calls, and how slow the endpoint is.

    Attributes:
        latency: mean seconds before an answer (exponential, at least a quarter of it).
        errors: answered with status 500.
        rate_limited: answered with status 429 and `Retry-After: 0`.
        malformed: answered with words that follow no format.
        dropped: the connection is closed without an answer.
        seed: which calls meet which fault.
    """

    latency: float = 0.0
    errors: float = 0.0
    rate_limited: float = 0.0
    malformed: float = 0.0
    dropped: float = 0.0
    seed: int = 0

    def of_call(self, number: int) -> tuple[str, float]:
        """What happens to the call with this number: the fault's name or "", and the delay in seconds."""
        rng = Random(f"{self.seed}/{number}")
        chance, delay = rng.random(), self.latency * max(0.25, rng.expovariate(1.0))
        for name in ("errors", "rate_limited", "malformed", "dropped"):
            share = getattr(self, name)
            if chance < share:
                return name, delay
            chance -= share
        return "", delay


@dataclass
class Account:
    """What was asked under one model name. Tokens are counted as characters / 4."""

    calls: int = 0
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class Simulator:
    """The endpoint's state.

    Args:
        client: who answers.
        faults: what goes wrong.
        hosts: names that requests may be addressed to beside this machine's own; `*` for any. A page of another name
            reaches this server by a DNS trick.
    """

    client: Client
    faults: Faults = field(default_factory=Faults)
    hosts: frozenset[str] = frozenset()
    accounts: dict[str, Account] = field(default_factory=dict)
    calls: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        self._batches = Batches(self._chat)

    def ledger(self) -> dict[str, Any]:
        """Calls and tokens in all and by the model name that was asked for."""
        names = ("calls", "answered", "failed", "prompt_tokens", "completion_tokens")
        total = {name: sum(getattr(account, name) for account in self.accounts.values()) for name in names}
        return {**total, "models": {name: asdict(account) for name, account in self.accounts.items()}}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, one request after the other."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
                length = int(headers.get("content-length", 0))
                if length > MAX_BODY:
                    break
                sent = await reader.readexactly(length)
                answer = await self._route(method, path.partition("?")[0], sent, headers.get("host", ""))
                if answer is None:
                    break
                status, body = answer
                writer.write(_response(status, body))
                await writer.drain()
                if headers.get("connection", "").lower() == "close":
                    break
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            pass  # the other side hung up, or does not speak HTTP
        except asyncio.CancelledError:
            pass  # the endpoint stops; asyncio's streams would report the cancelled task as a failure
        finally:
            writer.close()

    def _is_me(self, header: str) -> bool:
        """Whether a request is addressed to this server, as its Host header says."""
        try:
            name = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            return False
        return "*" in self.hosts or (name != "" and (is_local(name) or name in self.hosts))

    async def _route(self, method: str, path: str, body: bytes, host: str) -> tuple[int, dict[str, Any] | bytes] | None:
        """Status and body, or None to hang up."""
        if not self._is_me(host):
            return 421, _error("This server does not answer to that host; start it with --allow-host NAME.")
        match method, path.rstrip("/"):
            case "POST", "/v1/chat/completions":
                return await self._chat(body)
            case "POST", "/v1/decisions" | "/v1/systemone":
                return await self._answered(body, read_decision, decision_reply)
            case "GET", "/v1/models":
                return 200, {"object": "list", "data": [{"id": self.client.model, "object": "model", "created": 0}]}
            case "GET", "/ledger":
                return 200, self.ledger()
        if (found := await self._batches.route(method, path, body)) is not None:
            return found
        return 404, _error(f"There is no {method} {path} here.")

    async def _chat(self, body: bytes) -> tuple[int, dict[str, Any]] | None:
        return await self._answered(body, _read_request, _reply)

    async def _answered(self, body: bytes, read: Read, said: Said) -> tuple[int, dict[str, Any]] | None:
        try:
            asked = json.loads(body)
            request = read(asked)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return 400, _error(f"The request cannot be read: {error}")
        number, self.calls = self.calls, self.calls + 1
        account = self.accounts.setdefault(str(asked.get("model", "")), Account())
        account.calls += 1
        fault, delay = self.faults.of_call(number)
        if delay:
            await asyncio.sleep(delay)
        if fault in ("errors", "rate_limited", "dropped"):
            account.failed += 1
            return {
                "errors": (500, _error("A simulated failure.")),
                "rate_limited": (429, _error("A simulated rate limit.")),
            }.get(fault)
        answer = self.client.generate
        completion = (await asyncio.to_thread(answer, [request]) if len(body) > SLOW_BODY else answer([request]))[0]
        if completion.text is None:
            account.failed += 1
            return 400, _error(completion.failure.message if completion.failure else "No answer.")
        text = "I would rather not say." if fault == "malformed" else completion.text
        reply = said(asked, request, completion, text)
        account.answered += 1
        used = read_usage(reply, Usage())[0]
        account.prompt_tokens += used.prompt
        account.completion_tokens += used.completion
        return 200, reply


def serve(
    client: Client,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    faults: Faults | None = None,
    allow_hosts: Collection[str] = (),
) -> None:
    """Serve until interrupted.

    Args:
        client: who answers.
        host: address to listen on.
        port: port to listen on, 0 for a free one; the address is printed.
        faults: latency and failures to simulate.
        allow_hosts: names that it answers to, beside this machine's own and `host`; `*` for any.

    Raises:
        OSError: the port is taken.
    """
    with running(client, host, port, faults=faults, allow_hosts=allow_hosts) as simulator:
        print(f"{client.model} (simulated) at {simulator.url}/v1 · ledger at {simulator.url}/ledger", flush=True)
        threading.Event().wait()


@contextmanager
def running(
    client: Client,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    faults: Faults | None = None,
    allow_hosts: Collection[str] = (),
) -> Iterator[Simulator]:
    """The endpoint in a thread of its own, for as long as the block lasts; its address is `simulator.url`."""
    names = frozenset(name.lower().strip("[]") for name in (host, *allow_hosts))
    simulator = Simulator(client, faults or Faults(), names)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(simulator.handle, host, port, limit=2**20, backlog=1024))
    simulator.url = "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    thread = threading.Thread(target=loop.run_forever, name="simulate", daemon=True)
    thread.start()
    try:
        yield simulator
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    open_connections = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in open_connections:
        task.cancel()
    await asyncio.gather(*open_connections, return_exceptions=True)


def _read_request(asked: Mapping[str, Any]) -> Request:
    """An OpenAI chat request as ours. Grades are read from the schema, else the teacher finds them in the prompt."""
    messages = tuple(Message(_ROLES[m["role"]], _content(m["content"])) for m in asked["messages"])  # type: ignore[arg-type]
    schema = (asked.get("response_format") or {}).get("json_schema", {}).get("schema")
    grades = ((schema or {}).get("properties", {}).get("grade") or {}).get("enum", ())
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or 1_000_000
    seed = int(asked.get("seed") or 0)
    key = short_hash([[m.role, m.content] for m in messages])
    return Request(
        key, messages, tuple(map(str, grades)), schema, int(limit), float(asked.get("temperature") or 0), seed
    )


def _content(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _reply(asked: Mapping[str, Any], request: Request, completion: Completion, text: str) -> dict[str, Any]:
    """The answer in OpenAI's shape, cut at the token limit."""
    cut = text[: request.max_tokens * 4]
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": cut, "refusal": None},
        "finish_reason": "stop" if len(cut) == len(text) else "length",
        "logprobs": None,
    }
    if asked.get("logprobs"):
        choice["logprobs"] = {"content": _token_probs(cut, completion.probs, int(asked.get("top_logprobs") or 0))}
    prompt_tokens, tokens = completion.usage.prompt, max(1, len(cut) // 4)
    return {
        "id": f"chatcmpl-{request.key}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked.get("model", ""),
        "choices": [choice],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens},
    }


def _token_probs(text: str, probs: Mapping[str, float] | None, top: int) -> list[dict[str, Any]]:
    """Every piece of the answer with its log-probability: the grade's where the grade stands, certain elsewhere."""
    tokens = []
    waiting = probs
    for piece in _PIECES.findall(text):
        shares = {piece: 1.0}
        if waiting and piece in waiting:
            shares, waiting = dict(waiting), None
        ranked = sorted(shares.items(), key=lambda share: -share[1])[:top]
        tokens.append({**_token(piece, shares[piece]), "top_logprobs": [_token(t, p) for t, p in ranked]})
    return tokens


def _token(token: str, share: float) -> dict[str, Any]:
    return {"token": token, "logprob": math.log(max(share, 1e-12)), "bytes": list(token.encode("utf-8", "replace"))}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "simulated", "code": None, "param": None}}


_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    421: "Misdirected Request",
    429: "Too Many Requests",
    500: "Internal Server Error",
}


def _response(status: int, body: Mapping[str, Any] | bytes) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}", "content-type: application/json", f"content-length: {len(data)}"]
    lines += ["retry-after: 0"] if status == 429 else []
    return "\r\n".join([*lines, "", ""]).encode() + data
