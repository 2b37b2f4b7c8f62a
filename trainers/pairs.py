"""A student's prompt as a chat template of a query and a document, for tools that score pairs of texts.

sentence-transformers and vLLM hand a pair to the chat template as two messages, with the roles `query` and `document`.
The template that is written here makes of them what the student was taught to answer: its rubric, the sample as JSON,
and whatever the model's own template puts around. All else of that template is left behind: an export judges, and
does not chat.
"""

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from store.errors import PiarError
from store.task import Task, sample_text
from trainers.chat import BREAK, render
from trainers.checkpoint import StudentCard
from trainers.scoring import messages

AS_CLASSIFIER = "Export it as a classifier (`--as classifier`), which gives a probability for each grade."
# What `store.task.CONTROL` finds, text by text: a template replaces texts and knows no patterns.
_NAMED = {
    "<>": "think bos eos pad unk mask start_of_turn end_of_turn end_of_text tool_call image",
    "[]": "INST SYSTEM_PROMPT THINK AVAILABLE_TOOLS TOOL_CALLS IMG",
}
MARKS = (
    *("<|", "<｜", "<s>", "</s>", "<<SYS>>", "<</SYS>>"),
    *(f"{b[0]}{slash}{name}{b[1]}" for b, names in _NAMED.items() for slash in ("", "/") for name in names.split()),
    *(f"<{slash}unused{digit}" for slash in ("", "/") for digit in range(10)),
)


def require_pair(task: Task, *, template: bool) -> None:
    """Make sure that a sample of a task is a query and a document, and its grade a score.

    Args:
        template: whether a chat template has to write it, which cannot put a field before the query's.

    Raises:
        PiarError: why it is not.
    """
    query = names(task)[0]
    if len(task.fields) == 1:
        raise PiarError(f"A sample of this task is one text ({query}), and a score is of two.", AS_CLASSIFIER)
    if not task.ordered:
        raise PiarError("The grades of this task have no order, so that no score stands for them.", AS_CLASSIFIER)
    if template and len(task.fields) > 2 and task.fields[0] != query:
        raise PiarError(
            f"The query's field ({query}) stands behind {task.fields[0]!r}, and a pair begins with it.", AS_CLASSIFIER
        )


def pair_of(task: Task, texts: Sequence[str]) -> tuple[str, str]:
    """A sample as the query and the document that a language model's export takes.

    The query is the field that the task groups by, else the first. The document is the only other field, or all others
    as a JSON object.

    Args:
        texts: of the fields, in their order.
    """
    found = dict(zip(task.fields, texts, strict=True))
    query, *others = names(task)
    if len(others) == 1:
        return found[query], found[others[0]]
    return found[query], json.dumps({name: found[name] for name in others}, ensure_ascii=False)


def pair_template(tokenizer: Any, card: StudentCard) -> str:
    """The chat template: what it writes of a pair is the student's prompt for that sample.

    With more than two fields a document that is not the JSON object of `pair_of` fills the first of them.

    Raises:
        PiarError: the model's own template does more with a sample than to put text around it.
    """
    before, after = _around(tokenizer, card)
    query, document, *_ = map(_quoted, names(card.task))
    known: dict[str, Any] = {
        "before": before,
        "after": after,
        "query": query,
        "document": document,
        "names": [_quoted(name) for name in card.task.fields],
        "escapes": [(mark, f"\\u{ord(mark[0]):04x}{mark[1:]}") for mark in MARKS],
    }
    setting = "".join(f"{{%- set {name} = {value!r} -%}}\n" for name, value in known.items())
    return setting + resources.files("trainers").joinpath("pair_template.j2").read_text(encoding="utf-8")


def names(task: Task) -> list[str]:
    """The query's field, and the others in the task's order."""
    return [task.asked, *(name for name in task.fields if name != task.asked)]


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _around(tokenizer: Any, card: StudentCard) -> tuple[str, str]:
    """What stands before and after a sample in its prompt."""
    chats = [dict.fromkeys(card.task.fields, text) for text in ("a red lamp", 'Ä "b"\n{{ c }} ' * 9)]
    first, second = render(tokenizer, [messages(card, fields) for fields in chats])
    before, found, after = first.rpartition(sample_text(chats[0]))
    if not found or second != before + sample_text(chats[1]) + after or BREAK in before + after:
        raise PiarError(
            "The model's chat template does more than to put text around a sample, or the rubric spells one of its "
            "control tokens: no template of pairs gives the same prompt.",
            AS_CLASSIFIER,
        )
    return before, after
