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

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from store.types import Part, PartKind

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
    seed: int = 0

    def text(self) -> str:
        """As it is sent. What concerns examples is left out where they stay as they are, and so are parts where there
        are none: a request's key hashes it."""
        unused: dict[str, Any] = {} if self.budget.max_examples else {"budget": {"max_examples"}}
        if not self.budget.max_examples and not self.examples:
            unused["examples"] = True
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


def answer_schema(*, examples: bool = False, parts: bool = False) -> dict[str, Any]:
    """JSON schema of a `RevisionAnswer`, for endpoints with structured output.

    Args:
        examples: whether edits of examples are among the operations.
        parts: whether edits of a rule's parts are.
    """
    schema = RevisionAnswer.model_json_schema()
    fields = schema["$defs"]["RuleOperation"]["properties"]
    left_out = (() if examples else EXAMPLE_OPS) + (() if parts else ("clarify",))
    fields["op"]["enum"] = [name for name in fields["op"]["enum"] if name not in left_out]
    for name in (() if examples else ("evidence", "example")) + (() if parts else ("part",)):
        del fields[name]
    return schema
