"""Revising an instruction: one way to ask a reviser, and gates before anything is spent.

A language model and the offline inducer answer the same prompt with the same JSON object, which holds operations on
single rules (`piar.instructions.operations`). An n-gram gate refuses text copied from the samples that the reviser was
shown.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from piar.evolve.settings import RevisionSettings
from piar.instructions.operations import Refused, apply
from piar.instructions.revision_schema import (
    EXAMPLE_OPS,
    EvidenceItem,
    RevisionAnswer,
    RevisionCandidate,
    RuleOperation,
)
from store.task import Task
from store.types import Completion, Instruction, Rule

COPIED_WORDS = 5
BYTES_A_TOKEN = 4
UNREAD = "an answer that is not the JSON asked for"
UNANSWERED = "no answer"
WORDS = 150  # characters of why there was none
MOST_STARTS = 50  # places of an answer where an object may begin
ALONE = {"candidates": "operations", "diagnoses": "cause"}  # what an item holds that is given without its list
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate that passed the gates."""

    instruction: Instruction
    operations: tuple[RuleOperation, ...]


@dataclass(slots=True)
class Revision:
    """What a round of asking brought.

    Attributes:
        refused: why others are no proposals -> how many.
        asked: candidates that were asked for.
        answers: answers to questions for edits.
        read: those that could be read.
        offered: candidates in them.
    """

    proposals: list[Proposal] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    answers: int = 0
    read: int = 0
    offered: int = 0

    def add(self, more: "Revision") -> None:
        """Take in what another round brought."""
        self.proposals += more.proposals
        self.refused += more.refused
        self.asked, self.answers = self.asked + more.asked, self.answers + more.answers
        self.read, self.offered = self.read + more.read, self.offered + more.offered


# -- gates ----------------------------------------------------------------------------------------


def gate(
    instruction: Instruction,
    parent: Instruction,
    copied: frozenset[str],
    seen: Iterable[str],
    settings: RevisionSettings,
) -> str | None:
    """Why a candidate is not worth asking anybody about, or None.

    A parent that is itself too long, or says a thing twice, may be edited: a candidate only must not be worse there.

    Args:
        copied: runs of five words of the samples that the reviser was shown.
        seen: wordings of instructions that were tried.
    """
    new = [r for r in instruction.rules if parent.rule(r.id) != r]
    words = {r.id: _WORD.findall(r.words.lower()) for r in new}
    if instruction.wording in seen:
        return "tried before"
    if len(instruction.examples) > max(settings.max_examples, len(parent.examples)):
        return f"more than {settings.max_examples} examples"
    if len(_shown(instruction)) < len(instruction.examples) and len(_shown(parent)) == len(parent.examples):
        return "shows the same example twice"
    if len(instruction.rules) > max(settings.max_rules, len(parent.rules)):
        return f"more than {settings.max_rules} rules"
    if any(len(_WORD.findall(text)) > settings.max_words for r in new for text in (r.text, *(p.text for p in r.parts))):
        return f"a rule of more than {settings.max_words} words"
    if _length(instruction) > max(BYTES_A_TOKEN * settings.max_length, _length(parent)):
        return f"more than {settings.max_length:,} tokens of rules and examples"
    if any(run in copied for r in new for run in _runs(words[r.id])):
        return "copies text from a sample"
    if contradiction(instruction) and not contradiction(parent):
        return "contradicts itself"
    if _repeats(instruction) > _repeats(parent):
        return "says the same twice"
    return None


def _length(instruction: Instruction) -> int:
    """Bytes of all rules and examples."""
    shown = (text for example in instruction.examples for text in example.fields.values())
    return sum(len(text.encode()) for text in (*(rule.words for rule in instruction.rules), *shown))


def _shown(instruction: Instruction) -> set[tuple[str, ...]]:
    """What its examples show."""
    return {tuple(example.fields.values()) for example in instruction.examples}


def _repeats(instruction: Instruction) -> int:
    """Rules that say what another one says."""
    return len(instruction.rules) - len({tuple(_WORD.findall(r.words.lower())) for r in instruction.rules})


def contradiction(instruction: Instruction) -> tuple[Rule, Rule] | None:
    """Two rules that say the same and decide differently, if there are any."""
    said: dict[str, Rule] = {}
    for rule in instruction.rules:
        first = said.setdefault(" ".join(_WORD.findall(rule.words.lower())), rule)
        if first.grade != rule.grade:
            return first, rule
    return None


def runs_of(evidence: Iterable[EvidenceItem]) -> frozenset[str]:
    """All runs of five words in the samples' fields, lower case."""
    return frozenset(run for e in evidence for text in e.fields.values() for run in _runs(_WORD.findall(text.lower())))


def _runs(words: Sequence[str]) -> Iterator[str]:
    return (" ".join(words[i : i + COPIED_WORDS]) for i in range(len(words) - COPIED_WORDS + 1))


# -- asking ---------------------------------------------------------------------------------------


def shares(candidates: int, requests: int) -> list[int]:
    """Candidates that each request asks for, together as many as a round has; at least one each."""
    return [max(1, len(range(i, candidates, requests))) for i in range(requests)]


