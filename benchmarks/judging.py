"""One judging call without a project around it, for benchmarks and tests."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from piar.judging.labeller import Labeller, OnVerdict
from piar.judging.outcome import LabelReport, OnProgress
from piar.judging.requests import Assignment
from piar.judging.session import Respondent, Session
from piar.judging.settings import LabelSettings
from piar.llm.base import Client, Message
from piar.llm.cost import Budget
from piar.llm.settings import ModelSettings
from store.db import Store
from store.journal import Journal
from store.task import sample_text
from store.types import Instruction, Sample


def session(
    store: Store,
    client: Client,
    journal: Journal,
    *,
    run_id: str = "label",
    budget: Budget | None = None,
    model: ModelSettings | None = None,
    prompts: Path | None = None,
    settings: LabelSettings | None = None,
    on_progress: OnProgress | None = None,
) -> Session:
    """A session in one go; see `Respondent` and `Session` for the arguments."""
    asked = Respondent(client, model or ModelSettings(), settings or LabelSettings(), prompts)
    return asked.session(store, journal, run_id, budget, on_progress)


def judge(
    store: Store,
    client: Client,
    instruction: Instruction,
    samples: Iterable[Sample],
    *,
    journal: Journal,
    votes: int = 1,
    sure: float | None = None,
    budget: Budget | None = None,
    model: ModelSettings | None = None,
    run_id: str = "label",
    prompts: Path | None = None,
    settings: LabelSettings | None = None,
    on_progress: OnProgress | None = None,
    on_verdict: OnVerdict | None = None,
) -> LabelReport:
    """Judge samples under one instruction; see `Assignment` and `session` for the arguments."""
    asked = session(
        store, client, journal, run_id=run_id, budget=budget, model=model, prompts=prompts, settings=settings,
        on_progress=on_progress,
    )  # fmt: skip
    with Labeller(asked) as labeller:
        return labeller.judge([Assignment(instruction, samples, votes, sure)], on_verdict)


def judge_messages(prefix: str, fields: Mapping[str, str]) -> tuple[Message, ...]:
    """The chat that asks for one verdict."""
    return (Message("system", prefix), Message("user", sample_text(fields)))
