"""The contract between the loop and whoever revises: what a reviser is shown, and what it may answer.

The user message of a reviser prompt holds one JSON object, a `RevisionRequest`; the answer is one JSON
object, a `RevisionAnswer`. A language model gets the answer's JSON schema as structured output; the
offline inducer reads and writes the same two objects. Edits are operations on single rules, so that a
revision cannot silently lose the rest of the rulebook.

Where examples may change, two more operations name them by positions in the request, from 0: `exemplify` makes the item
at `evidence`, with its truth, an example, new or in the place of `example`; `forget` takes `example` away. Where rules
have parts, `clarify` puts `text` in the place of what `rule` has of `part`, or takes that away where there is no text.
Elsewhere nothing that is sent speaks of either.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from store.types import PART_KINDS, Part, PartKind

Op = Literal["add", "edit", "merge", "split", "drop", "reorder", "exemplify", "forget", "clarify"]
EXAMPLE_OPS = ("exemplify", "forget")


class _Shown(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class GradeShown(_Shown):
    """One grade of the task, ascending by value."""

    symbol: str
    name: str = ""
    value: float = 0.0
    meaning: str = ""


class RuleShown(_Shown):
    """One rule of the instruction under revision, in its order; `parts` are kind and text."""

    id: str
    text: str
    grade: str | None = None
    parts: tuple[Part, ...] = ()


class EvidenceItem(_Shown):
    """One judged sample, shown to the reviser.

    Attributes:
        fields: the sample.
        truth: the grade held true.
        verdict: what the teacher said under the current rules, None when it failed to answer.
        rules: ids that the teacher cited.
        group: an opaque label; equal for items of one group, so that support can be counted by group.
        votes: grade symbol -> number of people who chose it, where raters are known.
        kind: why it is shown: an `error`, its nearest correct `neighbour`, or a `right` one.
        comment: what a person wrote about it in review.
    """

    fields: Mapping[str, str]
    truth: str
    verdict: str | None = None
    rules: tuple[str, ...] = ()
    group: str = ""
    votes: Mapping[str, int] = Field(default_factory=dict)
    kind: Literal["error", "neighbour", "right"] = "right"
    comment: str = ""


class ExampleShown(_Shown):
    """One worked example of the instruction under revision, in its order."""

    fields: Mapping[str, str]
    grade: str


class RevisionBudget(_Shown):
    """What a candidate may grow to. `max_operations` counts one candidate's edits; without `max_examples` it may not
    touch the examples."""

    max_rules: int = 40
    max_operations: int = 8
    max_words: int = 60
    max_examples: int | None = None


class RevisionRequest(_Shown):
    """What a reviser is shown. `evidence` is addressed by its position in `because`; `diagnosis` holds the causes that
    the reviser itself found when it was asked for them first."""

    task: Literal["revise"] = "revise"
    grades: tuple[GradeShown, ...]
    rules: tuple[RuleShown, ...] = ()
    examples: tuple[ExampleShown, ...] = ()
    evidence: tuple[EvidenceItem, ...] = ()
    budget: RevisionBudget = RevisionBudget()
    candidates: int = Field(default=1, ge=1, le=32)
    hints: tuple[str, ...] = ()
    diagnosis: tuple[str, ...] = ()
    shortened: str = ""
    seed: int = 0

    def text(self) -> str:
        """As it is sent. What says nothing is left out: a request's key hashes the text, and small windows are full.

        Examples are left out where they stay as they are, parts where no rule has any.
        """
        unused: dict[str, Any] = {} if self.shortened else {"shortened": True}
        if not self.budget.max_examples:
            unused |= {"budget": {"max_examples"}} | ({} if self.examples else {"examples": True})
        if not any(rule.parts for rule in self.rules):
            unused["rules"] = {"__all__": {"parts"}}
        return self.model_dump_json(exclude=unused)


class RuleOperation(BaseModel):
    """One edit of the rulebook.

    | op | reads | does |
    |---|---|---|
    | add | grade, text, before | a new rule in front of `before`, or last |
    | edit | rule, text, grade | new words (and grade, when given) for `rule`, which keeps its id and place |
    | merge | rule, with_rules, text, grade | `rule` takes the words; `with_rules` go |
    | split | rule, text, grade, second_text, second_grade | `rule` takes `text`; a new rule right after it the rest |
    | drop | rule | takes `rule` away |
    | reorder | rule, before | moves `rule` in front of `before`, or last |

    `because` holds positions in the request's evidence.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    op: Op
    rule: str | None = None
    grade: str | None = None
    text: str = ""
    before: str | None = None
    with_rules: tuple[str, ...] = ()
    second_text: str = ""
    second_grade: str | None = None
    evidence: int | None = None
    example: int | None = None
    part: PartKind | None = None
    because: tuple[int, ...] = ()


