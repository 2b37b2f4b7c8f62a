"""`instruction.md`, written and parsed in one place.

    You judge how well a product answers a search query.

    ## Grades
    - **1** (relevant): it is what was asked for
    - **0** (irrelevant): it is not

    ## Rules
    The first rule that fits decides.
    - **R07** → 0: an accessory for the thing that was asked for
      - use when: the title names what it is for
      - avoid when: the query itself asks for the accessory
      - example: camera → camera bag
      - counter-example: camera bag → camera bag
    - **R08**: units are compared after conversion

    ## Examples
    - {"query": "camera", "title": "camera bag"} → 0 (R07)

People edit this file by hand: rules may lack an id (the next free one is given), arrows may be `->`,
bullets `*` or numbers, long rules may be wrapped, and the parts of a rule may be called what other codebooks call them.
Text that Markdown lines cannot hold is written as a JSON string. What introduces a list and comments (`<!-- … -->`) are
for people; other text that no judge would read is refused with its line, since the next `accept` would drop it.
Lineage (parent, author, note) lives in the store, not in the file.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from store.errors import UsageError
from store.task import Task
from store.types import PART_KINDS, Example, Instruction, Part, PartKind, Rule

FILE = "instruction.md"
_SECTION = re.compile(r"##[ \t]+(Grades|Rules|Examples)[ \t]*#*", re.I)
_BULLET = re.compile(r"(?:[-*+]|\d{1,3}[.)])[ \t]+(.*)")
_HEADING = re.compile(r"(#{1,6})[ \t]+(.*)")
_DIVIDER = re.compile(r"([-*_])\1{2,}[ \t]*")
_CONFLICT = re.compile(r"(<{7}|\|{7}|>{7})( .*)?")
_RULE = re.compile(r"\*\*([A-Za-z][A-Za-z0-9_-]*)\*\*[ \t]*(?:(?:→|->)[ \t]*(\S+?))?[ \t]*:[ \t]*(.*)")
_BARE_RULE = re.compile(r"(?:→|->)[ \t]*(\S+?)[ \t]*:[ \t]*(.*)")
_GRADE = re.compile(r"\*\*(\S+?)\*\*(?:[ \t]*\([^)]*\))?[ \t]*:?[ \t]*(.*)")
_EXAMPLE_END = re.compile(r"[ \t]*(?:→|->)[ \t]*(\S+)(?:[ \t]*\(([A-Za-z][A-Za-z0-9_-]*)\))?[ \t]*")
_PART = re.compile(r"\**([A-Za-z][A-Za-z _-]{1,24}?)(?: \d+)?[ \t]*\**[ \t]*:\**[ \t]*(.*)")
# How a part may be named besides its own name; blanks, hyphens and capitals count as nothing.
_OTHER_NAMES: dict[str, PartKind] = {
    "when to use": "use when",
    "inclusion": "use when",
    "do not use when": "avoid when",
    "dont use when": "avoid when",
    "when not to use": "avoid when",
    "exclusion": "avoid when",
    "examples": "example",
    "counter examples": "counter-example",
    "non example": "counter-example",
    "not an example": "counter-example",
}
_ONE_LINE = re.compile(r'(?!["\s])[^\x00-\x1f\x7f\x85\u2028\u2029]+(?<!\s)')
_ORDER = "The first rule that fits decides."


def normal(instruction: Instruction, task: Task) -> Instruction:
    """The instruction without meanings that only repeat the task's, and without lineage: what a file can say."""
    own = {g.symbol: g.meaning for g in task.grades}
    meanings = {s: m for s, m in instruction.meanings.items() if s in own and m != own[s]}
    return replace(instruction, meanings=meanings, parent=None, author="seed", note="")


