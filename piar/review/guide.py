"""The instruction as people read it: in Label Studio before they begin, and beside a sheet."""

from collections import Counter
from collections.abc import Sequence
from html import escape

from piar.instructions.diff import rule_changes, rule_line
from piar.review.batch import Batch
from piar.review.page import DOUBTS, INFORMED, caption
from store.db import Store
from store.task import Task
from store.types import Instruction


def as_html(
    store: Store, instruction: Instruction, before: Instruction | None = None, overtaken: Sequence[str] = ()
) -> str:
    """The instruction for a project of Label Studio; every text in it is escaped.

    Args:
        before: the version that the reader knows; what has changed since stands first.
        overtaken: for each answer of the reader that rests on older words, which words those are.
    """
    parts = [_heading(f"{store.task.name}: {version(store, instruction)}")]  # parted by breaks: styles are taken out
    if before is not None:
        parts += _news(store.task, before, instruction, overtaken)
    paragraphs = [paragraph for paragraph in instruction.preamble.split("\n\n") if paragraph.strip()]
    parts += ["\n".join(f"<p>{_text(paragraph)}</p>" for paragraph in paragraphs)]
    parts += [_list("Grades", [caption(grade, instruction) for grade in reversed(store.task.grades)])]
    if instruction.rules:
        parts += [_list("Rules, the first that fits decides", [rule_line(r) for r in instruction.rules])]
    return "\n<br>\n".join(parts)


def version(store: Store, instruction: Instruction) -> str:
    """What people call an instruction: which of those that were ever in force it is, and since when."""
    known = store.frame("select instruction, since from in_force order by since").rows()
    place = next((n for n, (name, _) in enumerate(known, 1) if name == instruction.id), None)
    return f"draft {instruction.id}" if place is None else f"version {place} of {known[place - 1][1]:%d %B %Y}"


def _news(task: Task, before: Instruction, after: Instruction, overtaken: Sequence[str]) -> list[str]:
    """What has changed, in words."""
    changes = [
        f"{c.before or 'new'} ⟶ {c.after or 'dropped'}" for c in rule_changes(before, after) if c.kind != "moved"
    ]
    pairs = [(caption(grade, before), caption(grade, after)) for grade in task.grades]
    changes += [f"{old} ⟶ {new}" for old, new in pairs if old != new]
    told = [_list("Changed since you began", changes or ["The order of rules, or words around them."])]
    if overtaken:
        words = "; ".join(f"{n} × {what}" for what, n in Counter(overtaken).most_common())
        told.append(
            f"<p>{len(overtaken)} of your answers here rest on words that have changed ({_text(words)}). Leave them: "
            "they will be asked again where that is worth it.</p>"
        )
    return told


def _heading(text: str) -> str:
    return f"<h4>{_text(text)}</h4>"


def _list(heading: str, lines: Sequence[str]) -> str:
    return _heading(heading) + "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _text(text: str) -> str:
    return escape(" ".join(text.split()))


def sheet_guide(task: Task, instruction: Instruction, batch: Batch) -> str:
    """What the answer columns of a sheet take, as Markdown."""
    grades = [
        f"- `{g.symbol}` {caption(g, instruction).removeprefix(g.symbol).lstrip(': ')}" for g in reversed(task.grades)
    ]
    rules = [
        "\n".join(
            [
                f"- `{r.id}` {'' if r.grade is None else f'→ {r.grade}: '}{r.text}",
                *(f"    - {kind}: {text}" for kind, text in r.parts),
            ]
        )
        for r in instruction.rules
    ]
    doubts = [f"- `{name}` {words}" for name, words in DOUBTS.items() if not (batch.blind and name in INFORMED)]
    asked = [
        f"## {q.name}\n\n{q.ask}\n\n" + ("one of: " if q.choices and not q.many else "") + "; ".join(q.choices)
        for q in batch.questions
    ]
    parts = [
        f"# {task.name}: how to fill in the sheet",
        task.ask or instruction.preamble,
        "Judge each row on your own. Leave `sample_key` and `batch` alone, save as CSV in UTF-8 and send it back.",
        "## grade",
        "\n".join(grades),
        *(["## rule (optional): the one that decided", "\n".join(rules)] if rules else []),
        *(part.strip() for part in asked),
        "## doubts (optional): one or more",
        "\n".join(doubts),
        "## comment (optional)",
        "What would make it clear.",
    ]
    return "\n\n".join(parts) + "\n"
