"""The answer-first text format: one grammar, written and parsed here and nowhere else.

    2
    evidence: "wireless mouse", "for travel"
    product_type: accessory
    rules: R07
    verdict: 2

The first line is the grade symbol alone, so the first token is the answer. Then, each on one
line: `evidence` (JSON strings, verbatim parts of the sample), one line for each of the task's
steps, `rules` (ids) and `verdict` (the grade again, as the trace's own conclusion).

Sources: answer first, structured trace after it: arXiv 2602.10006; the grammar is ours.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from store.answer_text import MAX_CHARACTERS, Unreadable, find_grade, symbol
from store.task import Task
from store.types import Trace

_RULE_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_PLAIN = re.compile(r'(?!["\s])[^\x00-\x1f\x7f\x85\u2028\u2029]*(?<!\s)|')


@dataclass(frozen=True, slots=True)
class Parsed:
    """Either a trace, or the reason why there is none. `grade` may be known without a whole trace."""

    trace: Trace | None
    reason: str | None = None


def write_trace(trace: Trace, task: Task) -> str:
    """The trace as text, every step of the task present, no newline at the end."""
    lines = [trace.grade, "evidence: " + ", ".join(_json(span) for span in trace.evidence)]
    lines += [f"{step.name}: {_scalar(trace.steps.get(step.name, ''))}" for step in task.steps]
    lines += ["rules: " + ", ".join(trace.rules), f"verdict: {trace.verdict}"]
    return "\n".join(line.rstrip(" ") if line.endswith(": ") else line for line in lines)


def trace_sql(task: Task, *, grade: str, evidence: str, steps: str, rules: str) -> str:
    """`write_trace` as one SQL expression, for exports of many rows; the verdict is the grade.

    Equal to `write_trace` but for control characters, whose escapes have capital hex digits.

    Args:
        grade, evidence, steps, rules: SQL expressions: varchar, varchar[], varchar[] in the task's
            step order (null entries for unknown), varchar[].
    """
    gap = "[\\s\\x{1c}-\\x{1f}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}]"
    unsafe = f'^"|^{gap}|{gap}$|[\\x00-\\x1f\\x7f\\x{{85}}\\x{{2028}}\\x{{2029}}]'
    lines = [("evidence", f"array_to_string(list_transform({evidence}, lambda span: to_json(span)::varchar), ', ')")]
    for i, step in enumerate(task.steps, 1):
        text = f"coalesce({steps}[{i}], '')"
        lines.append((step.name, f"if(regexp_matches({text}, '{unsafe}'), to_json({text})::varchar, {text})"))
    lines += [("rules", f"array_to_string({rules}, ', ')"), ("verdict", grade)]
    body = " || ".join(f"rtrim(chr(10) || '{name}: ' || {value}, ' ')" for name, value in lines)
    return f"{grade} || {body}"


def parse_trace(text: str, task: Task, *, strict: bool = False) -> Parsed:
    """Read an answer.

    Args:
        text: what the judge wrote.
        strict: accept the grammar to the letter. Otherwise also accept what `store.answer_text` finds a grade in,
            other order or case, and missing fields.
    """
    if len(text) > MAX_CHARACTERS:
        return Parsed(None, f"the answer has {len(text):,} characters, at most {MAX_CHARACTERS:,} are read")
    try:
        return Parsed(_strict(text, task) if strict else _lenient(text, task))
    except Unreadable as bad:
        return Parsed(None, str(bad))


def trace_schema(task: Task, rule_ids: tuple[str, ...] = ()) -> dict[str, Any]:
    """JSON schema of an answer, grade first, for endpoints with structured output."""
    symbols = list(task.symbols)
    rules: dict[str, Any] = {"type": "string", **({"enum": list(rule_ids)} if rule_ids else {})}
    steps = {s.name: {"type": "string", **({"enum": list(s.choices)} if s.choices else {})} for s in task.steps}
    properties = {
        "grade": {"type": "string", "enum": symbols},
        "evidence": {"type": "array", "items": {"type": "string"}},
        **steps,
        "rules": {"type": "array", "items": rules},
        "verdict": {"type": "string", "enum": symbols},
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _strict(text: str, task: Task) -> Trace:
    first, *rest = text.split("\n")
    names = ["evidence", *(step.name for step in task.steps), "rules", "verdict"]
    if first not in task.symbols:
        raise Unreadable(f"first line is not a grade symbol ({', '.join(task.symbols)}): {first[:40]!r}")
    if len(rest) != len(names):
        raise Unreadable(f"{len(rest)} lines after the grade where {len(names)} are due ({', '.join(names)})")
    values = {}
    for name, line in zip(names, rest, strict=True):
        head, colon, value = line.partition(":")
        if head != name or not colon or (value and not value.startswith(" ")):
            raise Unreadable(f"line {name!r} expected, found {line[:40]!r}")
        values[name] = value[1:]
    return _build(first, values, task, strict=True)


def _lenient(text: str, task: Task) -> Trace:
    found = find_grade(text, task.symbols)
    if found.data is not None:
        return _from_json(found.data, found.grade, task)
    values: dict[str, str] = {}
    for line in text[found.end :].split("\n")[1:]:
        head, colon, value = line.partition(":")
        if colon:
            values.setdefault(head.strip(" *-").lower(), value.strip())
    return _build(found.grade, values, task, strict=False)


def _from_json(data: Mapping[str, Any], grade: str, task: Task) -> Trace:
    return Trace(
        grade,
        _texts(data.get("evidence")),
        {s.name: _encodable(str(data.get(s.name, ""))) for s in task.steps},
        tuple(r for r in _texts(data.get("rules")) if _RULE_ID.fullmatch(r)),
        symbol(str(data.get("verdict", grade)), task.symbols) or "",
    )


def _build(grade: str, values: Mapping[str, str], task: Task, *, strict: bool) -> Trace:
    guard: Callable[[Callable[[], Any], Any], Any] = (lambda f, _: f()) if strict else _or
    evidence = guard(lambda: _spans(values.get("evidence", "")), ())
    steps = {s.name: guard(lambda s=s: _unscalar(values.get(s.name, "")), "") for s in task.steps}  # type: ignore[misc]
    rules = guard(lambda: _rules(values.get("rules", "")), ())
    verdict = values.get("verdict", "" if strict else grade)
    if strict and verdict not in task.symbols:
        raise Unreadable(f"verdict {verdict[:40]!r} is not a grade symbol")
    return Trace(grade, evidence, steps, rules, verdict if strict else symbol(verdict, task.symbols) or "")


def _or(read: Callable[[], Any], default: Any) -> Any:
    try:
        return read()
    except Unreadable:
        return default


def _spans(text: str) -> tuple[str, ...]:
    try:
        spans = json.loads(f"[{text}]")
    except (ValueError, RecursionError):
        raise Unreadable(f"evidence is not a list of quoted spans: {text[:40]!r}") from None
    if not all(isinstance(span, str) for span in spans):
        raise Unreadable("evidence holds something that is not a quoted span")
    return tuple(map(_encodable, spans))


def _rules(text: str) -> tuple[str, ...]:
    ids = tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    bad = next((i for i in ids if not _RULE_ID.fullmatch(i)), None)
    if bad is not None:
        raise Unreadable(f"{bad[:40]!r} is not a rule id")
    return ids


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_encodable(v) for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _encodable(text: str) -> str:
    """The text without half surrogate pairs, which JSON escapes can write and no file can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else _json(text)


def _unscalar(text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        raise Unreadable(f"a quoted value is broken: {text[:40]!r}") from None
    return _encodable(str(value))
