"""Finding the rules in a prompt: bullets, numbered lists, tables, JSON or prose come out as the same rules.

Only the text is read. A rule is whatever names a grade and says when; sentences that cannot be
followed are kept aside, so that a person can be told about them.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from piar.offline.grammar import parse
from piar.offline.predicates import ALWAYS, Predicate
from piar.offline.words import KINDS, Kind, define
from store.task import Step


@dataclass(frozen=True)
class Policy:
    """A rule as it was found: its id and grade where it has them, and its words."""

    id: str
    grade: str | None
    text: str


@dataclass(frozen=True)
class Clause:
    """A rule that can be followed. The rule without an id is cited as none."""

    policy: Policy
    grade: str
    condition: Predicate


@dataclass(frozen=True)
class Rulebook:
    """The rules of a prompt, in order, as far as they can be followed, and the answer's format.

    Attributes:
        clauses: the rules that can be followed; the first that fits decides.
        unfollowed: rules and sentences with a verdict that cannot be followed.
        grades: grade symbols, ascending as far as the prompt tells.
        steps: sub-judgements that the answer must hold.
    """

    clauses: tuple[Clause, ...]
    unfollowed: tuple[Policy, ...]
    grades: tuple[str, ...]
    steps: tuple[Step, ...] = ()


@dataclass
class _Found:
    """Sections of a prompt."""

    body: str = ""
    grades: str = ""
    answer: str = ""
    names: dict[str, str] = field(default_factory=dict)  # lower-case name -> symbol


def read_rulebook(prompt: str, symbols: Sequence[str], fields: tuple[str, ...]) -> Rulebook:
    """Read the rules of a judging prompt.

    Args:
        prompt: the text that all samples share.
        symbols: the grades asked for; read from the prompt's list of grades when empty.
        fields: names of the sample's fields.
    """
    found = _sections(prompt)
    listed = re.findall(r"^\s*[-*]\s*`?(\S{1,12}?)`?(?: \(([^)]*)\))?(?::|$)", found.grades, re.M)
    grades = tuple(symbols) or tuple(reversed([symbol for symbol, _ in listed]))
    found.names = {name.lower(): symbol for symbol, name in listed if name and symbol in grades}
    policies = list(_policies(found.body, grades))
    kinds = defined_kinds(policy.text for policy in policies)
    clauses: list[Clause] = []
    unfollowed: list[Policy] = []
    for policy in policies:
        made = follow(policy, grades, found.names, fields, kinds)
        clauses += made
        if not made and (policy.grade or _verdict(policy.text, grades, found.names)[0]):
            unfollowed.append(policy)
    return Rulebook(tuple(clauses), tuple(unfollowed), grades, _steps(found.answer))


def follow(
    policy: Policy, grades: tuple[str, ...], names: Mapping[str, str], fields: tuple[str, ...], kinds: tuple[Kind, ...]
) -> list[Clause]:
    """What can be followed of a policy: one clause of a rule with an id, every sentence of running prose.

    Args:
        policy: the rule as it was found.
        grades: grade symbols.
        names: lower-case name of a grade -> its symbol.
        fields: names of the sample's fields.
        kinds: known classes of words.
    """
    read = (_clause(part, grades, names, fields, kinds) for part in _parts(policy))
    made = [replace(clause, policy=policy) for clause in read if clause]
    return made[:1] if policy.id else made


def defined_kinds(texts: Iterable[str]) -> tuple[Kind, ...]:
    """The known classes of words, and those that a guideline defines."""
    return KINDS + tuple(kind for text in texts if (kind := _definition(text)))


# -- sections -----------------------------------------------------------------------------------

_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$|^\*\*([A-Z][\w ]{2,30}):?\*\*:?$", re.M)
_ANSWER_FORMAT = re.compile(
    r"^.*\b(?:answer|reply|respond) (?:in|with) (?:exactly|only|the following|these)\b", re.M | re.I
)


def _sections(prompt: str) -> _Found:
    found = _Found()
    places = [(m.start(), m.end(), (m[1] or m[2]).lower()) for m in _HEADING.finditer(prompt)]
    ends = [*(start for start, _, _ in places[1:]), len(prompt)][: len(places)]
    found.body = prompt[: places[0][0]] if places else prompt
    for (_, begin, title), end in zip(places, ends, strict=True):
        text = prompt[begin:end]
        if re.search(r"\b(?:answer|output|format|reply)\b", title):
            found.answer += text
        elif re.search(r"\b(?:grades?|labels?|scale|scores?)\b", title):
            found.grades += text
        elif "example" not in title:
            found.body += "\n\n" + text
    cut = _ANSWER_FORMAT.search(found.body)
    if cut and not found.answer:
        found.body, found.answer = found.body[: cut.start()], found.body[cut.start() :]
    return found


def _steps(answer: str) -> tuple[Step, ...]:
    """The sub-judgements between `evidence:` and `rules:` of the answer's format."""
    inside = re.search(r"^evidence:.*?$(.*?)^rules:", answer, re.M | re.S)
    steps = []
    for name, asks in re.findall(r"^([a-z][a-z0-9_]{0,31}):[ ]?(.*)$", inside[1] if inside else "", re.M):
        choices = re.search(r"\(([^()]*\|[^()]*)\)\s*$", asks)
        listed = tuple(choice.strip() for choice in choices[1].split("|")) if choices else ()
        steps.append(Step(name=name, asks=asks[: choices.start()].strip() if choices else asks, choices=listed))
    return tuple(steps)


