"""Operations on single rules and examples: what a revision may do to an instruction, and how two become one.

Full rewrites drop rules and memorise the text they were shown (gepa issue 261); operations cannot lose the rest.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from piar.instructions.markdown import fresh_ids
from piar.instructions.revision_schema import EXAMPLE_OPS, EvidenceItem, RuleOperation
from store.task import Task
from store.types import Example, Instruction, Part, Rule

_MARKUP = re.compile(r"</?[a-z!][^>]*>|\{[{%#]|```|[\x00-\x1f\x7f]|^\s*#", re.I)


class Refused(ValueError):
    """A proposal that cannot or may not be applied; the message is the reason."""


def apply(
    instruction: Instruction,
    operations: Sequence[RuleOperation],
    task: Task,
    taken: Iterable[str] = (),
    evidence: Sequence[EvidenceItem] = (),
) -> Instruction:
    """The instruction after the operations, in order. Rules that are not named keep id, text and place.

    Args:
        taken: ids that were in use before and are not given again.
        evidence: what may become an example.

    Raises:
        Refused: an operation names an unknown rule, grade, example or piece of evidence, or lacks its text.
    """
    rules = list(instruction.rules)
    ids = fresh_ids({r.id for r in rules} | set(taken))
    for operation in operations:
        if operation.op not in EXAMPLE_OPS:
            rules = _OPERATIONS[operation.op](rules, operation, task, ids)
    examples = _examples(instruction.examples, [op for op in operations if op.op in EXAMPLE_OPS], evidence)
    return replace(instruction, rules=tuple(rules), examples=examples)


def _examples(
    before: Sequence[Example], operations: Sequence[RuleOperation], evidence: Sequence[EvidenceItem]
) -> tuple[Example, ...]:
    """The examples after the operations. Positions are those that the reviser was shown, whatever went before."""
    kept: list[Example | None] = list(before)
    for op in operations:
        if op.example is not None and not 0 <= op.example < len(before):
            raise Refused("names an example that is not there")
        found = _example(op, evidence) if op.op == "exemplify" else None
        if op.example is not None:
            kept[op.example] = found
        elif found is None:
            raise Refused("names an example that is not there")
        else:
            kept.append(found)
    return tuple(example for example in kept if example)


def _example(op: RuleOperation, evidence: Sequence[EvidenceItem]) -> Example:
    if op.evidence is None or not 0 <= op.evidence < len(evidence):
        raise Refused("an example that is no evidence")
    item = evidence[op.evidence]
    if len(item.votes) > 1:
        raise Refused("an example on which people disagree")
    return Example(dict(item.fields), item.truth)


def _add(rules: list[Rule], op: RuleOperation, task: Task, ids: Iterator[str]) -> list[Rule]:
    at = _place(rules, op.before) if op.before else len(rules)
    return [*rules[:at], Rule(next(ids), _text(op.text), _grade(op.grade, task)), *rules[at:]]


def _edit(rules: list[Rule], op: RuleOperation, task: Task, ids: Iterator[str]) -> list[Rule]:
    at = _place(rules, op.rule)
    grade = rules[at].grade if op.grade is None else _grade(op.grade, task)
    return [*rules[:at], replace(rules[at], text=_text(op.text), grade=grade), *rules[at + 1 :]]


def _merge(rules: list[Rule], op: RuleOperation, task: Task, ids: Iterator[str]) -> list[Rule]:
    gone = [rule for name in op.with_rules if (rule := rules[_place(rules, name)]).id != op.rule]
    if not gone:
        raise Refused("a merge names no other rule")
    edited, at = _edit(rules, op, task, ids), _place(rules, op.rule)
    parts = dict.fromkeys((*edited[at].parts, *(part for rule in gone for part in rule.parts)))
    edited[at] = replace(edited[at], parts=tuple(parts))
    return [rule for rule in edited if rule.id not in {other.id for other in gone}]


def _split(rules: list[Rule], op: RuleOperation, task: Task, ids: Iterator[str]) -> list[Rule]:
    at = _place(rules, op.rule)
    second_grade = rules[at].grade if op.second_grade is None else op.second_grade
    second = Rule(next(ids), _text(op.second_text), _grade(second_grade, task))
    edited = _edit(rules, op, task, ids)
    return [*edited[: at + 1], second, *edited[at + 1 :]]


def _drop(rules: list[Rule], op: RuleOperation, task: Task, ids: Iterator[str]) -> list[Rule]:
    at = _place(rules, op.rule)
    return [*rules[:at], *rules[at + 1 :]]


def _reorder(rules: list[Rule], op: RuleOperation, task: Task, ids: Iterator[str]) -> list[Rule]:
    moved = rules[_place(rules, op.rule)]
    rest = [r for r in rules if r is not moved]
    at = _place(rest, op.before) if op.before else len(rest)
    return [*rest[:at], moved, *rest[at:]]


def _clarify(rules: list[Rule], op: RuleOperation, task: Task, ids: Iterator[str]) -> list[Rule]:
    at = _place(rules, op.rule)
    if op.part is None:
        raise Refused("names no part of a rule")
    parts = list(rules[at].parts)
    place = next((i for i, part in enumerate(parts) if part.kind == op.part), len(parts))
    parts = [part for part in parts if part.kind != op.part]
    if op.text.strip():
        parts.insert(place, Part(op.part, _text(op.text)))
    return [*rules[:at], replace(rules[at], parts=tuple(parts)), *rules[at + 1 :]]


_OPERATIONS: dict[str, Callable[[list[Rule], RuleOperation, Task, Iterator[str]], list[Rule]]] = {
    "add": _add,
    "edit": _edit,
    "merge": _merge,
    "split": _split,
    "drop": _drop,
    "reorder": _reorder,
    "clarify": _clarify,
}


def _place(rules: Sequence[Rule], rule_id: str | None) -> int:
    for at, rule in enumerate(rules):
        if rule.id == rule_id:
            return at
    raise Refused("names a rule that is not there")


def _text(text: str) -> str:
    if not re.search(r"\w", cleaned := text.strip()):
        raise Refused("a rule without words")
    if _MARKUP.search(cleaned):
        raise Refused("markup or control characters in a rule")
    return cleaned


def _grade(grade: str | None, task: Task) -> str | None:
    if grade is not None and grade not in task.symbols:
        raise Refused("a grade that the task does not have")
    return grade
