"""Asking the reviser of a run: what it is shown, its own diagnosis first where it reads, and its answers.

A reviser that reads is asked why the judge went wrong before it is asked for edits, and then shown its own findings.
The four causes are sorted as SEEK (Kuaishou 2026) sorts them. What is suspect is left out of the revision: it is for
people to look at.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from piar.evolve.inspection import Cluster, Inspection, contrast_evidence, whole_evidence
from piar.evolve.purse import NEEDS, BudgetSpent, Needs, Rows
from piar.evolve.questions import MOST_DIAGNOSES, Question
from piar.evolve.revision import read_object, shares
from piar.evolve.settings import EvolveSettings, ReviserSettings, RevisionSettings
from piar.instructions.prompts import render
from piar.instructions.revision_schema import (
    EvidenceItem,
    ExampleShown,
    GradeShown,
    RevisionBudget,
    RevisionRequest,
    RuleShown,
)
from piar.judging.ask_once import ask_once
from piar.judging.origin import Origin
from piar.judging.session import Respondent, Session
from piar.llm.base import Client, is_simulated
from piar.llm.openai.refusals import is_too_long, window_named
from store.db import Store
from store.task import Task
from store.types import Completion, Instruction

MOST_FITTINGS = 3  # times that prompts are made shorter because they are refused as too long
FIRST_GUESS = 16384  # tokens of a window that nobody names, before it is halved


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


def evidence_limit(client: Client, settings: RevisionSettings) -> int:
    """How many samples one request shows."""
    return settings.evidence or (3000 if counts_evidence(client) else 40)


def counts_evidence(client: Client) -> bool:
    """Whether the reviser is the offline inducer, which weighs all evidence instead of reading some."""
    return is_simulated(client)


def drafts_beside(client: Client, settings: RevisionSettings) -> int:
    """Candidates that the offline inducer drafts beside this reviser."""
    return int(settings.draft == "offline" and not counts_evidence(client))


def needs_of(settings: EvolveSettings, rows: Rows, client: Client) -> Needs:
    """What a search with this reviser takes."""
    revision = settings.revision
    causes = not counts_evidence(client) and revision.diagnose != "none"
    kind = NEEDS[settings.search]
    return kind(settings, rows, evidence_limit(client, revision), drafts_beside(client, revision), causes)


@dataclass(frozen=True, slots=True)
class Models:
    """Who is asked, and how."""

    teacher: Respondent
    reviser: Respondent


def reviser_origin(store: Store, reviser: Respondent) -> Origin:
    """Where the reviser is asked, beside where it was asked before."""
    return Origin(store, f"reviser:{reviser.client.model}", reviser.model, "answers")


@dataclass(slots=True)
class Fit:
    """What is known of a reviser's window, and what was left out for it.

    Attributes:
        window: tokens of a prompt and its answer together; None while nobody has said.
        told: sentences that say what was left out of prompts.
    """

    window: int | None
    told: dict[str, None] = field(default_factory=dict)

    def narrow(self, refusals: Iterable[str]) -> None:
        """Take in the words in which prompts were refused as too long."""
        known = min((tokens for words in refusals if (tokens := window_named(words))), default=0)
        self.window = known if 0 < known < (self.window or known + 1) else (self.window or FIRST_GUESS) // 2


@dataclass(frozen=True, slots=True)
class Reviser:
    """A model that is asked for revisions.

    Attributes:
        session: who is asked, in which run.
        settings: what revisions may grow to.
        fit: how much of it one question can hold.
    """

    session: Session
    settings: RevisionSettings
    fit: Fit

    @classmethod
    def of(cls, session: Session, settings: RevisionSettings) -> "Reviser":
        """A reviser whose window is set, told by its client, or not known yet."""
        model = session.model
        told = model.window if isinstance(model, ReviserSettings) and model.window else None
        own: int | None = getattr(session.client, "window", None)
        return cls(session, settings, Fit(min((w for w in (told, own) if w), default=None)))

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
    ) -> Question:
        """One question about some evidence.

        Args:
            settings: other limits than its own.
        """
        limits, session = settings or self.settings, self.session
        return question(
            parent, shown, hints, session.store.task, limits, candidates=candidates, seed=seed, prompts=session.prompts
        )

    def packs(self, found: Inspection, seed: int) -> list[tuple[EvidenceItem, ...]]:
        """What each question shows: everything for a reviser that counts, one cluster each for one that reads."""
        if self.counts:
            return [whole_evidence(found.judged, self.limit, seed)]
        focuses: list[Cluster | None] = [*found.clusters[: self.settings.candidates]] or [None]
        return [contrast_evidence(found, self.limit, seed, focus) for focus in focuses]

    def questions(
        self, parent: Instruction, packs: Sequence[Sequence[EvidenceItem]], hints: Sequence[str], seeds: Sequence[int]
    ) -> list[Question]:
        """One question for each pack of evidence, all candidates of a round among them."""
        wanted = shares(self.settings.candidates, len(packs))
        asked = zip(packs, wanted, seeds, strict=True)
        return [self.question(parent, pack, hints, candidates=most, seed=seed) for pack, most, seed in asked]

    def diagnosed(self, questions: Sequence[Question]) -> tuple[list[Question], list[Diagnosis] | None]:
        """The questions with the reviser's own diagnoses in them, and these; None where it was not asked for any.

        Raises:
            BudgetSpent: not all could be asked.
        """
        return DIAGNOSES["none" if self.counts else self.settings.diagnose](self, questions)

    def ask(self, questions: Sequence[Question]) -> list[Completion]:
        """Answers in order. Prompts that an endpoint refuses as too long are asked again with less in them.

        Raises:
            BudgetSpent: not all could be asked.
        """
        answers = self._answers(questions)
        for _ in range(MOST_FITTINGS):
            refusals = {i: words for i, answer in enumerate(answers) if (words := _too_long(answer))}
            if not refusals:
                break
            self.fit.narrow(refusals.values())
            for i, answer in zip(refusals, self._answers([questions[i] for i in refusals]), strict=True):
                answers[i] = answer
        return answers

    def _answers(self, questions: Sequence[Question]) -> list[Completion]:
        session = self.session
        asked = [q.request(session.client, session.model, self.fit.window) for q in questions]
        self.fit.told |= {shown.shortened: None for _, shown in asked if shown.shortened}
        origin = reviser_origin(session.store, session)
        answers = ask_once(session, [request for request, _ in asked], role="reviser", origin=origin)
        if any(a.failure and a.failure.kind == "budget" for a in answers):
            raise BudgetSpent
        return answers


def _too_long(answer: Completion) -> str:
    """The words in which a prompt was refused as too long; "" where it was not."""
    refused = answer.failure
    return refused.message if refused and refused.kind == "request" and is_too_long(refused.message) else ""


# -- one question ---------------------------------------------------------------------------------


def question(
    parent: Instruction,
    evidence: Sequence[EvidenceItem],
    hints: Sequence[str],
    task: Task,
    settings: RevisionSettings,
    *,
    candidates: int,
    seed: int,
    prompts: Path | None = None,
) -> Question:
    """The question for edits of an instruction."""
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
        seed=seed % 2**31,
    )
    parts = any(rule.parts for rule in parent.rules)
    names = ("revise", *(("exemplify",) if most else ()), *(("clarify",) if parts else ()))
    context = {"task": task, "instruction": parent, "settings": settings}
    return Question("revise", "\n\n".join(render(name, context, prompts) for name in names), shown)


# -- diagnosis ------------------------------------------------------------------------------------


def read_diagnoses(completion: Completion) -> list[Diagnosis]:
    """The findings in an answer; none in one that cannot be read, never an error."""
    data = read_object(completion.text or "", "diagnoses").data
    found: list[Diagnosis] = []
    for item in data["diagnoses"] if data else ():
        try:
            found.append(Diagnosis.model_validate(item))
        except ValidationError:
            continue
    return found[:MOST_DIAGNOSES]


def informed(asked: Question, diagnoses: Sequence[Diagnosis]) -> Question:
    """The question with the findings in it; without any, as it was."""
    told = tuple(d.sentence() for d in diagnoses if d.cause != "suspect")
    return replace(asked, shown=asked.shown.model_copy(update={"diagnosis": told})) if told else asked


def causes(reviser: Reviser, questions: Sequence[Question]) -> tuple[list[Question], list[Diagnosis] | None]:
    """Ask about the same evidence first, and tell what was found."""
    session = reviser.session
    context = {"task": session.store.task, "most": MOST_DIAGNOSES}
    system = render("diagnose", context, session.prompts)
    asked = [replace(q, purpose="diagnose", system=system) for q in questions]
    # Small models hand back the words in which the form was shown to them.
    found = [[d for d in read_diagnoses(answer) if d.finding not in system] for answer in reviser.ask(asked)]
    told = [informed(q, diagnoses) for q, diagnoses in zip(questions, found, strict=True)]
    return told, [d for diagnoses in found for d in diagnoses]


def no_causes(reviser: Reviser, questions: Sequence[Question]) -> tuple[list[Question], list[Diagnosis] | None]:
    """Ask for edits at once."""
    return list(questions), None


DIAGNOSES = {"causes": causes, "none": no_causes}
