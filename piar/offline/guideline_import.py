"""Any Markdown guideline becomes an `instruction.md`: rules in bullets, numbered lists, tables, prose, or under a
heading for each grade are recognised; what is recognised, contradicted or left as prose is reported by line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from piar.instructions.markdown import fresh_ids, parse
from piar.offline.layouts import part_below, read_layout
from piar.offline.rule_reader import grade_names, read_rules
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
    layout = read_layout(marked, task.symbols)
    names = {name.lower(): symbol for symbol, name in layout.grades if name and symbol in task.symbols}
    reading = read_rules(layout.rules, task.symbols, names, task.fields)
    found = {id(r): r for r in [*(c.rule for c in reading.clauses), *reading.unfollowed]}
    grades = {id(c.rule): c.grade for c in reading.clauses}
    ordered = sorted(found.values(), key=lambda r: _position(marked, r.text))
    rules = _named([replace(r, grade=grades.get(id(r)) or r.grade) for r in ordered], task)
    instruction = Instruction(_preamble(plain, ordered, task), rules, author="guideline")
    return _report(instruction, marked, task, [r.text for r in ordered])


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


def _named(found: list[Rule], task: Task) -> tuple[Rule, ...]:
    """The rules with an id each, in one line."""
    usable = {r.id for r in found if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", r.id)}
    fresh, taken = fresh_ids(usable), set[str]()
    rules = []
    for rule in found:
        name = rule.id if rule.id in usable and rule.id not in taken else next(fresh)
        taken.add(name)
        grade = rule.grade if rule.grade in task.symbols else None
        rules.append(replace(rule, id=name, text=" ".join(rule.text.split()), grade=grade))
    return tuple(rules)


def _preamble(text: str, rules: list[Rule], task: Task) -> str:
    """What is neither a rule nor a heading, as paragraphs."""
    starts = {r.text.strip()[:_LEAD] for r in rules if r.text.strip()} | {p.text for r in rules for p in r.parts}
    kept: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        plain = (ln for ln in block.split("\n") if not _HEADING.fullmatch(ln) and not ln.lstrip().startswith("|"))
        lines = [ln for ln in plain if not part_below(ln)]
        prose = [s.strip() for ln in lines for s in re.split(r"(?<=[.!?])\s+", _ITEM.sub(r"\2", ln)) if s.strip()]
        left = [s for s in prose if not any(start in s or s in start for start in starts)]
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
    graded = [rule for rule in instruction.rules if rule.grade is not None]
    reading = read_rules(graded, task.symbols, grade_names(task.grades), task.fields)
    by_id = {clause.rule.id: clause.condition for clause in reading.clauses}
    conditions: dict[object, Rule] = {}
    contradictions = []
    for rule in instruction.rules:
        condition = by_id.get(rule.id, " ".join(re.findall(r"\w+", rule.text.lower())))
        first = conditions.setdefault(condition, rule)
        if first.grade != rule.grade:
            contradictions.append((first.id, rule.id))
    unfollowed = tuple(r.id for r in instruction.rules if r.id not in by_id)
    return GuidelineImport(instruction, tuple(lines), unfollowed, tuple(contradictions))


def _line_of(text: str, rule: str) -> int:
    at = _position(text, rule)
    return text.count("\n", 0, at) + 1 if at < len(text) else 0