# -- rules in any layout --------------------------------------------------------------------------

_ID = re.compile(r"^[\s*`\[(]*([A-Za-z]{1,8}[-_]?\d{1,4}[a-z]?)[*`\])]*(?:\s*[.:)–—-](?!>)\s*|\s+(?=->|→|=>)|\s*$)")
_ITEM = re.compile(r"^\s*(?:[-*•+]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+")
_SENTENCE = re.compile(r'(?<=[.;!?])["”)]?\s+(?=[A-Z"“(0-9])')
_KEYS = {"id": ("id", "rule_id", "name"), "grade": ("grade", "label", "verdict", "score", "then"),
         "text": ("text", "rule", "if", "when", "condition", "policy")}  # fmt: skip


def _policies(body: str, grades: Sequence[str]) -> Iterator[Policy]:
    listed, body = _from_json(body)
    yield from listed
    header: list[str] = []
    for block, kind in _blocks(body):
        if kind == "row":
            cells = [cell.strip() for cell in block.strip().strip("|").split("|")]
            if not header:
                header = [cell.lower() for cell in cells]
            elif not all(re.fullmatch(r":?-*:?", cell) for cell in cells):
                yield _from_record(dict(zip(header, cells, strict=False)))
        elif kind == "item":
            yield _from_line(block, grades)
        else:
            yield from (_from_line(part, grades) for part in _SENTENCE.split(block))


def _blocks(body: str) -> Iterator[tuple[str, str]]:
    """Table rows, list items (with their continuation lines) and paragraphs."""
    kind, lines = "", list[str]()
    for line in [*body.splitlines(), ""]:
        starts = "row" if line.lstrip().startswith("|") else "item" if _ITEM.match(line) else ""
        if lines and (starts or not line.strip()):
            yield " ".join(lines), kind
            lines = []
        if starts == "row":
            yield line, "row"
        elif line.strip():
            kind = starts if not lines else kind
            lines.append(_ITEM.sub("", line, count=1).strip() if starts else line.strip())


def _from_json(body: str) -> tuple[list[Policy], str]:
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
            policies = [_from_record({str(k).lower(): str(v) for k, v in r.items() if v is not None}) for r in records]
            return policies, body[: found.start()] + "\n\n" + body[end:]
    return [], body


def _from_record(record: Mapping[str, str]) -> Policy:
    values = {part: next((record[k] for k in keys if record.get(k)), "") for part, keys in _KEYS.items()}
    return Policy(values["id"].strip("*` "), values["grade"].strip("*` ") or None, values["text"])


def _from_line(line: str, grades: Sequence[str]) -> Policy:
    found = _ID.match(line)
    rule_id, rest = (found[1], line[found.end() :]) if found else ("", line)
    arrow = re.match(r"\s*(?:->|→|=>)\s*(\S{1,12}?)\s*:\s+", rest)
    if arrow and arrow[1] in grades:
        return Policy(rule_id, arrow[1], rest[arrow.end() :])
    return Policy(rule_id, None, rest)


def _parts(policy: Policy) -> Iterator[Policy]:
    """The whole rule, then what stands after a label (`Accessory: …`), then its single sentences."""
    sentences = _SENTENCE.split(policy.text)
    for text in (policy.text, *(sentences if len(sentences) > 1 else ())):
        yield Policy(policy.id, policy.grade, text)
        label = re.match(r"^[^:\"§]{2,60}:\s+", text)
        if label:
            yield Policy(policy.id, policy.grade, text[label.end() :])