class RevisionCandidate(BaseModel):
    """One proposed revision: operations applied in order, and one sentence that says why."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    note: str = ""
    operations: tuple[RuleOperation, ...] = Field(min_length=1)


class RevisionAnswer(BaseModel):
    """What a reviser answers; possibly no candidate at all."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    candidates: tuple[RevisionCandidate, ...] = ()


MOST_REASONS = 8  # pieces of evidence that one operation names
LETTERS_A_WORD = 9  # of a rule, on average at most, its blanks among them
NOTE = 300  # characters

Schema = dict[str, Any]


def answer_schema(shown: RevisionRequest) -> Schema:
    """JSON schema of the answers to a request, for models that can be held to one.

    It offers the operations that can apply, and names only the rules, grades, examples and evidence that are there.
    Every text, list and number has a limit: small models that are held to a schema go on for ever where they may.
    Each key is required and no other allowed, as providers ask who hold to schemas strictly.
    """
    rules, examples = [rule.id for rule in shown.rules], bool(shown.budget.max_examples)
    text: Schema = {"type": "string", "minLength": 1, "maxLength": LETTERS_A_WORD * shown.budget.max_words}
    rule: Schema = {"type": "string", "enum": rules}
    grade, other = _or_null({"type": "string", "enum": [g.symbol for g in shown.grades]}), _or_null(rule)
    add = {"grade": grade, "text": text, **({"before": other} if rules else {})}
    forms: list[tuple[Op, Schema, bool]] = [
        ("add", add, len(rules) < shown.budget.max_rules),
        ("edit", {"rule": rule, "text": text, "grade": grade}, bool(rules)),
        (
            "merge",
            {"rule": rule, "with_rules": list_of(rule, 4, least=1), "text": text, "grade": grade},
            len(rules) > 1,
        ),
        (
            "split",
            {"rule": rule, "text": text, "grade": grade, "second_text": text, "second_grade": grade},
            0 < len(rules) < shown.budget.max_rules,
        ),
        ("drop", {"rule": rule}, bool(rules)),
        ("reorder", {"rule": rule, "before": other}, len(rules) > 1),
        (
            "exemplify",
            {"evidence": _place(shown.evidence), "example": _or_null(_place(shown.examples))},
            examples and bool(shown.evidence),
        ),
        ("forget", {"example": _place(shown.examples)}, examples and bool(shown.examples)),
        (
            "clarify",
            {
                "rule": rule,
                "part": {"type": "string", "enum": list(PART_KINDS)},
                "text": {**text, "minLength": 0},
            },
            any(rule.parts for rule in shown.rules),
        ),
    ]
    because = {"because": list_of(_place(shown.evidence), MOST_REASONS)} if shown.evidence else {}
    offered = [object_of({"op": {"type": "string", "enum": [op]}} | keys | because) for op, keys, fits in forms if fits]
    operations = list_of({"anyOf": offered}, shown.budget.max_operations, least=1)
    candidate = object_of({"note": {"type": "string", "maxLength": NOTE}, "operations": operations})
    return object_of({"candidates": list_of(candidate, shown.candidates)})


def object_of(keys: Mapping[str, Any]) -> Schema:
    return {"type": "object", "properties": dict(keys), "required": list(keys), "additionalProperties": False}


def list_of(items: Schema, most: int, least: int = 0) -> Schema:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _place(shown: Sequence[object]) -> Schema:
    """A position among what is shown."""
    return {"type": "integer", "minimum": 0, "maximum": max(0, len(shown) - 1)}
