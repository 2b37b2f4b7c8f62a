"""Asking the reviser of a run: what it is shown, its own diagnosis first where it reads, and its answers.

A reviser that reads is asked why the judge went wrong before it is asked for edits, and then shown its own findings.
The four causes are sorted as SEEK (Kuaishou 2026) sorts them. What is suspect is left out of the revision: it is for
people to look at.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from piar.evolve.inspection import Cluster, Inspection, contrast_evidence, whole_evidence
from piar.evolve.purse import BudgetSpent
from piar.evolve.revision import first_json, shares
from piar.evolve.settings import RevisionSettings
from piar.instructions.prompts import render
from piar.instructions.revision_schema import (
    EvidenceItem,
    ExampleShown,
    GradeShown,
    RevisionBudget,
    RevisionRequest,
    RuleShown,
    answer_schema,
)
from piar.judging.ask_once import ask_once
from piar.judging.origin import Origin
from piar.judging.session import Respondent, Session
from piar.llm.base import Client, Message, Request, is_simulated
from piar.llm.settings import ModelSettings
from store.db import Store
from store.ids import content_id
from store.task import Task
from store.types import Completion, Instruction

MOST = 6  # diagnoses of one request


class Diagnosis(BaseModel):
    """Why some of the errors happened; `errors` are positions in the evidence."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    cause: Literal["routing", "knowledge", "execution", "suspect"]
    finding: str = Field(min_length=1, max_length=600)
    errors: tuple[int, ...] = ()
    rule: str | None = None

    def sentence(self) -> str:
        """In words, for the revising prompt."""
        about = f" (rule {self.rule})" if self.rule else ""
        return (
            f"{self.cause}{about}, evidence {', '.join(map(str, self.errors[:12]))}: {' '.join(self.finding.split())}"
        )


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    diagnoses: tuple[Diagnosis, ...] = ()


def evidence_limit(client: Client, settings: RevisionSettings) -> int:
    """How many samples one request shows."""
    return settings.evidence or (3000 if counts_evidence(client) else 40)


def counts_evidence(client: Client) -> bool:
    """Whether the reviser is the offline inducer, which weighs all evidence instead of reading some."""
    return is_simulated(client)


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

    def packs(self, found: Inspection, seed: int) -> list[tuple[EvidenceItem, ...]]:
        """What each question shows: everything for a reviser that counts, one cluster each for one that reads."""
        if self.counts:
            return [whole_evidence(found.judged, self.limit, seed)]
        focuses: list[Cluster | None] = [*found.clusters[: self.settings.candidates]] or [None]
        return [contrast_evidence(found, self.limit, seed, focus) for focus in focuses]

    def questions(
        self, parent: Instruction, packs: Sequence[Sequence[EvidenceItem]], hints: Sequence[str], seeds: Sequence[int]
    ) -> list[Request]:
        """One question for each pack of evidence, all candidates of a round among them."""
        wanted = shares(self.settings.candidates, len(packs))
        asked = zip(packs, wanted, seeds, strict=True)
        return [self.question(parent, pack, hints, candidates=most, seed=seed) for pack, most, seed in asked]

    def diagnosed(self, questions: Sequence[Request]) -> tuple[list[Request], list[Diagnosis] | None]:
        """The questions with the reviser's own diagnoses in them, and these; None where it was not asked for any.

        Raises:
            BudgetSpent: not all could be asked.
        """
        return DIAGNOSES["none" if self.counts else self.settings.diagnose](self, questions)

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


# -- one question ---------------------------------------------------------------------------------


