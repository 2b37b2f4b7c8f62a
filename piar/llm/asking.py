"""Asking one endpoint many questions: paced workers, retries by class of failure, one repair, and when to stop."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from piar.llm.base import Completion, Failure, FailureClass, Message, Request, Usage
from piar.llm.chat import (
    RAISE_LIMIT,
    Answer,
    BadReply,
    chat_body,
    error_message,
    probabilities,
    read_answer,
    refused_parameter,
    scrub,
)
from piar.llm.cost import Price
from piar.llm.gate import Gate, Halted
from piar.llm.pacing import Pacer, retry_after
from piar.llm.transports import TRANSPORTS, Endpoint, LostConnection, Reply

RETRIED: frozenset[FailureClass] = frozenset({"timeout", "connection", "rate_limit", "server", "malformed"})
STATUS_KINDS: dict[int, FailureClass] = {401: "auth", 403: "auth", 408: "timeout", 409: "server", 429: "rate_limit"}
FATAL_STREAK = 8  # wrong keys or unknown models in a row, with no answer between, that stop a batch
BACKOFF_SECONDS = 0.5
BACKOFF_MOST = 30.0
UNHEARD_SECONDS = 20.0  # how long an address is tried from which nothing at all has ever come
CHARACTERS_PER_TOKEN = 4  # only to keep within an endpoint's tokens a minute

Notice = Callable[[str], None]
Deliver = Callable[[int, Completion], None]


@dataclass(frozen=True, slots=True)
class Manners:
    """How to treat an endpoint.

    Attributes:
        attempts: times a request is sent at most; a 429 does not count.
        patience: seconds without any answer after which everything still open fails.
        structured: send JSON schemas, where requests have one.
        extra: further keys of every body, sent as they are.
        transport: a name of `TRANSPORTS`.
    """

    attempts: int = 6
    patience: float = 180.0
    structured: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    transport: str = "openai"


class Failed(Exception):
    """One attempt failed; `retry_after` is what the endpoint asked for, in seconds."""

    def __init__(self, kind: FailureClass, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retry_after = retry_after


class ParameterRefused(Exception):
    """The endpoint does not know a parameter; the same request is to be sent without it."""


class Case:
    """One request on its way to an answer: what to send next, and what it has cost so far."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.began = time.monotonic()
        self.attempts = 0
        self.failures = 0
        self.repaired = False
        self.usage = Usage()
        self.tokens = sum(len(m.content) for m in request.messages) // CHARACTERS_PER_TOKEN + request.max_tokens

    def spend(self, usage: Usage) -> None:
        """Add what one reply used."""
        mine = self.usage
        self.usage = Usage(mine.prompt + usage.prompt, mine.cached + usage.cached, mine.completion + usage.completion)

    def repair(self, answer: str, reason: str) -> None:
        """Ask once more, showing the model its answer and what is wrong with it."""
        words = f"That answer could not be read: {reason[:150]}. Answer again, in exactly the format asked for."
        messages = (*self.request.messages, Message("assistant", answer), Message("user", words))
        self.request, self.repaired = replace(self.request, messages=messages), True


