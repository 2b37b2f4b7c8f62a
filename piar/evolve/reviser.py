"""Asking the reviser of a run: its questions, its diagnoses and its answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from piar.evolve.diagnosis import Diagnosis, diagnosing, informed, read_diagnoses
from piar.evolve.purse import BudgetSpent
from piar.evolve.revision import counts_evidence, evidence_limit, request
from piar.evolve.settings import RevisionSettings
from piar.instructions.revision_schema import EvidenceItem
from piar.judging.ask_once import ask_once
from piar.judging.origin import Origin
from piar.judging.session import Respondent, Session
from piar.llm.base import Client, Request
from store.db import Store
from store.types import Completion, Instruction


@dataclass(frozen=True, slots=True)
class Models:
    """Who is asked, and how."""

    teacher: Respondent
    reviser: Respondent


def reviser_origin(store: Store, reviser: Respondent) -> Origin:
    """Where the reviser is asked, beside where it was asked before."""
    return Origin(store, f"reviser:{reviser.client.model}", reviser.model, "answers")


@dataclass(frozen=True, slots=True)
class Reviser:
    """A model that is asked for revisions.

    Attributes:
        session: who is asked, in which run.
        settings: what revisions may grow to.
    """

    session: Session
    settings: RevisionSettings

    @property
    def client(self) -> Client:
        """The model."""
        return self.session.client

    @property
    def author(self) -> str:
        """Who is named as the author of its proposals."""
        return f"reviser:{self.client.model}"

    @property
    def counts(self) -> bool:
        """Whether it weighs all evidence instead of reading some."""
        return counts_evidence(self.client)

    @property
    def limit(self) -> int:
        """Most samples in one question."""
        return evidence_limit(self.client, self.settings)

    def question(
        self,
        parent: Instruction,
        shown: Sequence[EvidenceItem],
        hints: Sequence[str],
        *,
        candidates: int,
        seed: int,
        settings: RevisionSettings | None = None,
    ) -> Request:
        """One question about some evidence.

        Args:
            settings: other limits than its own.
        """
        return request(
            self.client,
            parent,
            shown,
            hints,
            self.session.store.task,
            settings or self.settings,
            self.session.model,
            candidates=candidates,
            seed=seed % 2**31,
            prompts=self.session.prompts,
        )

    def diagnosed(self, questions: Sequence[Request]) -> tuple[list[Request], list[Diagnosis]]:
        """The questions with the reviser's own diagnoses in them, and these.

        Raises:
            BudgetSpent: not all could be asked.
        """
        session = self.session
        task, model, prompts = session.store.task, session.model, session.prompts
        asked = [diagnosing(self.client, q, task, model, prompts) for q in questions]
        found = [read_diagnoses(answer) for answer in self.ask(asked)]
        told = [informed(self.client, q, diagnoses) for q, diagnoses in zip(questions, found, strict=True)]
        return told, [d for diagnoses in found for d in diagnoses]

    def ask(self, requests: Sequence[Request]) -> list[Completion]:
        """Answers in order.

        Raises:
            BudgetSpent: not all could be asked.
        """
        origin = reviser_origin(self.session.store, self.session)
        answers = ask_once(self.session, requests, role="reviser", origin=origin)
        if any(a.failure and a.failure.kind == "budget" for a in answers):
            raise BudgetSpent
        return answers
