"""Instructions as the plain text that every optimizer edits, and back."""

import re

from store.types import Instruction, Rule

_RULE = re.compile(r"^\s*- (\w+) -> (\S+): (.+)$")
FIRST = "FIRST"  # rules whose id begins so were appended as advice and come before the others, the latest first


def write_text(instruction: Instruction) -> str:
    """Preamble, then one line a rule."""
    lines = [f"- {r.id} -> {r.grade}: {r.text}" for r in instruction.rules]
    return "\n".join([instruction.preamble, "", "The first rule that fits decides.", *lines])


def read_text(text: str) -> Instruction:
    """The rules of a text, advice first; what is no rule is preamble."""
    rules, advice, rest = list[Rule](), list[Rule](), list[str]()
    for line in text.splitlines():
        found = _RULE.match(line)
        if not found:
            rest.append(line)
            continue
        rule = Rule(found[1], found[3].strip(), found[2])
        (advice if rule.id.startswith(FIRST) else rules).append(rule)
    taken: set[str] = set()
    unique = []
    for rule in (*reversed(advice), *rules):
        if rule.id not in taken:
            taken.add(rule.id)
            unique.append(rule)
    preamble = next((line.strip() for line in rest if line.strip()), "")
    return Instruction(preamble, tuple(unique))
