"""What happened to each rule between two instructions."""

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from store.types import Instruction, Rule


@dataclass(frozen=True, slots=True)
class RuleChange:
    """What happened to one rule between two instructions; `moved`: same words, another place in the order."""

    id: str
    kind: Literal["added", "dropped", "changed", "moved"]
    before: str
    after: str


def rule_changes(before: "Instruction", after: "Instruction") -> tuple[RuleChange, ...]:
    """What happened to each rule, in the order of `after`, dropped ones last."""
    old, kept = {rule.id: rule for rule in before.rules}, {rule.id for rule in after.rules}
    stayed = _in_order([r.id for r in before.rules if r.id in kept], [r.id for r in after.rules if r.id in old])
    changes = [change for rule in after.rules if (change := _change(old.get(rule.id), rule, rule.id not in stayed))]
    return (*changes, *(RuleChange(r.id, "dropped", rule_line(r), "") for r in before.rules if r.id not in kept))


def _in_order(before: list[str], after: list[str]) -> set[str]:
    """Ids that kept their order, as many as possible by difflib's matching."""
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    return {rule_id for block in blocks for rule_id in before[block.a : block.a + block.size]}


def _change(old: "Rule | None", new: "Rule", moved: bool) -> RuleChange | None:
    if old is None:
        return RuleChange(new.id, "added", "", rule_line(new))
    if old != new:
        return RuleChange(new.id, "changed", rule_line(old), rule_line(new))
    return RuleChange(new.id, "moved", rule_line(old), rule_line(new)) if moved else None


def rule_line(rule: "Rule") -> str:
    """A rule with its parts on one line."""
    arrow = "" if rule.grade is None else f" → {rule.grade}"
    return " · ".join([f"{rule.id}{arrow}: {rule.text}", *(f"{part.kind}: {part.text}" for part in rule.parts)])
