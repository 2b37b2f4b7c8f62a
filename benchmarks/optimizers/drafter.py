"""The simulated model behind the endpoint: a teacher that follows rules, and a drafter that answers every optimizer.

Judging is `piar`'s offline teacher on the text it is given; above temperature 0 the grade is drawn from its
probabilities. Drafting is `piar`'s offline inducer on the examples that the prompt shows, and nothing else. Like a
language model the drafter always has something to say: where the evidence supports no rule, it takes a word of one
example for one.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from benchmarks.optimizers.formats import Asked, read
from benchmarks.optimizers.texts import FIRST, read_text, write_text
from benchmarks.optimizers.worlds import GRADES, TASK
from piar.instructions.operations import apply
from piar.instructions.revision_schema import (
    EvidenceItem,
    GradeShown,
    RevisionAnswer,
    RevisionCandidate,
    RevisionRequest,
    RuleOperation,
    RuleShown,
)
from piar.llm.base import Completion, OnCompletion, Request, Usage
from piar.offline.reviser import induce
from piar.offline.teacher import RulebookClient
from store.types import Instruction, Rule

_GRADES = tuple(GradeShown(symbol=g, value=float(g)) for g in GRADES)


class Drafter:
    """A `Client` for `piar.offline.endpoint`.

    Args:
        seed: of everything random; the same conversation is answered the same way.
        drop: share of the rules that a whole rewrite loses.
        whole: whether our operations are taken for a whole rewrite, and lose rules likewise.
        clueless: whether every draft is a guess from one example.
        errors_only: whether the inducer looks away from what was judged rightly.
    """

    model = "simulated"

    def __init__(
        self, seed: int, drop: float = 0.0, clueless: bool = False, errors_only: bool = False, whole: bool = False
    ) -> None:
        self.seed, self.drop, self.clueless, self.errors_only, self.whole = seed, drop, clueless, errors_only, whole
        self._teacher = RulebookClient()
        self._asked: Counter[str] = Counter()

    def generate(self, requests: Sequence[Request], on_completion: OnCompletion | None = None) -> list[Completion]:
        """Answer every request, in the order asked."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        asked = read(request.messages)
        rng = self._random(request)
        if asked.kind == "judge":
            text = self._judge(asked, request, rng)
        elif asked.kind == "revise":
            text = self._revise(RevisionRequest.model_validate_json(request.messages[-1].content), rng)
        else:
            text = self._write(asked, rng)
        tokens = sum(len(message.content) for message in request.messages) // 4
        return Completion(request.key, self.model, text, usage=Usage(tokens, 0, len(text) // 4))

    def _random(self, request: Request) -> Random:
        """Above temperature 0, a conversation that is repeated is another draw."""
        content = "\x00".join(m.content for m in request.messages)
        digest = hashlib.blake2b(content.encode(), digest_size=12).hexdigest()
        self._asked[digest] += request.temperature > 0
        return Random(f"{self.seed}/{digest}/{self._asked[digest]}")

    # -- judging --------------------------------------------------------------------------------------

    def _judge(self, asked: Asked, request: Request, rng: Random) -> str:
        if not asked.wants:
            text = asked.instruction if "# Answer" in asked.instruction else write_text(read_text(asked.instruction))
            messages = (replace(request.messages[0], content=text), request.messages[-1])
        else:
            text = write_text(read_text(asked.instruction))
            messages = (
                replace(request.messages[0], content=text),
                replace(request.messages[-1], content=json.dumps(asked.sample)),
            )
        done = self._teacher.generate([replace(request, messages=messages, grades=GRADES, schema=None)])[0]
        said, probs = (done.text or "").split("\n", 1)[0], done.probs or {}
        if request.temperature > 0 and probs:
            said = rng.choices(list(probs), list(probs.values()))[0]
        if asked.wants:
            return _fields(grade=said)
        if request.schema is not None:
            return json.dumps({"grade": said, "evidence": [], "rules": [], "verdict": said})
        return done.text or ""

    # -- drafting -------------------------------------------------------------------------------------

    def _revise(self, request: RevisionRequest, rng: Random) -> str:
        """Our own format: operations."""
        found = self._candidates(request, request.candidates, rng)
        if self.whole:
            found = [self._forgetful(candidate, request.rules, rng) for candidate in found]
        return RevisionAnswer(candidates=tuple(found)).model_dump_json(exclude_defaults=True)

    def _forgetful(self, candidate: RevisionCandidate, rules: Sequence[RuleShown], rng: Random) -> RevisionCandidate:
        named = {o.rule for o in candidate.operations}
        lost = [RuleOperation(op="drop", rule=r.id) for r in rules if r.id not in named and rng.random() < self.drop]
        return candidate.model_copy(update={"operations": (*candidate.operations, *lost)})

    def _write(self, asked: Asked, rng: Random) -> str:
        match asked.kind:
            case "advise":
                rule = _guess(asked.evidence, rng)
                advice = f"- {FIRST}{rng.randrange(1000)} -> {rule.grade}: {rule.text}" if rule else "Read both texts."
                return _fields(discussion="It missed a word.", module_advice=json.dumps({"self": advice}))
            case "observe":
                found = self._rewritten(Instruction(""), asked.evidence, rng)
                return _fields(**{asked.wants: "".join(f"\n- O{rng.randrange(10**6)} -> {r.grade}: {r.text}\n"
                                                      for r in found.rules)})  # fmt: skip
            case "describe":
                return _fields(**{asked.wants: asked.told or "It grades how well a title answers a query."})
        current = read_text(asked.instruction)
        if asked.told:
            text = write_text(_with_observations(current, read_text(asked.told).rules, rng))
        else:
            text = write_text(self._rewritten(current, asked.evidence, rng))
        if asked.json_form:
            return json.dumps({asked.wants: text})
        return _fields(**{asked.wants: text}) if asked.wants else f"```\n{text}\n```"

    def _rewritten(self, current: Instruction, evidence: Sequence[EvidenceItem], rng: Random) -> Instruction:
        """The whole instruction, revised; a share of its rules may be lost on the way."""
        shown = tuple(RuleShown(id=r.id, text=r.text, grade=r.grade) for r in current.rules)
        request = RevisionRequest(grades=_GRADES, rules=shown, evidence=tuple(evidence), seed=rng.randrange(2**31))
        found = self._candidates(request, 4, rng)
        kept = replace(current, rules=tuple(r for r in current.rules if rng.random() >= self.drop))
        if not found:
            return kept
        revised = apply(current, rng.choice(found).operations, TASK)
        before = {r.id for r in current.rules}
        still = {r.id for r in kept.rules}
        return replace(revised, rules=tuple(r for r in revised.rules if r.id not in before or r.id in still))

    def _candidates(self, request: RevisionRequest, wanted: int, rng: Random) -> list[RevisionCandidate]:
        evidence = tuple(e for e in request.evidence if not self.errors_only or e.verdict != e.truth)
        shown = request.model_copy(update={"evidence": evidence, "candidates": wanted})
        found = [] if self.clueless else induce(shown)
        if found:
            return found
        guesses = [rule for _ in range(wanted) if (rule := _guess(evidence, rng))]
        before = request.rules[0].id if request.rules else None
        return [
            RevisionCandidate(
                note="A guess from one example.",
                operations=(RuleOperation(op="add", grade=rule.grade, text=rule.text, before=before),),
            )
            for rule in dict.fromkeys(guesses)
        ]


def _guess(evidence: Sequence[EvidenceItem], rng: Random) -> Rule | None:
    """A word of one example, an error where there is one, taken for a rule."""
    errors = [e for e in evidence if e.verdict != e.truth] or list(evidence)
    if not errors:
        return None
    chosen = rng.choice(errors)
    query = set(chosen.fields["query"].split())
    words = [w for w in chosen.fields["title"].split() if w not in query] or chosen.fields["title"].split()
    return Rule("G", f'The title contains "{rng.choice(words)}".', chosen.truth)


def _with_observations(current: Instruction, observed: Sequence[Rule], rng: Random) -> Instruction:
    """Some of what was observed, in front of the rules that are there."""
    chosen = [rule for rule in observed if rng.random() < 0.7]
    ids = [f"N{i:02}" for i in range(1, len(chosen) + 1)]
    fresh = tuple(Rule(i, rule.text, rule.grade) for i, rule in zip(ids, chosen, strict=True))
    return replace(current, rules=(*fresh, *current.rules))


def _fields(**values: str) -> str:
    """DSPy's chat format."""
    return "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in values.items()) + "[[ ## completed ## ]]"