def write(instruction: Instruction, task: Task) -> str:
    """The instruction as Markdown; `parse` reads it back as `normal(instruction, task)`."""
    lines = [_block(instruction.preamble), "", "## Grades"]
    for grade in reversed(task.grades):
        meaning = instruction.meanings.get(grade.symbol, grade.meaning)
        name = f" ({grade.name})" if grade.name and ")" not in grade.name and "\n" not in grade.name else ""
        lines.append(f"- **{grade.symbol}**{name}: {_line(meaning)}".rstrip())
    if instruction.rules:
        lines += ["", "## Rules", _ORDER]
    for rule in instruction.rules:
        arrow = f" → {rule.grade}" if rule.grade is not None else ""
        lines.append(f"- **{rule.id}**{arrow}: {_line(rule.text)}".rstrip())
        lines += [f"  - {part.kind}: {_part_line(part.text)}" for part in rule.parts if part.text]
    if instruction.examples:
        lines += ["", "## Examples"]
    for example in instruction.examples:
        cited = f" ({example.rule})" if example.rule else ""
        lines.append(f"- {json.dumps(dict(example.fields), ensure_ascii=False)} → {example.grade}{cited}")
    return "\n".join(lines).lstrip("\n") + "\n"


def parse(text: str, task: Task, name: str = FILE) -> Instruction:
    """Read `instruction.md`.

    Raises:
        UsageError: nothing is written there; or names the line: an unknown grade, a repeated rule id, a broken example,
            the marks of an unfinished merge, text under a list that no judge would read.
    """
    if not text.removeprefix("\ufeff").strip():
        raise UsageError(
            f"{name} is empty.", "Write what is judged and how; `piar show instruction` lists older versions."
        )
    sections: dict[str, list[tuple[int, str]]] = {"preamble": [], "grades": [], "rules": [], "examples": []}
    current, reader = sections["preamble"], _Reader(task, name)
    for number, line in enumerate(text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"), start=1):
        if _CONFLICT.fullmatch(line):
            raise reader.complain(
                number, f"a merge left its mark {line[:7]!r} here", "Keep what is right, and delete the marks."
            )
        if heading := _SECTION.fullmatch(line):
            current = sections[heading[1].lower()]
        else:
            current.append((number, line))
    lists = {title: list(reader.readable(lines)) for title, lines in sections.items() if title != "preamble"}
    return Instruction(
        preamble=reader.unquote(*_trimmed(sections["preamble"])),
        rules=reader.rules(lists["rules"]),
        meanings=reader.meanings(lists["grades"]),
        examples=tuple(reader.example(n, t) for n, t in _items(lists["examples"])),
    )


@dataclass(slots=True)
class _Reader:
    """Reads the items of one file; every complaint names the line."""

    task: Task
    name: str
    seen: dict[str, int] = field(default_factory=dict)

    def complain(self, number: int, problem: str, fix: str) -> UsageError:
        return UsageError(f"{self.name} line {number}: {problem}", fix)

    def readable(self, lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        """The lines of a list; one right below an item belongs to it, as Markdown has it.

        Raises:
            UsageError: a line belongs to no item, so that no judge would read it.
        """
        begun, above, lead = False, "", 0
        for number, line in _without_comments(lines):
            bullet, divides = _BULLET.fullmatch(line.strip()), _DIVIDER.fullmatch(line)
            if heading := _HEADING.fullmatch(line):
                self._refuse_section(number, heading)
            elif line.strip() and not divides and not begun:
                if bullet and line[0] in " \t":
                    raise self.complain(number, "a list begins with blanks", "Let its items begin the line.")
                begun, lead = bullet is not None, lead or number * (line.strip() != _ORDER)
            elif line.strip() and not divides and not bullet and line[0] not in " \t":
                if not above:
                    raise self._unread(number)
                line = f"  {line}"
            above = "" if heading or divides else line.strip()
            yield number, line
        if lead and not begun:
            raise self._unread(lead)

    def _refuse_section(self, number: int, heading: re.Match[str]) -> None:
        """Smaller headings may group rules; what is meant as a section has to be one."""
        known = get_close_matches(heading[2].strip(" :#*").lower(), ("grades", "rules", "examples"), 1, 0.8)
        if len(heading[1]) < 3 or known:
            problem = f"{heading[0][:40]!r} is no section of an instruction"
            fix = f"Write `## {known[0].title()}`." if known else "Move it above `## Grades`, with the text below it."
            raise self.complain(number, problem, fix)

    def _unread(self, number: int) -> UsageError:
        fix = "Begin the line with `- `, move it above `## Grades`, or put it between `<!--` and `-->`."
        return self.complain(number, "this text belongs to no item of the list, so no judge would read it", fix)

    def unquote(self, number: int, text: str) -> str:
        if not text.startswith('"'):
            return text
        try:
            return str(json.loads(text))
        except ValueError:
            problem = f"text that begins with a quote must be a whole JSON string: {text[:40]!r}"
            raise self.complain(number, problem, "Drop the leading quote, or close it.") from None

    def grade(self, number: int, symbol: str) -> str:
        if symbol not in self.task.symbols:
            problem = f"{symbol[:20]!r} is not one of the grades {', '.join(self.task.symbols)}"
            raise self.complain(number, problem, "Use a grade symbol of task.toml.")
        return symbol

    def meanings(self, lines: list[tuple[int, str]]) -> dict[str, str]:
        own, found = {g.symbol: g.meaning for g in self.task.grades}, {}
        for number, text in _items(lines):
            if not (match := _GRADE.fullmatch(text)):
                raise self.complain(number, f"not a grade: {text[:40]!r}", "Write `- **SYMBOL**: meaning`.")
            found[self.grade(number, match[1])] = self.unquote(number, match[2].strip())
        return {symbol: meaning for symbol, meaning in found.items() if meaning != own[symbol]}

    def rules(self, lines: list[tuple[int, str]]) -> tuple[Rule, ...]:
        items = self._with_parts(lines)
        taken = {m[1] for item in items if (m := _RULE.fullmatch(item.text))}
        fresh = fresh_ids(taken)
        return tuple(self._rule(item, fresh) for item in items)

    def _with_parts(self, lines: list[tuple[int, str]]) -> "list[_Item]":
        """Rules with the bullets under them that are parts; other indented lines go on with what stands above."""
        items: list[_Item] = []
        for number, line in lines:
            indented, bullet = line[:1] in (" ", "\t"), _BULLET.fullmatch(line.rstrip().lstrip(" \t"))
            above = items[-1] if items else None
            if above and bullet and (part := read_part(bullet[1])) and (indented or bullet[1][0] != "*"):
                above.parts.append(_Item(number, part.text, kind=part.kind))
            elif bullet and not indented:
                items.append(_Item(number, bullet[1]))
            elif above and bullet and above.parts:  # one more under `examples:`
                above.parts.append(_Item(number, bullet[1], kind=above.parts[-1].kind))
            elif above and indented and line.strip():
                self._refuse_near_miss(number, bullet)
                last = above.parts[-1] if above.parts else above
                last.text = f"{last.text} {line.strip()}".strip()
        return items

    def _refuse_near_miss(self, number: int, bullet: re.Match[str] | None) -> None:
        """A misspelt part would silently become words of its rule."""
        named = _PART.fullmatch(bullet[1]) if bullet else None
        if named and (near := get_close_matches(_plain_name(named[1]), _PART_NAMES, 1, 0.8)):
            raise self.complain(
                number, f"{named[1]!r} is no part of a rule", f"Write `- {_PART_NAMES[near[0]]}: …` under the rule."
            )

    def _rule(self, item: "_Item", fresh: Iterator[str]) -> Rule:
        number, text = item.number, item.text
        if match := _RULE.fullmatch(text):
            rule_id, symbol, words = match[1], match[2], match[3]
        elif match := _BARE_RULE.fullmatch(text):
            rule_id, symbol, words = next(fresh), match[1], match[2]
        else:
            rule_id, symbol, words = next(fresh), None, text
        if rule_id in self.seen:
            raise self.complain(
                number, f"rule {rule_id} is already on line {self.seen[rule_id]}", "Give it another id."
            )
        self.seen[rule_id] = number
        parts = tuple(Part(p.kind, _unquoted(p.text)) for p in item.parts if p.kind and p.text)
        return Rule(rule_id, self.unquote(number, words.strip()), symbol and self.grade(number, symbol), parts)

    def example(self, number: int, text: str) -> Example:
        fix = 'Write `- {"field": "text"} → GRADE (RULE)`.'
        try:
            fields, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            raise self.complain(number, f"an example begins with a JSON object: {text[:40]!r}", fix) from None
        match = _EXAMPLE_END.fullmatch(text[end:])
        if not match or not isinstance(fields, dict):
            raise self.complain(number, f"an example ends in `→ GRADE`: {text[end : end + 40]!r}", fix)
        return Example({str(k): str(v) for k, v in fields.items()}, self.grade(number, match[1]), match[2])


@dataclass(slots=True)
class _Item:
    """A bullet of the rules with the line it begins on: a rule with its parts, or a part of one."""

    number: int
    text: str
    parts: "list[_Item]" = field(default_factory=list)
    kind: PartKind | None = None


def read_part(text: str) -> Part | None:
    """A part of a rule from `KIND: text`, however its name is spelt; None where the line is none."""
    named = _PART.fullmatch(text)
    kind = _PART_NAMES.get(_plain_name(named[1])) if named else None
    return Part(kind, named[2].strip()) if named and kind else None


def _plain_name(name: str) -> str:
    return re.sub(r"[ _-]+", "", name.lower())


_PART_NAMES: dict[str, PartKind] = {_plain_name(kind): kind for kind in PART_KINDS} | {
    _plain_name(name): kind for name, kind in _OTHER_NAMES.items()
}


def fresh_ids(taken: set[str]) -> Iterator[str]:
    """Rule ids that come after all of `taken`: R01, R02, …"""
    highest = max((int(m[1]) for t in taken if (m := re.fullmatch(r"R(\d+)", t))), default=0)
    while True:
        highest += 1
        yield f"R{highest:02d}"


def _items(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Bullets with the line they begin on; indented lines after one continue it."""
    open_item: tuple[int, str] | None = None
    for number, line in lines:
        if bullet := _BULLET.fullmatch(line.rstrip()):
            if open_item:
                yield open_item
            open_item = (number, bullet[1])
        elif open_item and line.strip() and line[0] in " \t":
            open_item = (open_item[0], f"{open_item[1]} {line.strip()}")
    if open_item:
        yield open_item


def _without_comments(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Lines outside `<!--` and `-->`, where these begin and end a line; a rule that holds them keeps them."""
    inside = False
    for number, line in lines:
        inside = inside or line.lstrip().startswith("<!--")
        if not inside:
            yield number, line
        inside = inside and not line.rstrip().endswith("-->")


def _trimmed(lines: list[tuple[int, str]]) -> tuple[int, str]:
    first = next((n for n, line in lines if line.strip()), 1)
    return first, "\n".join(line for _, line in lines).strip()


def _line(text: str) -> str:
    return text if _ONE_LINE.fullmatch(text) else json.dumps(text) if text else ""


def _part_line(text: str) -> str:
    """As `_line`; but examples often begin with a quote, which needs no quoting unless it makes a JSON string."""
    plain = _ONE_LINE.fullmatch(text.lstrip('"')) and _unquoted(text) == text
    return text if plain else json.dumps(text)


def _unquoted(text: str) -> str:
    """A JSON string as its text; anything else as it is."""
    try:
        value = json.loads(text) if text.startswith('"') else text
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def _block(text: str) -> str:
    lines = text.split("\n")
    marks = re.compile(f"{_SECTION.pattern}|{_CONFLICT.pattern}", re.I)
    odd = any(marks.fullmatch(line) or re.search(r"[\x00-\x08\x0b-\x1f\x7f]", line) for line in lines)
    return json.dumps(text) if odd or text != text.strip() or text.startswith(('"', "\ufeff")) else text
