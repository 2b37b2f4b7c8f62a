"""The one way to judge samples: render, ask what is not known yet, parse, record.

Evaluating a candidate instruction, labelling the pool and scoring a student all pass through here and
write one table of verdicts. A request's key is a hash of everything that shapes the answer, so nothing
is paid for twice: adding a sample asks one request, changing the instruction asks that version only.
Each answer is in the journal before it counts; folding into the store can wait.
"""

import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from piar.llm.asking import REPAIR_TOKENS
from piar.llm.base import Client, Message, Request
from piar.llm.connect import ModelSettings
from piar.llm.cost import Budget
from piar.llm.interrupts import patient
from piar.prompting import judge_prefix
from store.db import Store
from store.errors import PiarError
from store.ids import content_id, short_hash
from store.journal import Journal
from store.settings import Settings
from store.task import Task, sample_text
from store.trace import parse_trace, trace_schema
from store.types import Completion, Instruction, Sample, Trace, Usage, Verdict

# An answer came, though not a usable one: the same run does not ask again.
ANSWERED = frozenset({"malformed", "refused", "truncated"})
# When a whole chunk fails like this, the rest would too.
_HOPELESS = {
    "auth": "Check the key: the environment variable named by `api_key_env` under [teacher].",
    "connection": "Check `base_url` under [teacher] and the network; `piar doctor` tests the endpoint.",
    "request": "Check the model's name and its limits under [teacher]; `piar doctor` tests the endpoint.",
    "server": "The endpoint is failing; run the same command again later, nothing that arrived is lost.",
}


class LabelSettings(Settings):
    """`[label]`: how samples are asked.

    Attributes:
        votes: opinions asked of each sample.
        vote_temperature: of the second vote on, which need some spread; the first has the model's own.
        chunk: requests handed to the client at a time.
    """

    votes: int = 1
    vote_temperature: float = 0.7
    chunk: int = 2000


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples to be judged under one instruction; `first_vote` continues an earlier ballot."""

    instruction: Instruction
    samples: Iterable[Sample]
    votes: int = 1
    first_vote: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a judging call has come; `total` is None when the samples are a stream."""

    done: int
    total: int | None
    cost_usd: float
    failed: Mapping[str, int]


OnProgress = Callable[[Progress], None]
OnVerdict = Callable[[Verdict], None]


