"""What a judge is asked of a sample, and how its answer is read: rendered requests, their keys, and verdicts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from piar.instructions.prompts import judge_prefix
from piar.judging.session import Respondent
from piar.llm.base import TURNS, Brief, Message, Request, template_of, tokens_of
from store.calibration import Calibration
from store.ids import content_id, short_hash
from store.task import Task, sample_text
from store.trace import parse_trace, trace_schema
from store.types import Completion, Instruction, Sample, Verdict


@dataclass(frozen=True, slots=True)
class Assignment:
    """Samples to be judged under one instruction.

    Attributes:
        votes: opinions asked of each sample.
        sure: with it, no more votes are asked of a sample whose confidence has reached it; see `piar.judging.votes`.
        calibration: of the judge under the instruction, where it has one; `sure` goes by it.
    """

    instruction: Instruction
    samples: Iterable[Sample]
    votes: int = 1
    sure: float | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One request together with what its verdict needs."""

    request: Request
    sample_id: str
    instruction: str
    vote: int
    group: str = ""


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What the requests of one instruction share."""

    system: Message
    schema: Mapping[str, Any]
    digest: str
    brief: Brief


def request_key(digest: str, sample: Sample, text: str, vote: int, beside: str = "") -> str:
    """Key of a request: sample content, vote, and the digest of all that the assignment's requests share.

    Args:
        digest: hash over instruction, rendered prefix, model, parameters and answer schema.
        text: the sample as the judge reads it.
        beside: the labelled samples that are shown beside it.
    """
    return content_id("judge", digest, sample.id, text, str(vote), *([beside] if beside else []))


class Questions:
    """Renders requests and reads answers.

    Args:
        respondent: who is asked; the client's name, its limits and the project's prompts enter the keys of requests.
        origin: who answers, where that is not who answered for the same name before.
    """

    def __init__(self, task: Task, respondent: Respondent, *, origin: str = "") -> None:
        self._task, self._respondent = task, respondent
        self._settings, self._vote_temperature = respondent.model, respondent.label.vote_temperature
        self._grades, self._origin = task.symbols, origin
        self._prompts: dict[str, _Prompt] = {}
        # A client may read an answer to decide about a repair; the verdict then reads the same text.
        self._parse = lru_cache(maxsize=1024)(partial(parse_trace, task=task))

    def prepare(self, samples: Sequence[Sample]) -> None:
        """Look up at once what is shown beside these samples, before they are asked one by one."""
        if self._respondent.neighbours:
            self._respondent.neighbours.prepare(samples)

    def asks(self, instruction: Instruction, sample: Sample, votes: range) -> Iterator[Ask]:
        """The requests for these votes on a sample."""
        text, prompt = sample_text(sample.fields), self._prompt(instruction)
        beside = self._beside(prompt.system.content, sample, text)
        system = Message("system", f"{prompt.system.content}\n\n{beside}") if beside else prompt.system
        for vote in votes:
            request = Request(
                request_key(prompt.digest, sample, text, vote, beside),
                (system, Message("user", text)),
                self._grades,
                prompt.schema,
                max_tokens=self._settings.answer_tokens,
                temperature=self._vote_temperature if vote else self._settings.temperature,
                seed=vote,
                check=self._unreadable,
                brief=prompt.brief,
            )
            yield Ask(request, sample.id, instruction.id, vote, sample.group)

    def digest(self, instruction: Instruction) -> str:
        """Hash of all that requests under an instruction share: prompt, model, parameters and answer schema."""
        return self._prompt(instruction).digest

    def _beside(self, system: str, sample: Sample, text: str) -> str:
        """The labelled samples that are shown, so many as fit the window of a model that says how long it is."""
        neighbours, client = self._respondent.neighbours, self._respondent.client
        if neighbours is None:
            return ""
        window = getattr(client, "window", None)
        for most in range(neighbours.k, 0, -1):
            beside = neighbours.text(sample, most)
            whole, room = f"{system}\n\n{beside}{text}", (window or 0) - self._settings.answer_tokens - TURNS
            if window is None or len(whole.encode()) <= room or tokens_of(client, whole) <= room:
                return beside
        return ""

    def verdict(self, completion: Completion, ask: Ask, judge: str) -> Verdict:
        """Read one answer; an answer without a grade is a verdict too, with the reason."""
        failure: str | None = completion.failure.kind if completion.failure else None
        trace = None
        if failure is None:
            trace = self._parse(completion.text or "").trace
            failure = None if trace else "malformed"
        probs = completion.probs if trace else None
        return Verdict(
            key=completion.key,
            sample_id=ask.sample_id,
            judge=judge,
            instruction=ask.instruction,
            vote=ask.vote,
            grade=trace.grade if trace else None,
            probs=tuple([float(probs.get(s, 0.0)) for s in self._grades]) if probs else None,
            trace=trace,
            failure=failure,
        )

    def _unreadable(self, text: str) -> str | None:
        return self._parse(text).reason

    def _prompt(self, instruction: Instruction) -> _Prompt:
        name = instruction.id
        if name not in self._prompts:
            client = self._respondent.client
            prefix = judge_prefix(self._task, instruction, self._respondent.prompts, template_of(client))
            schema = trace_schema(self._task, tuple(rule.id for rule in instruction.rules))
            model = client.model
            shared: list[object] = [name, prefix, model, self._settings.temperature, self._vote_temperature]
            shared += [self._settings.max_tokens, schema, *([self._origin] if self._origin else [])]
            shared += [self._respondent.neighbours.mark] if self._respondent.neighbours else []
            brief = Brief(self._task, instruction)
            self._prompts[name] = _Prompt(Message("system", prefix), schema, short_hash(shared, 32), brief)
        return self._prompts[name]
