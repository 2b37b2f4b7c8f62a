"""Where the grade stands in what a model wrote: after its thinking, in a code fence, in JSON, between sentences.

A model that was asked for a format follows it mostly. What it wrote besides is read over where the answer is
unambiguous; an answer that names two grades names none.
"""

import ast
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_CHARACTERS = 200_000
MAX_PROSE = 20_000  # characters in which an answer between sentences is looked for
MAX_OBJECTS = 50  # opening braces that are tried in an answer

# How models mark thinking that stands in the answer's text: where it begins, where it ends.
THINKING: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[think]", "[/think]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
    ("analysis", "assistantfinal"),  # the same with its control tokens left out
)

_DECORATION = " \t\r\n\"'`*_.,:;!()[]{}<>#$“”‘’„«»「」『』【】（）：。！"
_HEAD = r"[ \t*_#>`\"'“-]*"
_VALUE = r"(?P<value>[^:：=\n]{1,200})"
_LEAD = re.compile(
    rf"^{_HEAD}(?:(?:the|my|final|overall|relevance)\s+)*(?:grade|answer|verdict|label|score|rating)"
    rf"(?:\s+is\b)?[ \t*_`\"'”]*[:：=]?{_VALUE}$",
    re.M | re.I,
)
_ANY_LEAD = re.compile(
    rf"^{_HEAD}(?!evidence|rules)[^\W\d][^:：=\n]{{0,40}}[:：=]{_VALUE}$", re.M | re.I
)  # any language
_LINE = re.compile(r"^(?P<value>.{1,200})$", re.M)
_BOXED = re.compile(r"\\boxed\{(?:\\text\{)?(?P<value>[^{}\n]{1,80})\}")
_TAGGED = re.compile(r"<(grade|answer|verdict|label|score)>(?P<value>[^<\n]{1,80})</\1>", re.I)
_FENCE = re.compile(r"\s*```[\w-]*[ \t]*\n")
_GLOSS = re.compile(r"\s*\(.*\)\s*|\s+[-–—]\s.*|:\s.*", re.S)
_INK = re.compile(r"\S")
_CLOSING = re.compile("|".join(re.escape(closing) for _, closing in THINKING), re.I)
_QUOTES = str.maketrans("“”„‟", '""""')


class Unreadable(ValueError):
    """No grade can be read; the message is the reason shown to people."""


@dataclass(frozen=True, slots=True)
class Found:
    """The grade of an answer.

    Attributes:
        start, end: the characters of the text that spell it.
        data: the JSON object it stands in, if it is one.
    """

    grade: str
    start: int
    end: int
    data: Mapping[str, Any] | None = None


def find_grade(text: str, symbols: Sequence[str]) -> Found:
    """The grade that an answer names, and where.

    Args:
        symbols: the grades that may be named.

    Raises:
        Unreadable: none, or several.
    """
    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"the answer has {len(text):,} characters, at most {MAX_CHARACTERS:,} are read")
    start = _after_thinking(text, 0)
    if found := _first_line(text, start, symbols, whole=True):
        return found
    # Where a template wrote the opening mark into the prompt, only the end of thinking is in the answer.
    closed = max((m.end() for m in _CLOSING.finditer(text, start)), default=start)
    if closed > start and not _begins_with_object(text, start, symbols):
        start = _after_thinking(text, closed)
    return _anywhere(text, start, symbols)


def symbol(text: str, symbols: Sequence[str]) -> str | None:
    """The grade that a text names and nothing else; as it is written first, so that `A*` is not `A` and `a` not `A`."""
    found = _spelled(text, 0, len(text), symbols)
    return found.grade if found else None


def _after_thinking(text: str, start: int) -> int:
    """Where the answer begins: after blanks, and after thinking that is opened there."""
    while True:
        start = _skip_blanks(text, start)
        head = text[start : start + 32].lower()
        closing = next((closing for opening, closing in THINKING if head.startswith(opening)), None)
        if closing is None:
            break
        end = re.compile(re.escape(closing), re.I).search(text, start)
        if end is None and closing == "assistantfinal":
            break  # the plain word
        if end is None:
            raise Unreadable(f"only thinking, which never ends: no {closing}")
        start = end.end()
    if start >= len(text):
        raise Unreadable("the answer is empty" if not text.strip() else "only thinking, and no answer after it")
    return start


def _skip_blanks(text: str, start: int) -> int:
    found = _INK.search(text, start)
    return found.start() if found else len(text)


# -- a grade as text ------------------------------------------------------------------------


def _first_line(text: str, start: int, symbols: Sequence[str], *, whole: bool) -> Found | None:
    """The first line as a grade; with `whole`, only where the rest of the format follows it or nothing does."""
    if fence := _FENCE.match(text, start):
        start = fence.end()
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    rest = text[end:].strip()
    if whole and rest and not rest.lower().startswith("evidence"):
        return None
    return _spelled(text, start, end, symbols)


def _spelled(text: str, start: int, end: int, symbols: Sequence[str]) -> Found | None:
    """The grade that `text[start:end]` is, but for blanks, quotes and emphasis around it."""
    for around in (None, _DECORATION):
        inner = text[start:end].lstrip(around)
        begin = end - len(inner)
        inner = inner.rstrip(around)
        if inner in symbols:
            return Found(inner, begin, begin + len(inner))
        if not inner:
            return None
    tight = text[start:end].strip()
    for said in (tight, inner):
        for same in (str.lower, _plain):
            if grade := next((s for s in symbols if same(s) == same(said)), None):
                begin = text.index(said, start)
                return Found(grade, begin, begin + len(said))
    return None


