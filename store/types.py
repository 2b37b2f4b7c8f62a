"""The words of the house as plain values. Light: no DuckDB, no Polars, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Literal, NamedTuple

from store.ids import short_hash

Split = Literal["train", "dev", "holdout", "test", "pool"]
SPLITS: tuple[Split, ...] = ("train", "dev", "holdout", "test", "pool")
CLOSED_SPLITS: tuple[Split, ...] = ("dev", "holdout", "test")

Bucket = Literal["easy", "mid", "hard", "suspect"]
BUCKETS: tuple[Bucket, ...] = ("easy", "mid", "hard", "suspect")


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing to judge: the task's fields, a group (for search: the query) and a split."""

    id: str
    group: str
    fields: Mapping[str, str]
    split: Split = "pool"


PartKind = Literal["use when", "avoid when", "example", "counter-example"]
PART_KINDS: tuple[PartKind, ...] = ("use when", "avoid when", "example", "counter-example")


class Part(NamedTuple):
    """What explains a rule beside its sentence, as codebooks do (MacQueen et al. 1998)."""

    kind: PartKind
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One sentence of policy with a stable id.

    Attributes:
        grade: the symbol that the rule decides, or None for a rule that only guides.
        parts: when to use it and when not, examples and counter-examples, in the order in which they are written.
    """

    id: str
    text: str
    grade: str | None = None
    parts: tuple[Part, ...] = ()

    @property
    def words(self) -> str:
        """All that a judge reads of it: the sentence, and each part on an indented line of its own."""
        return "\n".join([self.text, *(f"  {part.kind}: {part.text}" for part in self.parts)])

    def admits(self, grade: str) -> bool:
        """Whether a verdict of `grade` may cite this rule."""
        return self.grade is None or self.grade == grade


@dataclass(frozen=True, slots=True)
class Example:
    """A worked example inside an instruction."""

    fields: Mapping[str, str]
    grade: str
    rule: str | None = None


@dataclass(frozen=True)
class Instruction:
    """An ordered rulebook with a preamble, identified by its content.

    Lineage (`parent`, `author`, `note`) is not part of the identity: the same text
    reached by two roads is one instruction.

    Attributes:
        preamble: what the judge is asked to do, in prose.
        rules: applied in order; the first that fits decides.
        meanings: grade symbol -> meaning, where it differs from the task's.
        examples: worked examples shown to the judge.
        parent: id of the instruction that this one was revised from.
        author: `seed`, `reviser:MODEL`, or a person's name.
        note: why it was made, one sentence.
    """

    preamble: str
    rules: tuple[Rule, ...] = ()
    meanings: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    parent: str | None = None
    author: str = "seed"
    note: str = ""

    @cached_property
    def id(self) -> str:
        """Twelve hex digits over what a judge would read."""
        return short_hash(
            {
                "preamble": self.preamble,
                "rules": [[r.id, r.text, r.grade, *([r.parts] if r.parts else [])] for r in self.rules],
                "meanings": dict(self.meanings),
                "examples": [[dict(e.fields), e.grade, e.rule] for e in self.examples],
            }
        )

    @cached_property
    def wording(self) -> str:
        """The same over what it says, however its rules are numbered."""
        place = {r.id: f"R{i}" for i, r in enumerate(self.rules)}
        rules = tuple(replace(r, id=place[r.id]) for r in self.rules)
        examples = tuple(replace(e, rule=place.get(e.rule, e.rule)) if e.rule else e for e in self.examples)
        return replace(self, rules=rules, examples=examples).id

    def rule(self, rule_id: str) -> Rule | None:
        """The rule with this id, or None."""
        return next((r for r in self.rules if r.id == rule_id), None)


@dataclass(frozen=True, slots=True)
class Trace:
    """The structured reason after the answer. `grade` is the first token, `verdict` the closing line."""

    grade: str
    evidence: tuple[str, ...] = ()
    steps: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of a sample under an instruction.

    Attributes:
        key: the request's key, so that a verdict points at its completion.
        judge: `teacher:MODEL`, `student:PATH` or `baseline:NAME`.
        instruction: instruction id, or "" for judges that read none.
        vote: 0 for the first opinion, 1, 2, … for further votes.
        grade: the symbol, or None when the answer failed.
        probs: probability of each grade in the task's order; None when unknown.
        failure: why there is no grade (class of the failure), or None.
    """

    key: str
    sample_id: str
    judge: str
    instruction: str
    vote: int
    grade: str | None
    probs: tuple[float, ...] | None = None
    trace: Trace | None = None
    failure: str | None = None


FailureClass = Literal[
    "timeout",
    "connection",
    "rate_limit",
    "server",
    "auth",
    "billing",
    "request",
    "refused",
    "malformed",
    "truncated",
    "budget",
    "cancelled",
]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer; `cached` of the prompt tokens were served from a prefix cache."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer: a class to count by, and words for people (never a secret)."""

    kind: FailureClass
    message: str


@dataclass(frozen=True, slots=True)
class Completion:
    """One raw answer of a model, or its error, with usage and cost.

    Attributes:
        probs: grade symbol -> probability (sums to 1 over the request's grades), None when unknown.
        cost_usd: what the answer cost by the price table; 0 for local models.
        seconds: from asking to the last byte, retries included.
        attempts: times it was sent so that it may have been paid for, at least 1 of anything sent; 0: never sent.
    """

    key: str
    model: str
    text: str | None = None
    probs: Mapping[str, float] | None = None
    failure: Failure | None = None
    usage: Usage = field(default_factory=Usage)
    cost_usd: float = 0.0
    seconds: float = 0.0
    attempts: int = 1


LabelSource = Literal["gold", "human", "consensus", "teacher"]


NOTHING_FURTHER = "{}"


@dataclass(frozen=True, slots=True)
class Label:
    """What we hold true about a sample, by whom. Never overwritten; a correction is a new row.

    Attributes:
        blind: False when the annotator saw a suggestion before answering, None when unknown.
        ordinal: distinguishes repeated votes of one annotator on one sample (0, 1, …).
        at: when it was given, UTC without a zone; None: when it was recorded.
        further: JSON object of what was said beside the grade: control -> list of choices, texts or marked spans.
    """

    sample_id: str
    source: LabelSource
    annotator: str
    grade: str | None
    ordinal: int = 0
    comment: str = ""
    flags: tuple[str, ...] = ()
    rule: str | None = None
    seconds: float | None = None
    blind: bool | None = None
    batch: str = ""
    origin: str = ""
    at: datetime | None = None
    further: str = NOTHING_FURTHER
