"""Asking one endpoint many questions: paced workers, retries by class of failure, one repair, and when to stop."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from piar.llm.base import Completion, Failure, FailureClass, Message, Request, Usage
from piar.llm.cost import Price, charge, most_usage, read_usage
from piar.llm.openai.chat import RAISE_LIMIT, Answer, BadReply, ChatWire, Wire, decoded, probabilities
from piar.llm.openai.cut_prompts import Reads
from piar.llm.openai.gate import Gate, Halted
from piar.llm.openai.pacing import Pacer
from piar.llm.openai.refusals import (
    Dialect,
    Refusal,
    error_inside,
    inner_status,
    is_bare_error,
    is_too_long,
    read_refusal,
)
from piar.llm.openai.transports import MOST_BYTES, TRANSPORTS, Endpoint, LostConnection, Reply, ReplyTooLarge
from piar.llm.secrets import scrub, without

BILLED_STATUSES = frozenset({408, 504, 524})  # a gateway gave up waiting: behind it, the answer may have been made
UNREAD_STREAK = 12  # answers in a row that nobody can read, while none could be read before, that stop a batch
WORDS = 500  # characters of an error that are kept
SHOWN = 200  # characters of an unreadable answer that are shown
RETRIED: frozenset[FailureClass] = frozenset({"timeout", "connection", "rate_limit", "server", "malformed"})
UNREADABLE: frozenset[FailureClass] = frozenset({"malformed", "truncated"})
FATAL: frozenset[FailureClass] = frozenset({"auth", "billing"})
LOST_STATUSES = frozenset({404, 405})  # no such address, or no such model
FATAL_STATUSES = LOST_STATUSES | {301, 302, 303, 307, 308, 410}
FATAL_STREAK = 8  # errors in a row that every request would meet, with no answer between, that stop a batch
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
        attempts: times a request is sent at most; a 429 does not count. One that was answered, but not so that it
            can be read, is sent twice at most.
        patience: seconds without any answer after which everything still open fails.
        structured: send JSON schemas, where requests have one.
        logprobs: ask for log-probabilities, where requests have grades.
        extra: further keys of every body, sent as they are.
        transport: a name of `TRANSPORTS`.
        wire: what is spoken.
    """

    attempts: int = 6
    patience: float = 180.0
    structured: bool = True
    logprobs: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    transport: str = "openai"
    wire: Wire = field(default_factory=ChatWire)


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
    """One request on its way to an answer: what to send next, and what it has cost so far.

    Attributes:
        second: whether it has been asked again because its answer could not be read; that is done once.
        sent: times it was sent.
        paid: times it was sent that may have been paid for.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.began = time.monotonic()
        self.failures = 0
        self.second = False
        self.sent = self.paid = 0
        self.usage = Usage()
        self.tokens = sum(len(m.content) for m in request.messages) // CHARACTERS_PER_TOKEN + request.max_tokens

    def spend(self, usage: Usage, most: Usage, price: Price) -> None:
        """Count an attempt that may have been paid for, and what it used."""
        mine = self.usage
        self.usage = Usage(mine.prompt + usage.prompt, mine.cached + usage.cached, mine.completion + usage.completion)
        self.paid += 1
        if self.request.hold is not None:
            self.request.hold.paid(charge(most, price), charge(usage, price))

    def repair(self, answer: str, reason: str) -> None:
        """Ask once more, showing the model its answer and what is wrong with it."""
        words = f"That answer could not be read: {reason[:150]}. Answer again, in exactly the format asked for."
        messages = (*self.request.messages, Message("assistant", answer), Message("user", words))
        self.request, self.second = replace(self.request, messages=messages), True


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
        self._dialect = Dialect.of(structured=manners.structured, logprobs=manners.logprobs)
        self._reads = Reads()
        self._fatal = 0
        self._heard = False
        self._unread: int | None = 0  # unreadable answers so far; None as soon as one could be read
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
        if not self._heard and any(r.hold is not None and r.hold.capped for r in requests[:1]):
            self.pacer.limit = 1.0  # the first answer shows what answers cost before many are under way
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
            failure = examine(request, answer, [self.endpoint.key])
            if failure is not None and failure.kind == "malformed" and not case.second:
                answer, failure = await self._repair(case, answer, failure)
        except Failed as failed:
            answer, failure = None, Failure(failed.kind, failed.message)
        except Halted as halted:
            return self._completion(case, None, halted.failure)
        self._note_readable(answer, failure)
        return self._completion(case, answer, failure)

    def _note_readable(self, answer: Answer | None, failure: Failure | None) -> None:
        """Halt all when one answer after the other cannot be read, and none could before."""
        if failure is None:
            self._unread = None
        elif self._unread is not None and failure.kind in UNREADABLE:
            self._unread += 1
            if self._unread >= UNREAD_STREAK:
                words = f"stopped: none of {self._unread} answers could be read; the last: {failure.message}"
                said = f". It said: {self._clean(answer.text)[:SHOWN]!r}" if answer is not None and answer.text else ""
                self._gate.halt(Failure(failure.kind, self._clean(words) + said))

    async def _repair(self, case: Case, answer: Answer, failure: Failure) -> tuple[Answer, Failure | None]:
        """Ask once more for a readable answer; if even that fails, the first one was malformed."""
        first = case.request
        case.repair(answer.text, failure.message)
        try:
            again = await self._ask(case)
        except Failed as failed:
            return answer, Failure("malformed", f"{failure.message}; asked again: {failed.message}")
        return again, examine(first, again, [self.endpoint.key])

    async def _ask(self, case: Case) -> Answer:
        """Send until an answer comes. Raises `Failed` when trying again is no use, and `Halted`."""
        last: Failed | None = None
        while True:
            try:
                return await self._attempt(case)
            except ParameterRefused:
                continue
            except Failed as failed:
                if failed.kind == "budget" and last is not None:
                    raise Failed(last.kind, f"{last.message}; {failed.message}") from None
                await self._gate.sleep(self._backoff(case, failed))
                last = failed

    async def _attempt(self, case: Case) -> Answer:
        """Send once, and tell the pacer how it went. Raises `Failed`, `ParameterRefused` or `Halted`."""
        await self._gate.enter(case.tokens)
        started = time.monotonic()
        most = self.manners.wire.most(most_usage(case.request, self.manners.extra))
        try:
            hold = case.request.hold
            if hold is not None and not hold.attempt(charge(most, self.price)):
                raise Failed("budget", "the budget does not hold another attempt")
            body = self._dialect.spoken(self.manners.wire.body(case.request, self.name, self.manners.extra))
            case.sent += 1
            async with asyncio.timeout(self.endpoint.timeout):
                reply = await self._transport.post(body)
            return self._read(case, body, reply, most, started)
        except BadReply as unasked:
            raise Failed(unasked.kind, unasked.message) from None
        except TimeoutError:
            self._lost(case, most, started)
            raise Failed("timeout", f"no whole reply within {self.endpoint.timeout:g} s") from None
        except ReplyTooLarge:
            self._lost(case, most, started)
            words = f"its reply did not end within {MOST_BYTES >> 20} MiB; logprobs = false asks for less"
            raise Failed("malformed", words) from None
        except LostConnection as lost:
            if lost.sent:
                self._lost(case, most, started)
            else:
                self.pacer.failed(time.monotonic(), started)
            if not self._heard:
                self._say("unheard", f"No whole reply comes from {self.endpoint.base_url} ({lost}); still trying.")
            raise Failed("connection", f"the connection was lost: {lost}") from None
        finally:
            self._gate.leave(case.tokens)

    def _lost(self, case: Case, most: Usage, started: float) -> None:
        """Count an attempt whose reply never came whole, at its most: the endpoint may have made the answer."""
        self.pacer.failed(time.monotonic(), started)
        case.spend(most, most, self.price)
        if self.price.input or self.price.output:
            self._say(
                "lost", f"A reply of {self.model} was lost on its way: such are charged at the most they can cost."
            )

    def _read(self, case: Case, body: Mapping[str, Any], reply: Reply, most: Usage, started: float) -> Answer:
        """The answer in a reply. What it cost is counted before anything else can fail."""
        now = time.monotonic()
        self._heard = True
        self.pacer.told(now, reply.headers)
        data = decoded(reply.body)
        error = error_inside(data) if reply.good else data
        usage, whole = read_usage(data, most)
        if whole or (reply.good and not is_bare_error(data)) or reply.status in BILLED_STATUSES:
            self._count(case, usage, whole, most)
        if error is not None:
            self._refused(reply, error, body, now, started)
        try:
            answer = self.manners.wire.answer(case.request, data)
        except BadReply as bad:
            self.pacer.succeeded(now, started)
            raise Failed(bad.kind, bad.message) from None
        self.pacer.succeeded(now, started)
        self._fatal = 0
        self._remark(case.request, body, answer)
        return answer

    def _count(self, case: Case, usage: Usage, whole: bool, most: Usage) -> None:
        """Count what a reply cost; where it does not say that whole, what is missing at its most."""
        case.spend(usage, most, self.price)
        if not whole:
            words = "does not say in whole what its answers use: what is missing is charged at the most it can be."
            self._say("no usage", f"{self.model} {words}")
        elif usage.completion > most.completion:
            words = "what is in flight can pass a cap, and from here on more is set aside for each."
            over = f"used {usage.completion:,} tokens for an answer limited to {most.completion:,}"
            self._say("over limit", f"{self.model} {over}: {words}")

    def _refused(self, reply: Reply, error: object, body: Mapping[str, Any], now: float, started: float) -> None:
        """Say what an error means, and slow down where that is the answer. Always raises."""
        status = inner_status(error) if reply.good else reply.status
        found = read_refusal(status, reply.headers, error, body, datetime.now(UTC))
        if found.parameter is not None:
            self._say(found.parameter, f"{self.model} {self._dialect.learn(found)}. It said: {found.message}")
            raise ParameterRefused
        if found.kind == "rate_limit":
            self.pacer.limited(now, started, found.wait)
        elif found.kind in RETRIED:
            self.pacer.failed(now, started, found.wait)
        elif self._meets_all(found, status):
            self._fatal += 1
        where = f"an error inside its reply ({status})" if reply.good else f"HTTP {status}"
        if status in LOST_STATUSES:
            where += f" at {self.endpoint.base_url}{self.endpoint.path}"
        raise Failed(found.kind, f"{where}: {found.message}", found.wait)

    def _meets_all(self, found: Refusal, status: int) -> bool:
        """Whether every other request would be refused as well: a wrong key, an unknown model; before anything could be
        read, whatever is not about the length of this one."""
        if found.kind in FATAL or status in FATAL_STATUSES:
            return True
        own = status == 413 or is_too_long(found.message)
        return found.kind == "request" and not own and self._unread is not None

    def _backoff(self, case: Case, failed: Failed) -> float:
        """Seconds until the next attempt, with full jitter; raises `Failed` when there is none, and may halt all."""
        case.failures += failed.kind != "rate_limit"
        again = not case.second if failed.kind in UNREADABLE else case.failures < self.manners.attempts
        case.second |= failed.kind in UNREADABLE
        silent = time.monotonic() - max(self._began, self.pacer.last_success or 0.0) + (failed.retry_after or 0.0)
        if self._fatal >= FATAL_STREAK:
            self._gate.halt(Failure(failed.kind, self._clean(f"stopped: {failed.message}")))
        elif failed.kind in RETRIED and silent > self._patience(failed.kind):
            asked = f"the endpoint asks to wait {failed.retry_after:.0f} s" if failed.retry_after else ""
            words = f"stopped: {asked or f'no answer for {silent:.0f} s, at last'}: {failed.message}"
            self._gate.halt(Failure(failed.kind, self._clean(words)))
        if failed.kind not in RETRIED or not again:
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
        if self._reads.cut(request, answer.usage.prompt):
            words = f"reads no more than {answer.usage.prompt:,} tokens of a prompt and passes over the rest in silence"
            mend = "give the server a longer context (Ollama: OLLAMA_CONTEXT_LENGTH or num_ctx)."
            self._say("cut", f"{self.model} {words}; {mend}")
        if answer.model and answer.model != self.name and not answer.model.startswith(self.name):
            self._say("other model", f"{self.model} was asked for, {answer.model!r} says that it answered.")

    def _say(self, topic: str, words: str) -> None:
        if topic not in self._noticed:
            self._noticed.add(topic)
            self._notice(self._clean(words))

    def _clean(self, words: str) -> str:
        """Words for people: without the key, and not too many; cut last, so that no half of a key is left."""
        return scrub(words, [self.endpoint.key])[:WORDS]

    def _probs(self, request: Request, answer: Answer) -> Mapping[str, float] | None:
        found = probabilities(request, answer)
        if found.reason:
            self._say(found.reason, f"{self.model}: {found.reason}; such verdicts carry no probabilities.")
        return found.probs

    def _completion(self, case: Case, answer: Answer | None, failure: Failure | None) -> Completion:
        return Completion(
            key=case.request.key,
            model=self.model,
            text=None if answer is None else without(answer.text, [self.endpoint.key]),
            probs=None if answer is None else self._probs(case.request, answer),
            failure=None if failure is None else Failure(failure.kind, self._clean(failure.message)),
            usage=case.usage,
            cost_usd=self.price.cost(case.usage),
            seconds=time.monotonic() - case.began,
            attempts=max(case.paid, min(case.sent, 1)),
        )


def examine(request: Request, answer: Answer, secrets: Sequence[str] = ()) -> Failure | None:
    """What is wrong with an answer's text: `malformed`, or `truncated` when it was cut off, or nothing.

    Args:
        secrets: taken out before the answer is quoted in part.
    """
    if request.check is not None:
        reason = request.check(without(answer.text, secrets))
    elif request.schema is not None:
        reason = None if isinstance(decoded(answer.text.encode(errors="replace")), dict) else "not a JSON object"
    else:
        reason = "cut off" if answer.finish in {"length", "window"} else None
    if reason is None:
        return None
    if answer.finish == "length":
        return Failure(
            "truncated", f"the answer reached {request.max_tokens} tokens and was cut off: {reason}; {RAISE_LIMIT}"
        )
    if answer.finish == "window":
        return Failure("truncated", f"the answer was cut off where the model's window ends: {reason}")
    return Failure("malformed", reason)


def _is_plain(request: Request, text: str) -> bool:
    """Whether an answer can be read, and not because it follows the schema."""
    return "{" not in text and request.check is not None and request.check(text) is None