def _plain(text: str) -> str:
    """Full-width letters and digits of other scripts as ASCII, lower case; `3.0` as `3`."""
    folded = "".join(
        str(d) if (d := unicodedata.decimal(c, None)) is not None else c for c in unicodedata.normalize("NFKC", text)
    )
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", folded).lower()


def _glossed(text: str, start: int, end: int, symbols: Sequence[str]) -> Found | None:
    """A grade and then its meaning, as `3 (exact)` or `3 - exact`, where no other grade is named."""
    begin = end - len(text[start:end].lstrip(_DECORATION))
    for grade in sorted(symbols, key=len, reverse=True):
        after = begin + len(grade)
        if text[begin:after].lower() == grade.lower() and _GLOSS.fullmatch(text, after, end):
            others = (s for s in symbols if s != grade)
            named = any(re.search(rf"(?<!\w){re.escape(s)}(?!\w)", text[after:end], re.I) for s in others)
            return None if named else Found(grade, begin, after)
    return None


def _anywhere(text: str, start: int, symbols: Sequence[str]) -> Found:
    """The one grade that is named in the text from `start` on."""
    if text.startswith("{", start) or not (found := _first_line(text, start, symbols, whole=False)):
        named = [*_objects(text, start, symbols)] or [*_marked(text, start, symbols)]
        found = _one(named, text, start, symbols)
    return found


def _one(named: Sequence[Found], text: str, start: int, symbols: Sequence[str]) -> Found:
    grades = {found.grade for found in named}
    if len(grades) == 1:
        return named[-1]
    if grades:
        raise Unreadable(f"several grades are named: {', '.join(sorted(grades))}")
    line = text[start:].split("\n", 1)[0]
    if text.startswith("{", start):
        objects = list(_decoded(text, start))
        if not objects:
            raise Unreadable("starts like JSON but is not JSON")
        said = next((value for _, data in objects if (value := _value(data)) is not None), None)
        raise Unreadable(f"JSON without a known grade: {str(said)[:40]!r}")
    raise Unreadable(f"first line is not a grade symbol ({', '.join(symbols)}): {line[:40]!r}")


def _marked(text: str, start: int, symbols: Sequence[str]) -> list[Found]:
    """Grades that stand marked in prose; what says more plainly that it is the answer is looked for first."""
    if len(text) - start > MAX_PROSE:
        return []
    rest = text[start:]  # a line begins where the answer does
    for pattern, read in _MARKS:
        spans = [match.span("value") for match in pattern.finditer(rest)]
        if found := [grade for a, b in spans if (grade := read(text, start + a, start + b, symbols))]:
            return found
    return []


def _value_at(text: str, start: int, end: int, symbols: Sequence[str]) -> Found | None:
    return _spelled(text, start, end, symbols) or _glossed(text, start, end, symbols)


_Read = Callable[[str, int, int, Sequence[str]], Found | None]
_MARKS: tuple[tuple[re.Pattern[str], _Read], ...] = (
    (_BOXED, _spelled),
    (_TAGGED, _spelled),
    (_LEAD, _value_at),
    (_LINE, _spelled),
    (_ANY_LEAD, _value_at),
    (_LINE, _glossed),
)


# -- a grade in JSON ------------------------------------------------------------------------


def _begins_with_object(text: str, start: int, symbols: Sequence[str]) -> bool:
    at, data = next(_decoded(text, start), (-1, {}))
    return at == start and _in_object(text, at, data, symbols) is not None


def _objects(text: str, start: int, symbols: Sequence[str]) -> Iterator[Found]:
    whole = list(_decoded(text, start)) or list(_mended(text, start))
    for at, data in whole:
        if found := _in_object(text, at, data, symbols):
            yield found


def _in_object(text: str, at: int, data: Mapping[str, Any], symbols: Sequence[str]) -> Found | None:
    value = _value(data)
    said = f"{value:g}" if isinstance(value, float) else str(value)
    found = None if value is None else _value_at(said, 0, len(said), symbols)
    if found is None:
        return None
    # Where it stands matters for its probabilities alone: the first value under that name.
    before = r"[\"'“]?(?:grade|verdict)[\"'”]?\s*:\s*[\"'“]?\s*"
    place = re.compile(f"{before}(?={re.escape(found.grade)})", re.I).search(text, at)
    if place is None:
        return Found(found.grade, at, at, data)
    return Found(found.grade, place.end(), place.end() + len(found.grade), data)


def _value(data: Mapping[str, Any]) -> Any:
    """What an object says under `grade`, whatever its case; else under `verdict`."""
    named = {str(key).lower(): value for key, value in data.items()}
    return named.get("grade", named.get("verdict"))


_DECODER = json.JSONDecoder(strict=False)


def _decoded(text: str, start: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """JSON objects in the text, outermost first, and where they begin."""
    for _ in range(MAX_OBJECTS):
        start = text.find("{", start)
        if start < 0:
            return
        try:
            data, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            start += 1
            continue
        yield start, data
        start = end if _value(data) is not None else start + 1


def _mended(text: str, start: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The text between the outermost braces as an object, without trailing commas, or as Python writes it."""
    begin, end = text.find("{", start), text.rfind("}") + 1
    if begin < 0 or end <= begin or end - begin > MAX_PROSE:
        return
    inside = re.sub(r",(\s*[}\]])", r"\1", text[begin:end].translate(_QUOTES))
    for read in (_DECODER.decode, ast.literal_eval) if "\\" not in inside else (_DECODER.decode,):
        try:
            data = read(inside)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(data, dict):
            yield begin, data
            return