def request(
    client: Client,
    parent: Instruction,
    evidence: Sequence[EvidenceItem],
    hints: Sequence[str],
    task: Task,
    settings: RevisionSettings,
    model: ModelSettings,
    *,
    candidates: int,
    seed: int,
    prompts: Path | None = None,
) -> Request:
    """The question to a reviser."""
    most = settings.max_examples
    shown = RevisionRequest(
        grades=tuple(
            GradeShown(symbol=g.symbol, name=g.name, value=g.value, meaning=parent.meanings.get(g.symbol, g.meaning))
            for g in task.grades
        ),
        rules=tuple(RuleShown(id=r.id, text=r.text, grade=r.grade, parts=r.parts) for r in parent.rules),
        examples=tuple(ExampleShown(fields=e.fields, grade=e.grade) for e in parent.examples) if most else (),
        evidence=tuple(evidence),
        budget=RevisionBudget(
            max_rules=settings.max_rules,
            max_operations=settings.max_operations,
            max_words=settings.max_words,
            max_examples=most or None,
        ),
        candidates=candidates,
        hints=tuple(hints),
        seed=seed,
    )
    parts = any(rule.parts for rule in parent.rules)
    names = ("revise", *(("exemplify",) if most else ()), *(("clarify",) if parts else ()))
    context = {"task": task, "instruction": parent, "settings": settings}
    system = "\n\n".join(render(name, context, prompts) for name in names)
    user = shown.text()
    key = content_id("revise", client.model, system, user, str(model.max_tokens), str(model.temperature))
    return Request(
        key,
        (Message("system", system), Message("user", user)),
        schema=answer_schema(examples=bool(most), parts=parts),
        max_tokens=model.max_tokens,
        temperature=model.temperature,
        seed=seed,
        purpose="revise",
    )


# -- diagnosis ------------------------------------------------------------------------------------


def diagnosing(client: Client, revising: Request, task: Task, model: ModelSettings, prompts: Path | None) -> Request:
    """The question that comes before a revising one, about the same evidence."""
    system = render("diagnose", {"task": task, "most": MOST}, prompts)
    user = revising.messages[-1].content
    key = content_id("diagnose", client.model, system, user, str(model.max_tokens), str(model.temperature))
    return Request(
        key,
        (Message("system", system), Message("user", user)),
        schema=_Answer.model_json_schema(),
        max_tokens=model.max_tokens,
        temperature=model.temperature,
        seed=revising.seed,
        purpose="diagnose",
    )


def read_diagnoses(completion: Completion) -> list[Diagnosis]:
    """The findings in an answer; none in one that cannot be read, never an error."""
    data = first_json(completion.text or "")
    offered: Any = data.get("diagnoses") if isinstance(data, dict) else None
    found: list[Diagnosis] = []
    for item in offered if isinstance(offered, list) else ():
        try:
            found.append(Diagnosis.model_validate(item))
        except ValidationError:
            continue
    return found[:MOST]


def informed(client: Client, revising: Request, diagnoses: Sequence[Diagnosis]) -> Request:
    """The revising question with the findings in it; without any, as it was."""
    told = tuple(d.sentence() for d in diagnoses if d.cause != "suspect")
    if not told:
        return revising
    *shared, last = revising.messages
    shown = RevisionRequest.model_validate_json(last.content).model_copy(update={"diagnosis": told})
    user = shown.text()
    asked = (str(revising.max_tokens), str(revising.temperature))
    key = content_id("revise", client.model, *(m.content for m in shared), user, *asked)
    return replace(revising, key=key, messages=(*shared, Message("user", user)))


def causes(reviser: Reviser, questions: Sequence[Request]) -> tuple[list[Request], list[Diagnosis] | None]:
    """Ask about the same evidence first, and tell what was found."""
    session = reviser.session
    asked = [diagnosing(session.client, q, session.store.task, session.model, session.prompts) for q in questions]
    found = [read_diagnoses(answer) for answer in reviser.ask(asked)]
    told = [informed(session.client, q, diagnoses) for q, diagnoses in zip(questions, found, strict=True)]
    return told, [d for diagnoses in found for d in diagnoses]


def no_causes(reviser: Reviser, questions: Sequence[Request]) -> tuple[list[Request], list[Diagnosis] | None]:
    """Ask for edits at once."""
    return list(questions), None


DIAGNOSES = {"causes": causes, "none": no_causes}