# -- one rule -------------------------------------------------------------------------------------

_OTHERWISE = re.compile(
    r"^(?:(?:if |when(?:ever)? )?otherwise|else|in (?:all|any|every) other cases?|by default"
    r"|(?:everything|anything|all|any|the) (?:else|other|others|rest)(?: (?:pairs?|cases?|products?|results?|items?))?"
    r"|if no (?:other )?rule (?:fits|applies|matches)|if nothing else (?:fits|applies))\b[ ,:.]*",
    re.I,
)
_FILLER = (
    r"(?:must|should|shall|will|is|are|gets?|receives?|deserves?|be|to|give|assign|use|choose|answer|graded?|scored?|rated?|"
    r"mark(?:ed)?|label(?:led)?|judged?|verdict|rating|score|as|of|with|it|its|this|the|an?|pair|product|result|item|sample|"
    r"title|then|means?|:|=|->|→|=>)"
)
_STRONG = re.compile(r"grad|scor|rat|label|mark|giv|assign|answer|judg|deserv|get|receiv|verdict|choose|->|→|=>", re.I)


@lru_cache(maxsize=64)
def _verdict_patterns(grades: tuple[str, ...], names: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    symbols = "|".join(sorted(map(re.escape, (*grades, *names)), key=len, reverse=True))
    said = rf"[\"'`*]*\b({symbols})\b[\"'`*]*(?: \([\w -]+\))?(?! *(?:words?|characters?|%|percent|of\b|or\b))"
    within = re.compile(rf",?[\s>=→-]*\b(?:{_FILLER}\s*\b\s*)+[\s:=>→-]*{said}", re.I)
    leading = re.compile(
        rf"^(?:(?:grade|score|label|give|assign|rate|mark)\s+(?:it\s+)?)?{said}\s*(?:[:–—,-]+>?|if\b|when\b|for\b)",
        re.I,
    )
    return within, leading


def _verdict(text: str, grades: tuple[str, ...], names: Mapping[str, str]) -> tuple[str | None, str]:
    """The grade that a sentence leads to, and the sentence without it."""
    within, leading = _verdict_patterns(grades, tuple(names))
    symbols = {symbol.lower(): symbol for symbol in grades} | dict(names)
    found = leading.match(text)
    if found:
        return symbols[found[1].lower()], text[found.end() :]
    for found in within.finditer(text):
        if _STRONG.search(found[0]) or found[1].lower() in names:
            return symbols[found[1].lower()], (text[: found.start()] + " " + text[found.end() :]).strip()
    return None, text


def _clause(
    policy: Policy, grades: tuple[str, ...], names: Mapping[str, str], fields: tuple[str, ...], kinds: tuple[Kind, ...]
) -> Clause | None:
    said, condition = _verdict(policy.text, grades, names)
    grade = policy.grade if policy.grade in grades else said
    if grade is None:
        return None
    rest = condition.strip(" .,;:")
    otherwise = _OTHERWISE.match(rest)
    if otherwise:
        rest = rest[otherwise.end() :]
        if not rest:
            return Clause(policy, grade, ALWAYS)
    predicate = parse(rest, fields, kinds) if rest else None
    return None if predicate is None else Clause(policy, grade, predicate)


_DEFINITION = re.compile(
    r"^(?:by |the )?([a-z][a-z -]{1,30}?)(?: words| terms| names)?\s*(?::| are| is| means?| include| we mean)+"
    r"(?: one of| any of| words such as| such as)?:?\s*(?=[\"“])",
    re.I,
)


def _definition(text: str) -> Kind | None:
    """A class of words that a guideline defines: `Brands are "Arvo", "Belling" and "Cando".`"""
    found = _DEFINITION.match(text.strip())
    if not found:
        return None
    rest = text.strip()[found.end() :].replace("“", '"').replace("”", '"')
    terms = re.findall(r'"([^"]{1,60})"', rest)
    if re.sub(r'"[^"]*"|\b(?:and|or)\b|[\s,.;]', "", rest):
        return None
    name = found[1].lower().strip()
    return define(name[:-3] + "y" if name.endswith("ies") else name.removesuffix("s"), terms)