def read_answer(completion: Completion) -> tuple[list[RevisionCandidate], Counter[str]]:
    """The candidates in an answer, and why the rest is none; never raises.

    Of an answer that was cut off, every edit before the one in which it ends.
    """
    refused: Counter[str] = Counter()
    if completion.failure:
        return [], Counter({f"{UNANSWERED} ({completion.failure.kind}: {completion.failure.message[:WORDS]})": 1})
    said = read_object(completion.text or "", "candidates")
    if said.data is None:
        return [], Counter({UNREAD: 1})
    offered = list(said.data["candidates"])
    if not said.whole:
        refused["an answer that is cut off"] += 1
        offered[-1:] = _before_the_cut(offered[-1]) if offered else []
    elif not offered:
        return [], Counter({"an answer without candidates": 1})
    candidates: list[RevisionCandidate] = []
    for item in offered:
        try:
            candidates += RevisionAnswer.model_validate({"candidates": [item]}).candidates
        except ValidationError:
            refused["a candidate without valid operations"] += 1
    return candidates, refused


def _before_the_cut(last: Any) -> list[dict[str, Any]]:
    """The candidate in which an answer ends, without its last edit; none where it has no other."""
    edits = last.get("operations") if isinstance(last, dict) else None
    return [last | {"operations": edits[:-1]}] if isinstance(edits, list) and len(edits) > 1 else []


def revise(
    completions: Sequence[Completion],
    parent: Instruction,
    evidence: Sequence[Sequence[EvidenceItem]],
    task: Task,
    settings: RevisionSettings,
    *,
    author: str,
    seen: Iterable[str],
    taken: Iterable[str] = (),
    exemplary: bool = True,
) -> Revision:
    """Proposals from the reviser's answers, each through the gates; no more than were asked for.

    Args:
        completions: answers, one for each request.
        evidence: what each request showed.
        author: who is named as the author of the proposals.
        seen: wordings of instructions that were tried.
        taken: rule ids that are not given again.
        exemplary: whether what was shown is all from train, so that it may become an example.
    """
    revision, tried, given = Revision(answers=len(completions)), set(seen), list(taken)
    wanted = shares(settings.candidates, len(completions))
    for completion, shown, most in zip(completions, evidence, wanted, strict=True):
        candidates, refused = read_answer(completion)
        revision.refused += refused
        revision.asked, revision.offered = revision.asked + most, revision.offered + len(candidates)
        revision.read += not (completion.failure or refused[UNREAD])
        copied, most = runs_of(shown), most + len(revision.proposals)
        for candidate in candidates:
            try:
                proposed = propose(
                    parent, candidate, task, settings, author=author, taken=given, evidence=shown if exemplary else ()
                )
                reason = gate(proposed.instruction, parent, copied, tried, settings)
            except Refused as refusal:
                reason = str(refusal)
            if reason is None and len(revision.proposals) == most:
                reason = "more candidates than asked for"
            if reason is None:
                tried.add(proposed.instruction.wording)
                revision.proposals.append(proposed)
            else:
                revision.refused[reason] += 1
    return revision


def propose(
    parent: Instruction,
    candidate: RevisionCandidate,
    task: Task,
    settings: RevisionSettings,
    *,
    author: str,
    taken: Iterable[str] = (),
    evidence: Sequence[EvidenceItem] = (),
) -> Proposal:
    """Apply one candidate.

    Raises:
        Refused: too many operations, or one that cannot be applied.
    """
    if len(candidate.operations) > settings.max_operations:
        raise Refused(f"more than {settings.max_operations} operations")
    if not settings.max_examples and any(op.op in EXAMPLE_OPS for op in candidate.operations):
        raise Refused("an edit of examples, which [evolve.revision] max_examples = 0 leaves as they are")
    changed = apply(parent, candidate.operations, task, taken, evidence)
    note = " ".join(candidate.note.split())[:300]
    return Proposal(replace(changed, parent=parent.id, author=author, note=note), candidate.operations)


@dataclass(frozen=True, slots=True)
class Spoken:
    """The JSON object in an answer.

    Attributes:
        data: None where there is none.
        whole: whether the answer goes on to the object's end.
    """

    data: dict[str, Any] | None
    whole: bool = True


def read_object(text: str, key: str) -> Spoken:
    """The JSON object of an answer that holds a key, thoughts and words around it left out.

    One without the key whose own keys are those of a single item is taken for a list of one. Of an object that was cut
    off, what stands before the cut.
    """
    body = text.rpartition("</think>")[2].partition("<think>")[0]
    starts = [at for at, letter in enumerate(body) if letter == "{"][:MOST_STARTS]
    for start in starts:
        try:
            found = json.JSONDecoder().raw_decode(body[start:])[0]
        except (ValueError, RecursionError):
            continue
        if isinstance(found.get(key), list):
            return Spoken(found)
        if start == starts[0] and ALONE[key] in found:
            return Spoken({key: [found]})
    try:
        found = from_json(body[starts[0] :], allow_partial=True) if starts else None
    except ValueError:
        found = None
    return Spoken(found, whole=False) if isinstance(found, dict) and isinstance(found.get(key), list) else Spoken(None)
