"""Diagnose, then revise: a reviser that reads is first asked why the judge went wrong, and then shown its own findings.

The four causes are sorted as SEEK (Kuaishou 2026) sorts them. What is suspect is left out of the revision: it is for
people to look at.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from piar.evolve.revision import first_json
from piar.instructions.prompts import render
from piar.instructions.revision_schema import RevisionRequest
from piar.llm.base import Client, Message, Request
from piar.llm.settings import ModelSettings
from store.ids import content_id
from store.task import Task
from store.types import Completion

MOST = 6


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
    user = shown.model_dump_json()
    asked = (str(revising.max_tokens), str(revising.temperature))
    key = content_id("revise", client.model, *(m.content for m in shared), user, *asked)
    return replace(revising, key=key, messages=(*shared, Message("user", user)))
