"""Four ways to make drafts, by a model or offline from the store's own words.

The offline way needs no model: it puts a rule's quoted words into other samples, and swaps words between samples. Most
of what it makes is worthless and falls to the screens; what is left is as good as the teacher that judged it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

from piar.llm.base import Client, Completion, Message, Request
from piar.prompting import render
from store.ids import content_id, seed_of
from store.task import Task
from store.types import Instruction
from synth.drafts import Draft, Method, Parent, Target

_QUOTED = re.compile(r'"([^"]+)"')
_SHOWN = 6  # samples shown to a model


class Offline:
    """Drafts by edits and recombination of the samples that are there.

    Args:
        parents: training samples with what the teacher said of them.
    """

    def __init__(self, task: Task, instruction: Instruction, parents: Sequence[Parent], seed: int = 0) -> None:
        self.task = task
        self.instruction = instruction
        self.parents = parents
        self.seed = seed
        self._order = {rule.id: place for place, rule in enumerate(instruction.rules)}
        self._text = next((name for name in reversed(task.fields) if name != task.group_by), task.fields[-1])

    def propose(self, target: Target, method: Method, n: int) -> list[Draft]:
        """Up to n different drafts; none where the method has nothing to start from."""
        rng = Random(seed_of(self.seed, "synth", target.rule, target.grade, target.bucket, method))
        drafts: dict[tuple[str, ...], Draft] = {}
        starts = self._starts(target, method)
        for _ in range(2 * n if starts else 0):
            parent = rng.choice(starts)
            fields = self._edit(parent, target, method, rng)
            key = tuple(fields.values())
            if key != tuple(parent.fields.values()):
                drafts.setdefault(key, Draft(fields, target, method, parent))
            if len(drafts) == n:
                break
        return list(drafts.values())

    def _starts(self, target: Target, method: Method) -> list[Parent]:
        """Paraphrase and structured start from the rule's own samples, contrast from another grade, boundary from a
        rule that is applied later."""
        tests: dict[Method, Callable[[Parent], bool]] = {
            "structured": lambda p: p.rule == target.rule,
            "paraphrase": lambda p: p.rule == target.rule,
            "contrast": lambda p: p.grade != target.grade,
            "boundary": lambda p: self._place(p.rule) > self._place(target.rule),
        }
        return [parent for parent in self.parents if tests[method](parent)]

    def _place(self, rule: str | None) -> int:
        return self._order.get(rule or "", -1)

    def _edit(self, parent: Parent, target: Target, method: Method, rng: Random) -> dict[str, str]:
        if method in ("contrast", "boundary"):
            return self._with_mark(parent, target, rng)
        fields = dict(parent.fields)
        if method == "structured":  # another query's group, or another sample's words beside what decides
            donor = rng.choice(self.parents)
            if rng.random() < 0.5 and self.task.group_by in fields:
                fields[self.task.group_by] = donor.fields[self.task.group_by]
            return self._swapped(fields, parent, rng, 2)
        return self._swapped(fields, parent, rng, 3)

    def _with_mark(self, parent: Parent, target: Target, rng: Random) -> dict[str, str]:
        """The parent with a word that its rule quotes, or that samples of the rule have, put into the text."""
        rule = self.instruction.rule(target.rule)
        marks = _QUOTED.findall(rule.text) if rule else []
        marks += [span for p in self.parents if p.rule == target.rule for span in p.evidence]
        fields = dict(parent.fields)
        words = fields[self._text].split()
        if marks:
            words.insert(rng.randint(0, len(words)), rng.choice(marks))
        if words and rng.random() < 0.3:
            words.pop(rng.randrange(len(words)))
        fields[self._text] = " ".join(words)
        return fields

    def _swapped(self, fields: dict[str, str], parent: Parent, rng: Random, times: int) -> dict[str, str]:
        """Words that the teacher did not quote, replaced by words at the same place of other samples."""
        quoted = {word.lower() for span in parent.evidence for word in span.split()}
        words = fields[self._text].split()
        free = [i for i, word in enumerate(words) if word.lower() not in quoted]
        for i in rng.sample(free, min(times, len(free))):
            theirs = rng.choice(self.parents).fields[self._text].split()
            if theirs:
                words[i] = theirs[min(i, len(theirs) - 1)]
        fields[self._text] = " ".join(words)
        return fields


class ByModel:
    """Drafts written by a model, one request for each method and cell; answers that are no JSON give no drafts.

    Args:
        on_completion: keeps each answer (and its cost) the moment it is here.
        ask: says whether a request may still be made.
    """

    def __init__(
        self,
        client: Client,
        task: Task,
        instruction: Instruction,
        parents: Sequence[Parent],
        *,
        on_completion: Callable[[Completion], None],
        ask: Callable[[], bool] = lambda: True,
        prompts: Path | None = None,
        seed: int = 0,
        max_tokens: int = 2000,
    ) -> None:
        self.client, self.task, self.instruction, self.parents = client, task, instruction, parents
        self.on_completion, self.ask, self.prompts, self.seed = on_completion, ask, prompts, seed
        self.max_tokens = max_tokens

    def propose(self, target: Target, method: Method, n: int) -> list[Draft]:
        """Ask for n drafts; none when the budget is spent or the answer cannot be read."""
        shown = self._shown(target, method)
        if not self.ask() or (method in ("contrast", "paraphrase") and not shown):
            return []
        text = self._prompt(target, method, n, shown)
        key = content_id("synth", self.client.model, text, str(self.seed))
        request = Request(key, (Message("user", text),), schema=self._schema(), max_tokens=self.max_tokens,
                          temperature=0.9, seed=self.seed)  # fmt: skip
        answer = self.client.generate([request], self.on_completion)[0]
        parent = shown[0] if shown else None
        return [Draft(fields, target, method, parent) for fields in read_samples(answer.text or "")][:n]

    def _shown(self, target: Target, method: Method) -> list[Parent]:
        rng = Random(seed_of(self.seed, target.rule, method))
        own = [p for p in self.parents if p.rule == target.rule]
        other = [p for p in self.parents if p.grade != target.grade]
        pool = other if method == "contrast" else own
        count = 1 if method in ("contrast", "paraphrase") else _SHOWN
        return rng.sample(pool, min(count, len(pool)))

    def _prompt(self, target: Target, method: Method, n: int, shown: Sequence[Parent]) -> str:
        grade = self.task.grades[self.task.index(target.grade)]
        values = {"rule": self.instruction.rule(target.rule), "grade": grade, "bucket": target.bucket, "n": n,
                  "fields": self.task.fields, "parents": [p.fields for p in shown]}  # fmt: skip
        return render(method, values, self.prompts, "synth")

    def _schema(self) -> Mapping[str, object]:
        fields = {name: {"type": "string"} for name in self.task.fields}
        sample = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
        samples = {"type": "array", "items": sample}
        return {"type": "object", "properties": {"samples": samples}, "required": ["samples"],
                "additionalProperties": False}  # fmt: skip


def read_samples(text: str) -> list[dict[str, object]]:
    """The objects of a `{"samples": […]}` answer, code fences allowed; none when it is not JSON."""
    body = re.sub(r"^```[a-z]*\n|\n?```$", "", text.strip())
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return []
    found = data.get("samples") if isinstance(data, dict) else data
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
