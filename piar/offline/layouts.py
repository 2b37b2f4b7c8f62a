"""Finding the rules in a text: bullets, numbered lists, tables, JSON or prose come out as the same rules.

For guidelines that are imported, and for the endpoint, which sees nothing but text.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from piar.instructions.markdown import read_part
from piar.offline.rule_reader import SENTENCE
from store.types import Part, Rule


@dataclass(frozen=True)
class Layout:
    """What a text holds.

    Attributes:
        rules: rules and sentences, in order; what has no id has an empty one.
        grades: the listed grades as symbol and name, in the order listed.
        answer: the part that says how to answer.
    """

    rules: tuple[Rule, ...]
    grades: tuple[tuple[str, str], ...]
    answer: str


def read_layout(text: str, symbols: Sequence[str] = ()) -> Layout:
    """Find the rules of a text.

    Args:
        symbols: grades that an arrow may point to; those that the text lists when empty.
    """
    body, scale, answer = _sections(text)
    grades = tuple(re.findall(r"^\s*[-*]\s*`?(\S{1,12}?)`?(?: \(([^)]*)\))?(?::|$)", scale, re.M))
    return Layout(tuple(find_rules(body, symbols or [symbol for symbol, _ in grades])), grades, answer)


# -- sections -----------------------------------------------------------------------------------

_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$|^\*\*([A-Z][\w ]{2,30}):?\*\*:?$", re.M)
_ANSWER_FORMAT = re.compile(
    r"^.*\b(?:answer|reply|respond) (?:in|with) (?:exactly|only|the following|these)\b", re.M | re.I
)


def _sections(text: str) -> tuple[str, str, str]:
    """The parts that may hold rules, that list the grades, and that say how to answer."""
    places = [(m.start(), m.end(), (m[1] or m[2]).lower()) for m in _HEADING.finditer(text)]
    ends = [*(start for start, _, _ in places[1:]), len(text)][: len(places)]
    body, grades, answer = text[: places[0][0]] if places else text, "", ""
    for (_, begin, title), end in zip(places, ends, strict=True):
        part = text[begin:end]
        if re.search(r"\b(?:answer|output|format|reply)\b", title):
            answer += part
        elif re.search(r"\b(?:grades?|labels?|scale|scores?)\b", title):
            grades += part
        elif "example" not in title:
            body += "\n\n" + part
    cut = _ANSWER_FORMAT.search(body)
    if cut and not answer:
        body, answer = body[: cut.start()], body[cut.start() :]
    return body, grades, answer


# -- rules in any layout --------------------------------------------------------------------------

_ID = re.compile(r"^[\s*`\[(]*([A-Za-z]{1,8}[-_]?\d{1,4}[a-z]?)[*`\])]*(?:\s*[.:)–—-](?!>)\s*|\s+(?=->|→|=>)|\s*$)")
_ITEM = re.compile(r"^\s*(?:[-*•+]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+")
_KEYS = {
    "id": ("id", "rule_id", "name"),
    "grade": ("grade", "label", "verdict", "score", "then"),
    "text": ("text", "rule", "if", "when", "condition", "policy"),
}


def find_rules(body: str, grades: Sequence[str]) -> list[Rule]:
    """The rules and sentences of a text without sections, in order; `grades` are those that an arrow may point to."""
    found, body = _from_json(body)
    header: list[str] = []
    for block, kind in _blocks(body):
        if kind == "row":
            cells = [cell.strip() for cell in block.strip().strip("|").split("|")]
            if not header:
                header = [cell.lower() for cell in cells]
            elif not all(re.fullmatch(r":?-*:?", cell) for cell in cells):
                found.append(_from_record(dict(zip(header, cells, strict=False))))
        elif kind == "item":
            found.append(_from_line(block, grades))
        elif kind == "part" and found and (part := part_below(block)):
            found[-1] = replace(found[-1], parts=(*found[-1].parts, part))
        else:
            found += [_from_line(sentence, grades) for sentence in SENTENCE.split(block)]
    return found


def part_below(line: str) -> Part | None:
    """An indented line that is a part of the rule above it, as `Rule.words` and `instruction.md` write them."""
    return read_part(_ITEM.sub("", line, count=1).strip()) if line[:1] in (" ", "\t") else None


def _blocks(body: str) -> Iterator[tuple[str, str]]:
    """Table rows, list items (with their continuation lines), parts of rules below them, and paragraphs."""
    kind, lines = "", list[str]()
    for line in [*body.splitlines(), ""]:
        part = bool(kind) and part_below(line) is not None
        starts = "part" if part else "row" if line.lstrip().startswith("|") else "item" if _ITEM.match(line) else ""
        if lines and (starts or not line.strip()):
            yield " ".join(lines), kind
            lines = []
        if starts == "row":
            yield line, "row"
        elif starts == "part":
            kind, lines = "part", [line.rstrip()]
        elif line.strip():
            kind = starts if not lines else kind
            lines.append(_ITEM.sub("", line, count=1).strip() if starts else line.strip())


def _from_json(body: str) -> tuple[list[Rule], str]:
    """Rules written as a JSON list of objects, and the body without them."""
    decoder = json.JSONDecoder()
    for found in re.finditer(r"[\[{]", body):
        try:
            value, end = decoder.raw_decode(body, found.start())
        except (ValueError, RecursionError):
            continue
        rules = next((v for v in value.values() if isinstance(v, list)), []) if isinstance(value, dict) else value
        records = [rule for rule in rules if isinstance(rule, dict)]
        if records:
            listed = [_from_record({str(k).lower(): str(v) for k, v in r.items() if v is not None}) for r in records]
            return listed, body[: found.start()] + "\n\n" + body[end:]
    return [], body


def _from_record(record: Mapping[str, str]) -> Rule:
    values = {part: next((record[k] for k in keys if record.get(k)), "") for part, keys in _KEYS.items()}
    return Rule(values["id"].strip("*` "), values["text"], values["grade"].strip("*` ") or None)


def _from_line(line: str, grades: Sequence[str]) -> Rule:
    found = _ID.match(line)
    rule_id, rest = (found[1], line[found.end() :]) if found else ("", line)
    arrow = re.match(r"\s*(?:->|→|=>)\s*(\S{1,12}?)\s*:\s+", rest)
    if arrow and arrow[1] in grades:
        return Rule(rule_id, rest[arrow.end() :], arrow[1])
    return Rule(rule_id, rest)
