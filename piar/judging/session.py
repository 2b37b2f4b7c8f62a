"""Whom a project asks, and how; and the run in which it asks. A forecast has only the first, and so asks nobody."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from piar.judging.outcome import OnProgress
from piar.judging.settings import LabelSettings
from piar.llm.base import Client, Request
from piar.llm.cost import Budget, Charge, ceiling
from piar.llm.settings import ModelSettings, require_price
from store.db import Store
from store.journal import Journal

if TYPE_CHECKING:
    from piar.judging.neighbours import Neighbours


@dataclass(frozen=True, slots=True)
class Respondent:
    """A model as a project asks it. It tells what a request would be; to send one takes a session.

    Attributes:
        client: the model.
        model: its temperature, token limit and price.
        label: how samples are asked, where it judges.
        prompts: the project's folder of template overrides.
        neighbours: labelled samples that it is shown beside the one that it judges.
    """

    client: Client
    model: ModelSettings = field(default_factory=ModelSettings)
    label: LabelSettings = field(default_factory=LabelSettings)
    prompts: Path | None = None
    neighbours: "Neighbours | None" = None

    @property
    def judge(self) -> str:
        """Whose its verdicts are, where it judges."""
        return f"teacher:{self.client.model}{self.neighbours.mark if self.neighbours else ''}"

    def ceiling(self, request: Request) -> Charge:
        """What one attempt at a request may cost at most."""
        return ceiling(request, self.model.price, self.model.sent)

    def session(
        self,
        store: Store,
        journal: Journal,
        run_id: str,
        budget: Budget | None = None,
        on_progress: OnProgress | None = None,
    ) -> "Session":
        """The same within a run; see `Session` for the arguments.

        Raises:
            UsageError: a cap in dollars, and a model without a price.
        """
        return Session(
            self.client,
            self.model,
            self.label,
            self.prompts,
            self.neighbours,
            store=store,
            journal=journal,
            run_id=run_id,
            budget=budget or Budget(),
            on_progress=on_progress,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Respondent):
    """A model that is asked in one run: where its answers are kept and what they may cost.

    Attributes:
        store: where answers are found later.
        journal: makes them durable at once; whoever opened it closes it.
        run_id: whose they are.
        budget: hard cap, reserved before asking.
        on_progress: told how far judging is.
    """

    store: Store
    journal: Journal
    run_id: str
    budget: Budget
    on_progress: OnProgress | None = None

    def __post_init__(self) -> None:
        require_price(self.model, self.budget)