@dataclass(slots=True)
class LabelReport:
    """What a judging call did; `labelled` + all of `failed` = `asked` + `cached` + those out of budget.

    Attributes:
        asked: requests sent to the model.
        cached: verdicts that were known already.
        labelled: requests that have a grade now.
        failed: class of failure -> count; `budget` counts requests that were not sent.
    """

    asked: int = 0
    cached: int = 0
    labelled: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    cost_usd: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What the requests of one instruction share."""

    instruction: str
    system: Message
    schema: Mapping[str, Any]
    digest: str


@dataclass(frozen=True, slots=True)
class _Ask:
    """One request together with what its verdict needs."""

    request: Request
    sample_id: str
    instruction: str
    vote: int


def request_key(digest: str, sample: Sample, text: str, vote: int) -> str:
    """Key of a request: sample content, vote, and the digest of all that the batch's requests share.

    Args:
        digest: hash over instruction, rendered prefix, model, parameters and answer schema.
        text: the sample as the judge reads it.
    """
    return content_id("judge", digest, sample.id, text, str(vote))


def verdict_of(completion: Completion, ask: _Ask, judge: str, task: Task) -> Verdict:
    """Read one answer; an answer without a grade is a verdict too, with the reason."""
    probs = completion.probs and tuple(float(completion.probs.get(s, 0.0)) for s in task.symbols)
    failure: str | None = completion.failure.kind if completion.failure else None
    trace = None
    if failure is None:
        trace = parse_trace(completion.text or "", task).trace
        failure = None if trace else "malformed"
    return Verdict(
        key=completion.key,
        sample_id=ask.sample_id,
        judge=judge,
        instruction=ask.instruction,
        vote=ask.vote,
        grade=trace.grade if trace else None,
        probs=(probs or None) if trace else None,
        trace=trace,
        failure=failure,
    )


class Labeller:
    """Judges samples for one run, remembering what is known. Use it as a context manager.

    A verdict recorded earlier under the same `run_id` is charged to the budget again, so that a run
    resumed after a crash decides exactly as an uninterrupted one.

    Args:
        store: where verdicts are kept.
        client: the model that is asked.
        role: `teacher` or `student`; with the model's name it is the judge's name.
        journal: makes answers durable at once; the caller closes it.
        budget: hard cap, reserved before asking.
        model: temperature, token limit and price of the client.
        prompts: the project's folder of template overrides.
    """

    def __init__(
        self,
        store: Store,
        client: Client,
        journal: Journal,
        *,
        role: str = "teacher",
        run_id: str = "",
        budget: Budget | None = None,
        model: ModelSettings | None = None,
        prompts: Path | None = None,
        settings: LabelSettings | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.store, self.client, self.journal = store, client, journal
        self.role, self.run_id, self.judge_name = role, run_id, f"{role}:{client.model}"
        self.budget, self.model = budget or Budget(), model or ModelSettings()
        self.settings = settings or LabelSettings()
        self._overrides, self._on_progress = prompts, on_progress
        self._prompts: dict[int, tuple[Instruction, _Prompt]] = {}
        self._unfolded: dict[str, Verdict] = {}
        self._shown_at = time.monotonic()
        journal.fold(store)
        with store.read() as con:
            found = con.execute("select distinct instruction from verdicts where judge = ?", [self.judge_name])
            self._stored = {row[0] for row in found.fetchall()}
            paid = con.execute(
                "select key, count(*), sum(cost_usd) from completions where run_id = ? group by key", [run_id]
            )
            self._paid = {key: (calls, usd) for key, calls, usd in paid.fetchall()}
        self._charged: set[str] = set()

    def __enter__(self) -> "Labeller":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.fold()

    def fold(self) -> None:
        """Bring everything that is in the journal into the store."""
        if self._unfolded:
            self.journal.fold(self.store)
            self._stored.update(v.instruction for v in self._unfolded.values())
            self._unfolded.clear()

    def judge(
        self, batches: Sequence[Batch], on_verdict: OnVerdict | None = None, *, only: Container[str] | None = None
    ) -> LabelReport:
        """Judge every sample of every batch; known verdicts are not asked again.

        Args:
            batches: candidates of one round go in together, so that they are asked together.
            on_verdict: receives every verdict, known or new, in the order asked.
            only: keys of the requests that the client can answer; the others are passed over.

        Raises:
            KeyboardInterrupt: after what was in flight has arrived and is kept.
            PiarError: a whole chunk failed in a way that the rest would, too.
        """
        report, started = LabelReport(), time.monotonic()
        total = _total(batches)
        with patient() as interrupted:
            wanted = (ask for ask in self._asks(batches) if only is None or ask.request.key in only)
            for asks in _chunks(wanted, self.settings.chunk):
                for verdict in self._judge_chunk(asks, report, total):
                    _count(report, verdict)
                    if on_verdict:
                        on_verdict(verdict)
                self._show(report, total, force=True)
                if interrupted() or self.journal.due:
                    self.fold()
                if interrupted():
                    raise KeyboardInterrupt
        report.seconds = time.monotonic() - started
        return report

    def requests(self, batches: Sequence[Batch]) -> Iterator[Request]:
        """Every request of these batches, known or not, in order. Nothing is asked."""
        return (ask.request for ask in self._asks(batches))

    def pending(self, batches: Sequence[Batch]) -> Iterator[Request]:
        """The requests that `judge` would send, in order. Nothing is asked and nothing is charged."""
        for asks in _chunks(self._asks(batches), self.settings.chunk):
            known = self._known(asks)
            yield from {a.request.key: a.request for a in asks if a.request.key not in known}.values()

    # -- one chunk --------------------------------------------------------------------------

    def _judge_chunk(self, asks: Sequence[_Ask], report: LabelReport, total: int | None) -> list[Verdict]:
        known = self._known(asks)
        report.cached += len(known)
        self._charge(asks, known)
        fresh: dict[str, Verdict] = {}
        wanted = list({a.request.key: a for a in asks if a.request.key not in known}.values())
        while wanted and (granted := self._reserve(wanted)):
            fresh.update(self._ask(wanted[:granted], report, total))
            wanted = wanted[granted:]
        fresh.update((a.request.key, self._unasked(a)) for a in wanted)
        return [known.get(a.request.key) or fresh[a.request.key] for a in asks]

    def _ask(self, asks: Sequence[_Ask], report: LabelReport, total: int | None) -> dict[str, Verdict]:
        """Send requests whose cost is reserved; each answer is in the journal before it counts."""
        by_key = {a.request.key: a for a in asks}
        verdicts: dict[str, Verdict] = {}

        def keep(completion: Completion) -> None:
            verdict = verdict_of(completion, by_key[completion.key], self.judge_name, self.store.task)
            self.journal.append(self.role, self.run_id, completion, verdict)
            verdicts[completion.key] = self._unfolded[completion.key] = verdict
            report.asked += 1
            report.cost_usd += completion.cost_usd
            self._show(report, total)

        completions = self.client.generate([a.request for a in asks], keep)
        for ask, completion in zip(asks, completions, strict=True):
            self.budget.settle(self._ceiling(ask.request), completion.cost_usd)
        _stop_if_hopeless(completions)
        return verdicts

    def _known(self, asks: Sequence[_Ask]) -> dict[str, Verdict]:
        keys = [a.request.key for a in asks]
        known = {key: verdict for key in keys if (verdict := self._unfolded.get(key))}
        stored = [a.request.key for a in asks if a.instruction in self._stored and a.request.key not in known]
        if stored:
            known.update(stored_verdicts(self.store, stored))
        return {key: v for key, v in known.items() if v.grade is not None or self._settled(v)}

    def _settled(self, verdict: Verdict) -> bool:
        """Whether this run has had an answer, however useless; the next run asks again."""
        return verdict.failure in ANSWERED and (verdict.key in self._unfolded or verdict.key in self._paid)

    # -- budget -----------------------------------------------------------------------------

    def _charge(self, asks: Sequence[_Ask], known: Mapping[str, Verdict]) -> None:
        for key in (a.request.key for a in asks):
            if key in known and key in self._paid and key not in self._charged:
                calls, usd = self._paid[key]
                self.budget.reserve(usd, calls)
                self.budget.settle(usd, usd)
                self._charged.add(key)

    def _reserve(self, asks: Sequence[_Ask]) -> int:
        """How many of these requests, in order, the budget can hold at their highest cost."""
        for count, ask in enumerate(asks):
            if not self.budget.reserve(self._ceiling(ask.request)):
                return count
        return len(asks)

    def _ceiling(self, request: Request) -> float:
        """Dollars that a request may cost at most, one repair included: a token holds at least one byte."""
        price, answer = self.model.price, request.max_tokens
        if not (price.input or price.output):
            return 0.0
        prompt = sum(len(m.content.encode()) for m in request.messages)
        return price.cost(Usage(2 * prompt + answer + REPAIR_TOKENS, 0, 2 * answer))

    def _unasked(self, ask: _Ask) -> Verdict:
        return Verdict(
            ask.request.key, ask.sample_id, self.judge_name, ask.instruction, ask.vote, None, failure="budget"
        )

    # -- rendering --------------------------------------------------------------------------

    def _asks(self, batches: Sequence[Batch]) -> Iterator[_Ask]:
        settings, model, grades = self.settings, self.model, self.store.task.symbols
        for batch in batches:
            prompt = self._prompt(batch.instruction)
            for sample in batch.samples:
                text = sample_text(sample.fields)
                messages = (prompt.system, Message("user", text))
                for vote in range(batch.first_vote, batch.first_vote + batch.votes):
                    request = Request(
                        request_key(prompt.digest, sample, text, vote),
                        messages,
                        grades,
                        prompt.schema,
                        max_tokens=model.max_tokens,
                        temperature=settings.vote_temperature if vote else model.temperature,
                        seed=vote,
                        check=self._unreadable,
                    )
                    yield _Ask(request, sample.id, prompt.instruction, vote)

    def _prompt(self, instruction: Instruction) -> _Prompt:
        if found := self._prompts.get(id(instruction)):
            return found[1]
        prefix, name = judge_prefix(self.store.task, instruction, self._overrides), instruction.id
        schema = trace_schema(self.store.task, tuple(rule.id for rule in instruction.rules))
        asked = [self.model.temperature, self.settings.vote_temperature, self.model.max_tokens]
        digest = short_hash([name, prefix, self.client.model, *asked, schema], 32)
        prompt = _Prompt(name, Message("system", prefix), schema, digest)
        self._prompts[id(instruction)] = (instruction, prompt)  # the reference keeps the address from being reused
        return prompt

    def _unreadable(self, text: str) -> str | None:
        return parse_trace(text, self.store.task).reason

    # -- pace -------------------------------------------------------------------------------

    def _show(self, report: LabelReport, total: int | None, *, force: bool = False) -> None:
        moment = time.monotonic()
        if self._on_progress and (force or moment - self._shown_at > 0.2):
            self._shown_at = moment
            self._on_progress(Progress(report.asked + report.cached, total, report.cost_usd, dict(report.failed)))


def judge(
    store: Store,
    client: Client,
    instruction: Instruction,
    samples: Iterable[Sample],
    *,
    journal: Journal,
    role: str = "teacher",
    votes: int = 1,
    budget: Budget | None = None,
    model: ModelSettings | None = None,
    run_id: str = "",
    prompts: Path | None = None,
    settings: LabelSettings | None = None,
    on_progress: OnProgress | None = None,
    on_verdict: OnVerdict | None = None,
) -> LabelReport:
    """Judge samples under one instruction; see `Labeller` for the arguments."""
    with Labeller(
        store, client, journal, role=role, run_id=run_id, budget=budget, model=model, prompts=prompts,
        settings=settings, on_progress=on_progress,
    ) as labeller:  # fmt: skip
        return labeller.judge([Batch(instruction, samples, votes)], on_verdict)


def stored_verdicts(store: Store, keys: Sequence[str]) -> dict[str, Verdict]:
    """Verdicts of these requests, an answered one before a failed one, the latest before the earlier."""
    with store.read() as con:
        rows = con.execute(
            "select key, sample_id::varchar, judge, instruction, vote, grade, probs, evidence, steps, rules, "
            "trace_verdict, failure from verdicts where key in (select unnest(?::varchar[])) "
            "order by grade is not null, created_at",
            [list(keys)],
        ).fetchall()
    return {row[0]: _from_row(row, store.task) for row in rows}


def _from_row(row: tuple[Any, ...], task: Task) -> Verdict:
    key, sample_id, judge_name, instruction, vote, grade, probs, evidence, steps, rules, closing, failure = row
    trace = None
    if grade is not None:
        named = dict(zip((s.name for s in task.steps), steps or (), strict=False))
        trace = Trace(grade, tuple(evidence or ()), named, tuple(rules or ()), closing or "")
    return Verdict(
        key, sample_id, judge_name, instruction, vote, grade, tuple(probs) if probs else None, trace, failure
    )


def _count(report: LabelReport, verdict: Verdict) -> None:
    if verdict.grade is None:
        report.failed[verdict.failure or "malformed"] += 1
    else:
        report.labelled += 1


def _total(batches: Sequence[Batch]) -> int | None:
    sizes = [len(b.samples) * b.votes for b in batches if isinstance(b.samples, Sequence)]
    return sum(sizes) if len(sizes) == len(batches) else None


def _chunks(asks: Iterator[_Ask], size: int) -> Iterator[list[_Ask]]:
    while chunk := list(islice(asks, size)):
        yield chunk


def _stop_if_hopeless(completions: Sequence[Completion]) -> None:
    kinds = {c.failure.kind if c.failure else "" for c in completions}
    if len(kinds) == 1 and (kind := kinds.pop()) in _HOPELESS and (failure := completions[0].failure):
        raise PiarError(f"All {len(completions)} requests failed ({kind}): {failure.message}", _HOPELESS[kind])
