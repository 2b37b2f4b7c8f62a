"""Drafts written by a model, one request for each method and cell; see `synth.offline` for the way without one."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

from piar.instructions.prompts import render
from piar.judging.outcome import SHOWN
from piar.llm.base import Completion, Message, Request
from store.ids import content_id, seed_of
from store.task import Task
from store.types import Instruction
from synth.drafts import Draft, Method, Parent, Target

_SHOWN = 6  # samples shown to a model


class ByModel:
    """Drafts written by a model, one request for each method and cell; answers that are no JSON give no drafts.

    Args:
        model: the name of who writes, part of each request's identity.
        ask: answers a request; keeps the answer, and asks nobody twice.

    Attributes:
        unread: answers from which no draft could be read.
        reason: why the last of them could not.
    """

    def __init__(
        self,
        model: str,
        task: Task,
        instruction: Instruction,
        parents: Sequence[Parent],
        *,
        ask: Callable[[Request], Completion],
        prompts: Path | None = None,
        seed: int = 0,
        max_tokens: int = 2000,
    ) -> None:
        self.model, self.task, self.instruction, self.parents = model, task, instruction, parents
        self.ask, self.prompts, self.seed, self.max_tokens = ask, prompts, seed, max_tokens
        self.unread, self.reason = 0, ""

    def propose(self, target: Target, method: Method, n: int) -> list[Draft]:
        """Ask for n drafts; none when the budget is spent or the answer cannot be read."""
        shown = self._shown(target, method)
        if method in ("contrast", "paraphrase") and not shown:
            return []
        text = self._prompt(target, method, n, shown)
        key = content_id("synth", self.model, text, str(self.seed))
        request = Request(
            key,
            (Message("user", text),),
            schema=self._schema(),
            max_tokens=self.max_tokens,
            temperature=0.9,
            seed=self.seed,
            purpose="write",
        )
        answer = self.ask(request)
        found = read_samples(answer.text or "")
        if not found and not (answer.failure and answer.failure.kind == "budget"):
            self.unread += 1
            why = answer.failure.message if answer.failure else "no JSON with samples"
            self.reason = f"{why}; it said {(answer.text or '')[:SHOWN]!r}"
        parent = shown[0] if shown else None
        return [Draft(fields, target, method, parent) for fields in found][:n]

    def _shown(self, target: Target, method: Method) -> list[Parent]:
        rng = Random(seed_of(self.seed, target.rule, method))
        own = [p for p in self.parents if p.rule == target.rule]
        other = [p for p in self.parents if p.grade != target.grade]
        pool = other if method == "contrast" else own
        count = 1 if method in ("contrast", "paraphrase") else _SHOWN
        return rng.sample(pool, min(count, len(pool)))

    def _prompt(self, target: Target, method: Method, n: int, shown: Sequence[Parent]) -> str:
        grade = self.task.grades[self.task.index(target.grade)]
        values = {
            "rule": self.instruction.rule(target.rule),
            "grade": grade,
            "bucket": target.bucket,
            "n": n,
            "fields": self.task.fields,
            "parents": [p.fields for p in shown],
        }
        return render(method, values, self.prompts, "synth")

    def _schema(self) -> Mapping[str, object]:
        fields = {name: {"type": "string"} for name in self.task.fields}
        sample = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
        samples = {"type": "array", "items": sample}
        return {
            "type": "object",
            "properties": {"samples": samples},
            "required": ["samples"],
            "additionalProperties": False,
        }


def read_samples(text: str) -> list[dict[str, object]]:
    """The objects of a `{"samples": […]}` answer, code fences allowed; none when it is not JSON."""
    body = re.sub(r"^```[a-z]*\n|\n?```$", "", text.strip())
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return []
    found = data.get("samples") if isinstance(data, dict) else data
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
