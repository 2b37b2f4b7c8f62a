"""Drafts written by a model, those of several cells asked together; see `synth.offline` for the way without one."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from piar.instructions.prompts import render
from piar.instructions.revision_schema import list_of, object_of
from piar.judging.outcome import SHOWN
from piar.llm.base import Completion, Message, Request
from store.ids import content_id, seed_of
from store.task import Task, sample_text
from store.types import Instruction
from synth.drafts import Draft, Method, Parent, Target, Want
from synth.settings import EACH

_SHOWN = 6  # samples shown to a model
_MOST_TOKENS, _STEP = 2000, 250  # of an answer
_OBJECTS = 5000  # places of an answer where an object may begin


class ByModel:
    """Drafts written by a model, a few in each answer; of an answer that breaks off, those that are whole.

    Args:
        model: the name of who writes, part of each request's identity.
        ask: answers requests, in order; keeps the answers, and asks nobody twice.

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
        ask: Callable[[Sequence[Request]], Sequence[Completion]],
        prompts: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.task, self.instruction, self.parents = model, task, instruction, parents
        self.ask, self.prompts, self.seed = ask, prompts, seed
        self.unread, self.reason = 0, ""

    def propose(self, wants: Sequence[Want]) -> list[list[Draft]]:
        """Ask for all that is wanted; none when the budget is spent or the answers cannot be read."""
        asked = [(place, *found) for place, want in enumerate(wants) for found in self._requests(want)]
        answers = self.ask([request for _, request, _ in asked]) if asked else []
        drafts: list[list[Draft]] = [[] for _ in wants]
        for (place, _, parent), answer in zip(asked, answers, strict=True):
            want = wants[place]
            drafts[place] += [Draft(fields, want.target, want.method, parent) for fields in self._read(answer)]
        return [found[: want.n] for want, found in zip(wants, drafts, strict=True)]

    def _requests(self, want: Want) -> Iterator[tuple[Request, Parent | None]]:
        """What is asked, a few drafts at a time, and the parent that stands first in it."""
        for part, done in enumerate(range(0, want.n, EACH)):
            shown = self._shown(want.target, want.method, part)
            if shown or want.method not in ("contrast", "paraphrase"):
                size = min(EACH, want.n - done)
                yield self._request(want.target, want.method, size, part, shown), shown[0] if shown else None

    def _request(self, target: Target, method: Method, n: int, part: int, shown: Sequence[Parent]) -> Request:
        text = self._prompt(target, method, n, shown)
        return Request(
            content_id("synth", self.model, text, str(self.seed), str(part)),
            (Message("user", text),),
            schema=self._schema(n),
            max_tokens=_room(n, shown or self.parents[:_SHOWN]),
            temperature=0.9,
            seed=self.seed + part,
            purpose="write",
        )

    def _read(self, answer: Completion) -> list[dict[str, object]]:
        found = read_samples(answer.text or "")
        if not found and not (answer.failure and answer.failure.kind == "budget"):
            self.unread += 1
            why = answer.failure.message if answer.failure else "no JSON with samples"
            self.reason = f"{why}; it said {(answer.text or '')[:SHOWN]!r}"
        return found

    def _shown(self, target: Target, method: Method, part: int) -> list[Parent]:
        rng = Random(seed_of(self.seed, target.rule, target.grade, method, part))
        own = [p for p in self.parents if p.rule == target.rule and p.grade == target.grade]
        other = [p for p in self.parents if p.grade != target.grade]
        pool = other if method == "contrast" else own
        count = 1 if method in ("contrast", "paraphrase") else _SHOWN
        return rng.sample(pool, min(count, len(pool)))

    def _prompt(self, target: Target, method: Method, n: int, shown: Sequence[Parent]) -> str:
        meanings = self.instruction.meanings
        grades = [{"symbol": g.symbol, "name": g.name, "meaning": meanings.get(g.symbol, g.meaning)}
                  for g in self.task.grades]  # fmt: skip
        values = {
            "preamble": self.instruction.preamble,
            "grades": grades,
            "rule": self.instruction.rule(target.rule),
            "grade": grades[self.task.index(target.grade)],
            "bucket": target.bucket,
            "n": n,
            "fields": self.task.fields,
            "parents": [p.fields for p in shown],
        }
        return render(method, values, self.prompts, "synth")

    def _schema(self, n: int) -> Mapping[str, object]:
        """Exactly n samples: a small model stops after the first otherwise."""
        fields = {name: {"type": "string", "minLength": 1} for name in self.task.fields}
        return object_of({"samples": list_of(object_of(fields), n, n)})


def _room(n: int, like: Sequence[Parent]) -> int:
    """Tokens that n samples as long as these take at most, two characters a token; in steps, to be asked together."""
    longest = max((len(sample_text(parent.fields)) for parent in like), default=_MOST_TOKENS)
    return min(-(-(n * longest // 2) // _STEP) * _STEP + _STEP, _MOST_TOKENS)


def read_samples(text: str) -> list[dict[str, object]]:
    """The objects of a `{"samples": […]}` answer, whatever stands around it; of one that breaks off, the whole ones."""
    decoder, found, place = json.JSONDecoder(), list[dict[str, object]](), 0
    for _ in range(_OBJECTS):
        if (place := text.find("{", place)) < 0:
            break
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
        else:
            found += _samples(value)
    return found


def _samples(value: dict[str, Any]) -> list[dict[str, object]]:
    inside = value.get("samples", [value])
    return [item for item in inside if isinstance(item, dict)] if isinstance(inside, list) else []