class Asker:
    """One endpoint, and what is learnt about it from batch to batch: its pace and what it refuses.

    Args:
        name: the model as the endpoint knows it.
        model: the model as completions name it.
    """

    def __init__(self, name: str, model: str, endpoint: Endpoint, manners: Manners, price: Price) -> None:
        self.name, self.model, self.endpoint, self.manners, self.price = name, model, endpoint, manners, price
        self.pacer = Pacer(most=endpoint.concurrency)
        self._noticed: set[str] = set()
        self._without: set[str] = set() if manners.structured else {"response_format"}
        self._fatal = 0
        self._heard = False
        self._random = random.Random()

    async def run(self, requests: Sequence[Request], gate: Gate, deliver: Deliver, notice: Notice) -> None:
        """Answer every request.

        Args:
            gate: through which all attempts pass; its halt ends the batch early.
            deliver: gets each completion with its position, in order of arrival.
            notice: told once about each thing that the endpoint cannot do.
        """
        self._gate, self._notice = gate, notice
        self._began, self._fatal = time.monotonic(), 0
        line = iter(enumerate(requests))
        async with TRANSPORTS[self.manners.transport](self.endpoint) as transport, asyncio.TaskGroup() as workers:
            self._transport = transport
            for _ in range(min(self.endpoint.concurrency, len(requests))):
                workers.create_task(self._work(line, deliver))

    async def _work(self, line: Iterator[tuple[int, Request]], deliver: Deliver) -> None:
        for position, request in line:
            deliver(position, await self._complete(request))

    async def _complete(self, request: Request) -> Completion:
        case = Case(request)
        try:
            answer = await self._ask(case)
            failure = examine(request, answer)
            if failure is not None and failure.kind == "malformed":
                answer, failure = await self._repair(case, answer, failure)
        except Failed as failed:
            return self._completion(case, None, Failure(failed.kind, failed.message))
        except Halted as halted:
            return self._completion(case, None, halted.failure)
        return self._completion(case, answer, failure)

    async def _repair(self, case: Case, answer: Answer, failure: Failure) -> tuple[Answer, Failure | None]:
        """Ask once more for a readable answer; if even that fails, the first one was malformed."""
        first = case.request
        case.repair(answer.text, failure.message)
        try:
            again = await self._ask(case)
        except Failed as failed:
            return answer, Failure("malformed", f"{failure.message}; asked again: {failed.message}")
        return again, examine(first, again)

    async def _ask(self, case: Case) -> Answer:
        """Send until an answer comes. Raises `Failed` when trying again is no use, and `Halted`."""
        while True:
            try:
                return await self._attempt(case)
            except ParameterRefused:
                continue
            except Failed as failed:
                await self._gate.sleep(self._backoff(case, failed))

    async def _attempt(self, case: Case) -> Answer:
        """Send once, and tell the pacer how it went. Raises `Failed`, `ParameterRefused` or `Halted`."""
        await self._gate.enter(case.tokens)
        started = time.monotonic()
        case.attempts += 1
        try:
            body = chat_body(case.request, self.name, without=self._without, extra=self.manners.extra)
            async with asyncio.timeout(self.endpoint.timeout):
                reply = await self._transport.post(body)
            answer = self._read(case, body, reply, started)
        except TimeoutError:
            self.pacer.failed(time.monotonic(), started)
            raise Failed("timeout", f"no whole reply within {self.endpoint.timeout:g} s") from None
        except LostConnection as lost:
            self.pacer.failed(time.monotonic(), started)
            if not self._heard:
                self._say("unheard", f"Nothing answers at {self.endpoint.base_url} ({lost}); still trying.")
            raise Failed("connection", f"the connection was lost: {lost}") from None
        finally:
            self._gate.leave(case.tokens)
        return answer

    def _read(self, case: Case, body: Mapping[str, Any], reply: Reply, started: float) -> Answer:
        now = time.monotonic()
        self._heard = True
        self.pacer.told(now, reply.headers)
        if reply.status != 200:
            self._refused(body, reply, now, started)
        try:
            answer = read_answer(reply.body)
        except BadReply as bad:
            case.spend(bad.usage)
            raise Failed(bad.kind, bad.message) from None
        case.spend(answer.usage)
        self.pacer.succeeded(now, started)
        self._fatal = 0
        self._remark(case.request, body, answer)
        return answer

    def _refused(self, body: Mapping[str, Any], reply: Reply, now: float, started: float) -> None:
        """Say what a status other than 200 means, and slow down where that is the answer. Always raises."""
        wait = retry_after(reply.headers, datetime.now(UTC))
        message = error_message(_decoded(reply.body))
        kind = failure_kind(reply.status, message)
        if kind == "rate_limit":
            self.pacer.limited(now, started, wait)
        elif kind in RETRIED:
            self.pacer.failed(now, started, wait)
        elif kind == "request" and (name := refused_parameter(message, body)):
            self._without.add(name)
            self._say(name, f"{self.model} refuses {name!r}; going on without it. It said: {message}")
            raise ParameterRefused
        elif kind == "auth" or reply.status == 404:
            self._fatal += 1
        raise Failed(kind, f"HTTP {reply.status}: {message}", wait)

    def _backoff(self, case: Case, failed: Failed) -> float:
        """Seconds until the next attempt, with full jitter; raises `Failed` when there is none, and may halt all."""
        case.failures += failed.kind != "rate_limit"
        silent = time.monotonic() - max(self._began, self.pacer.last_success or 0.0) + (failed.retry_after or 0.0)
        if self._fatal >= FATAL_STREAK:
            self._gate.halt(Failure(failed.kind, self._clean(f"stopped: {failed.message}")))
        elif failed.kind in RETRIED and silent > self._patience(failed.kind):
            words = f"stopped: no answer for {silent:.0f} s, at last: {failed.message}"
            self._gate.halt(Failure(failed.kind, self._clean(words)))
        if failed.kind not in RETRIED or case.failures >= self.manners.attempts:
            raise failed
        return self._random.uniform(0, min(BACKOFF_MOST, BACKOFF_SECONDS * 2.0 ** max(0, case.failures - 1)))

    def _patience(self, kind: FailureClass) -> float:
        """Seconds of silence to bear: few when nobody has ever picked up, for then the address is likely wrong."""
        unheard = kind == "connection" and not self._heard
        return min(self.manners.patience, UNHEARD_SECONDS) if unheard else self.manners.patience

    def _remark(self, request: Request, body: Mapping[str, Any], answer: Answer) -> None:
        """Say aloud, once each, what the endpoint passed over in silence."""
        if request.grades and "logprobs" in body and not answer.tokens:
            self._say("no logprobs", f"{self.model} sends no logprobs: its verdicts carry no probabilities.")
        if "response_format" in body and _is_plain(request, answer.text):
            self._say("no schema", f"{self.model} ignores the JSON schema; its text is read as the trace format.")
        if answer.model and answer.model != self.name and not answer.model.startswith(self.name):
            self._say("other model", f"{self.model} was asked for, {answer.model!r} says that it answered.")

    def _say(self, topic: str, words: str) -> None:
        if topic not in self._noticed:
            self._noticed.add(topic)
            self._notice(self._clean(words))

    def _clean(self, words: str) -> str:
        return scrub(words, [self.endpoint.key])

    def _probs(self, request: Request, answer: Answer) -> Mapping[str, float] | None:
        found = probabilities(request, answer)
        if found.reason:
            self._say(found.reason, f"{self.model}: {found.reason}; such verdicts carry no probabilities.")
        return found.probs

    def _completion(self, case: Case, answer: Answer | None, failure: Failure | None) -> Completion:
        return Completion(
            key=case.request.key,
            model=self.model,
            text=None if answer is None else answer.text,
            probs=None if answer is None else self._probs(case.request, answer),
            failure=None if failure is None else Failure(failure.kind, self._clean(failure.message)),
            usage=case.usage,
            cost_usd=self.price.cost(case.usage),
            seconds=time.monotonic() - case.began,
            attempts=case.attempts,
        )


def examine(request: Request, answer: Answer) -> Failure | None:
    """What is wrong with an answer's text: `malformed`, or `truncated` when it was cut off, or nothing."""
    if request.check is not None:
        reason = request.check(answer.text)
    elif request.schema is not None:
        reason = None if isinstance(_decoded(answer.text.encode()), dict) else "not a JSON object"
    else:
        reason = "cut off" if answer.finish == "length" else None
    if reason is None:
        return None
    if answer.finish == "length":
        return Failure(
            "truncated", f"the answer reached {request.max_tokens} tokens and was cut off: {reason}; {RAISE_LIMIT}"
        )
    return Failure("malformed", reason)


def _is_plain(request: Request, text: str) -> bool:
    """Whether an answer can be read, and not because it follows the schema."""
    return "{" not in text and request.check is not None and request.check(text) is None


def failure_kind(status: int, message: str) -> FailureClass:
    """The class of an HTTP status; a 429 that no waiting mends (quota used up) counts as `auth`."""
    if status == 429 and "quota" in message.lower():
        return "auth"
    return STATUS_KINDS.get(status, "server" if status >= 500 else "request")


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode(errors="replace")
