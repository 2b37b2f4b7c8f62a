"""Any Markdown guideline becomes an `instruction.md`: rules in bullets, numbered lists, tables, prose, or under a
heading for each grade are recognised; what is recognised, contradicted or left as prose is reported by line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from piar.instructions.markdown import fresh_ids, parse
from piar.offline.rulebook_reader import Policy, read_rulebook
from store.errors import UsageError
from store.task import Task
from store.types import Instruction, Rule

_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*")
_ITEM = re.compile(r"(\s*(?:[-*•+]|\(?\d{1,3}[.)])\s+)(.*)")
_OWN_FORMAT = re.compile(r"^##[ \t]+Rules[ \t]*$", re.M | re.I)
_OWN_RULE = re.compile(r"^[-*+][ \t]+\*\*[A-Za-z][\w-]*\*\*", re.M)
_LEAD = 24  # characters by which a rule is found again in the file


@dataclass(frozen=True, slots=True)
class Recognised:
    """A rule and the line of the guideline that it was read from (0: not found again)."""

    line: int
    rule: str


@dataclass(frozen=True, slots=True)
class GuidelineImport:
    """A guideline as an instruction, and what a person should know about it.

    Attributes:
        recognised: every rule with its line.
        unfollowed: ids of rules that the offline teacher cannot follow; a language model may.
        contradictions: pairs of rules with the same condition and different grades.
    """

    instruction: Instruction
    recognised: tuple[Recognised, ...]
    unfollowed: tuple[str, ...]
    contradictions: tuple[tuple[str, str], ...]


def import_guideline(text: str, task: Task) -> GuidelineImport:
    """Read a guideline in any layout; one that is an `instruction.md` already is parsed as such.

    Raises:
        UsageError: the text is empty, or an `instruction.md` with a mistake (names the line).
    """
    if not text.strip():
        raise UsageError("The guideline is empty.", "Write down in a few sentences when each grade is right.")
    plain = text.replace("\r\n", "\n").removeprefix("\ufeff")
    if _OWN_FORMAT.search(plain) and _OWN_RULE.search(plain):
        instruction = parse(plain, task, "guideline")
        return _report(instruction, plain, task, [r.text for r in instruction.rules])
    marked = "\n".join(_mark_grades(plain, task))
    book = read_rulebook(marked, task.symbols, task.fields)
    policies = {id(p): p for p in [*(c.policy for c in book.clauses), *book.unfollowed]}
    grades = {id(c.policy): c.grade for c in book.clauses}
    ordered = sorted(policies.values(), key=lambda p: _position(marked, p.text))
    rules = _rules([(p, grades.get(id(p)) or p.grade) for p in ordered], task)
    instruction = Instruction(_preamble(plain, ordered, task), rules, author="guideline")
    return _report(instruction, marked, task, [p.text for p in ordered])


def _mark_grades(text: str, task: Task) -> Iterator[str]:
    """Lines, where items under a heading that names one grade say that grade."""
    grade: str | None = None
    for line in text.split("\n"):
        if heading := _HEADING.fullmatch(line):
            grade = _grade_named(heading[2], task)
        item = _ITEM.fullmatch(line)
        yield f"{item[1]}→ {grade}: {item[2]}" if grade and item and "→" not in line and "->" not in line else line


def _grade_named(heading: str, task: Task) -> str | None:
    """The one grade that a heading names by symbol or name, None for none or several."""
    words = {w.lower() for w in re.findall(r"\w+", heading)}
    named = [g.symbol for g in task.grades if g.symbol.lower() in words or (g.name and g.name.lower() in words)]
    return named[0] if len(named) == 1 and len(words) <= 5 else None


def _rules(found: list[tuple[Policy, str | None]], task: Task) -> tuple[Rule, ...]:
    usable = {p.id for p, _ in found if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", p.id)}
    fresh, taken = fresh_ids(usable), set[str]()
    rules = []
    for policy, grade in found:
        name = policy.id if policy.id in usable and policy.id not in taken else next(fresh)
        taken.add(name)
        rules.append(Rule(name, " ".join(policy.text.split()), grade if grade in task.symbols else None))
    return tuple(rules)


def _preamble(text: str, policies: list[Policy], task: Task) -> str:
    """What is neither a rule nor a heading, as paragraphs."""
    starts = {p.text.strip()[:_LEAD] for p in policies if p.text.strip()}
    kept: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        lines = [ln for ln in block.split("\n") if not _HEADING.fullmatch(ln) and not ln.lstrip().startswith("|")]
        prose = [s for ln in lines for s in re.split(r"(?<=[.!?])\s+", _ITEM.sub(r"\2", ln)) if s.strip()]
        left = [s.strip() for s in prose if not any(start in s or s in start for start in starts)]
        if left:
            kept.append(" ".join(left))
    return "\n\n".join(kept) or task.ask or "Judge each sample by the rules."


def _position(text: str, rule: str) -> int:
    """Where a rule stands: by all of its words, else (it may be wrapped) by how it begins."""
    whole = text.find(rule.strip())
    at = whole if whole >= 0 else text.find(rule.strip()[:_LEAD])
    return at if at >= 0 else len(text)


def _report(instruction: Instruction, text: str, task: Task, texts: list[str]) -> GuidelineImport:
    lines = [Recognised(_line_of(text, words), r.id) for words, r in zip(texts, instruction.rules, strict=True)]
    listed = "\n".join(f"- {r.id} -> {r.grade}: {r.text}" for r in instruction.rules if r.grade is not None)
    book = read_rulebook(listed, task.symbols, task.fields)
    followed = {c.policy.id for c in book.clauses}
    conditions: dict[object, Rule] = {}
    contradictions = []
    by_id = {c.policy.id: c.condition for c in book.clauses}
    for rule in instruction.rules:
        condition = by_id.get(rule.id, " ".join(re.findall(r"\w+", rule.text.lower())))
        first = conditions.setdefault(condition, rule)
        if first.grade != rule.grade:
            contradictions.append((first.id, rule.id))
    unfollowed = tuple(r.id for r in instruction.rules if r.id not in followed)
    return GuidelineImport(instruction, tuple(lines), unfollowed, tuple(contradictions))


def _line_of(text: str, rule: str) -> int:
    at = _position(text, rule)
    return text.count("\n", 0, at) + 1 if at < len(text) else 0
