"""The labelling page, made from the task: one Label Studio configuration.

Fields come first, large and side by side with the grades; each grade has a hotkey; the batch's own questions,
evidence, rules, doubts and a comment follow. Every text from the task, the instruction or the settings is an XML
attribute written by a library, so nothing in it can become markup; every text from data arrives by reference
(`$f_NAME`).
"""

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

from piar.review.settings import Question
from store.task import Grade, Task
from store.types import Instruction

# Flag -> what the annotator reads. The keys are what `labels.flags` holds.
DOUBTS = {
    "gold_is_wrong": "the existing label is wrong",
    "rule_unclear": "a rule is unclear",
    "ambiguous": "truly ambiguous",
}
INFORMED = frozenset({"gold_is_wrong"})  # can be said only by somebody who sees the label: on an adjudication page
_TYPED = {"rows": "1", "maxSubmissions": "1", "editable": "true", "showSubmitButton": "false"}
_KEYS = "1234567890qwertyuiop"
# Descendant selectors only: Label Studio escapes `>` in styles.
_STYLE = """
.piar{max-width:1100px;margin:0 auto}
.piar-fields{display:grid;gap:10px;margin:4px 0 14px}
.piar-field{border-left:3px solid #c8d3dc;padding:2px 0 2px 12px;font-size:17px;line-height:1.45}
.piar-field h4,.piar-more h4{margin:0!important;font-size:12px!important;line-height:1.4!important;opacity:.65}
.piar-more h4{margin-top:10px!important}
"""


def field_key(name: str) -> str:
    """Key of a task's field in a Label Studio task; the prefix keeps it apart from ours."""
    return f"f_{name}"


def hotkeys(task: Task) -> dict[str, str]:
    """Grade symbol -> key: the symbol itself where it is one key, else the next free one; "" where none is left."""
    own = {s.lower(): s for s in reversed(task.symbols) if len(s) == 1 and s.isascii() and s.isalnum()}
    free = iter(k for k in _KEYS if k not in own)
    return {s: s.lower() if own.get(s.lower()) == s else next(free, "") for s in task.symbols}


def page(task: Task, instruction: Instruction, *, suggestions: bool = False, questions: Sequence[Question] = ()) -> str:
    """The labelling configuration.

    Args:
        task: fields, grades and the question.
        instruction: its grade meanings and rules stand at hand.
        suggestions: an adjudication page, which also shows what others and the models said.
        questions: asked below the grades.
    """
    root = ET.Element("View", className="piar")
    ET.SubElement(root, "Style").text = _STYLE
    if task.ask:
        ET.SubElement(root, "Header", value=_text(task.ask), size="4")
    fields = ET.SubElement(root, "View", className="piar-fields")
    for name in task.fields:
        box = ET.SubElement(fields, "View", className="piar-field")
        ET.SubElement(box, "Header", value=_text(name.replace("_", " ")), size="5")
        ET.SubElement(box, "Text", name=field_key(name), value=f"${field_key(name)}", granularity="word")
    if suggestions:
        ET.SubElement(root, "Text", name="said", value="$said")
    _grades(root, task, instruction)
    for question in questions:
        _question(root, task, question)
    more = ET.SubElement(root, "View", className="piar-more")
    _evidence(more, task)
    _rules(more, task, instruction)
    _doubts(more, task, suggestions)
    comment = {"name": "comment", "toName": _anchor(task), "placeholder": "comment: what would make this clear?"}
    ET.SubElement(more, "TextArea", comment | _TYPED)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


def _grades(root: ET.Element, task: Task, instruction: Instruction) -> None:
    keys = hotkeys(task)
    choices = ET.SubElement(
        root,
        "Choices",
        name="grade",
        toName=_anchor(task),
        choice="single-radio",
        required="true",
        showInline="false",
        requiredMessage="Choose a grade.",
    )
    for grade in reversed(task.grades):
        key = {"hotkey": keys[grade.symbol]} if keys[grade.symbol] else {}
        ET.SubElement(choices, "Choice", {"value": _text(caption(grade, instruction)), "alias": grade.symbol} | key)


def caption(grade: Grade, instruction: Instruction) -> str:
    """A grade in words: its symbol and name, and what it means under the instruction."""
    meaning = instruction.meanings.get(grade.symbol, grade.meaning)
    head = f"{grade.symbol} {grade.name}".strip()
    return f"{head}: {meaning}" if meaning else head


def _question(root: ET.Element, task: Task, question: Question) -> None:
    ET.SubElement(root, "Header", value=_text(question.ask or question.name.replace("_", " ")), size="5")
    about = {"name": question.name, "toName": _anchor(task)}
    if not question.choices:
        ET.SubElement(root, "TextArea", about | _TYPED)
        return
    choices = ET.SubElement(
        root, "Choices", about | {"choice": "multiple" if question.many else "single-radio", "showInline": "true"}
    )
    for words in question.choices:
        ET.SubElement(choices, "Choice", value=_text(words), alias=words)


def _evidence(parent: ET.Element, task: Task) -> None:
    labels = ET.SubElement(
        parent, "Labels", name="evidence", toName=",".join(field_key(f) for f in task.fields), showInline="true"
    )
    ET.SubElement(labels, "Label", value="evidence", hotkey="e", background="#f2c94c")


def _rules(parent: ET.Element, task: Task, instruction: Instruction) -> None:
    if not instruction.rules:
        return
    ET.SubElement(parent, "Header", value="rule that decided (optional)", size="5")
    rules = ET.SubElement(parent, "Choices", name="rule", toName=_anchor(task), choice="single", layout="select")
    for rule in instruction.rules:
        arrow = "" if rule.grade is None else f" → {rule.grade}"
        choice = ET.SubElement(rules, "Choice", value=_text(f"{rule.id}{arrow}: {rule.text}"), alias=rule.id)
        if rule.parts:
            choice.set("hint", _text(" · ".join(f"{kind}: {text}" for kind, text in rule.parts)))


def _doubts(parent: ET.Element, task: Task, suggestions: bool) -> None:
    doubts = ET.SubElement(parent, "Choices", name="doubt", toName=_anchor(task), choice="multiple", showInline="true")
    for alias, words in DOUBTS.items():
        if alias in INFORMED and not suggestions:
            continue
        ET.SubElement(doubts, "Choice", value=words, alias=alias)


def choice(task: Task, control: str, alias: str) -> dict[str, Any]:
    """One choice as Label Studio stores it, for a prediction."""
    value = {"choices": [alias]}
    return {"id": control, "from_name": control, "to_name": _anchor(task), "type": "choices", "value": value}


def _anchor(task: Task) -> str:
    return field_key(task.fields[0])


def _text(text: str) -> str:
    """A fixed text on one line: a `$` with a word after it would be read as a reference to data."""
    return " ".join(text.split()).replace("$", "$\u200b")
