"""One judging call without a project around it, for benchmarks and tests."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from piar.judging.labeller import Labeller, LabelSettings, OnVerdict
from piar.judging.outcome import LabelReport, OnProgress
from piar.judging.requests import Batch
from piar.llm.base import Client, Message
from piar.llm.cost import Budget
from piar.llm.settings import ModelSettings
from store.db import Store
from store.journal import Journal
from store.task import sample_text
from store.types import Instruction, Sample


def judge(
    store: Store,
    client: Client,
    instruction: Instruction,
    samples: Iterable[Sample],
    *,
    journal: Journal,
    role: str = "teacher",
    votes: int = 1,
    sure: float | None = None,
    budget: Budget | None = None,
    model: ModelSettings | None = None,
    run_id: str = "",
    prompts: Path | None = None,
    settings: LabelSettings | None = None,
    on_progress: OnProgress | None = None,
    on_verdict: OnVerdict | None = None,
) -> LabelReport:
    """Judge samples under one instruction; see `Batch` and `Labeller` for the arguments."""
    with Labeller(
        store, client, journal, role=role, run_id=run_id, budget=budget, model=model, prompts=prompts,
        settings=settings, on_progress=on_progress,
    ) as labeller:  # fmt: skip
        return labeller.judge([Batch(instruction, samples, votes, sure)], on_verdict)


def judge_messages(prefix: str, fields: Mapping[str, str]) -> tuple[Message, ...]:
    """The chat that asks for one verdict."""
    return (Message("system", prefix), Message("user", sample_text(fields)))
