"""What a request says where it has only its text: for the endpoint, and whoever else speaks to it in messages alone.

Judging prompts are read in the wording of `prompts/judge.j2` and in what is near it.
"""

import json
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from piar.llm.base import Brief, Request
from piar.offline.layouts import read_layout
from store.task import Grade, Step, Task
from store.types import Instruction


def read_messages(request: Request) -> tuple[str, dict[str, Any] | None]:
    """The text that requests share, and the JSON object asked about: the last message of the user's that holds one.

    After it there may be an answer that could not be read, and the words that ask for another.
    """
    for place, message in reversed(list(enumerate(request.messages))):
        if message.role != "user":
            continue
        shared = [earlier.content for earlier in request.messages[:place]]
        if (data := _json_object(message.content)) is not None:
            return "\n\n".join(shared), data
        at = message.content.rfind("\n{")
        if at >= 0 and (data := _json_object(message.content[at:])) is not None:
            return "\n\n".join([*shared, message.content[:at]]), data
    return "", None


def understood(request: Request, prompt: str, data: dict[str, Any]) -> Request:
    """The request with the purpose and the brief that its text tells; as it is where it says them itself."""
    if request.purpose != "judge" or request.brief is not None:
        return request
    if data.get("task") == "revise" and isinstance(data.get("evidence"), list):
        return replace(request, purpose="revise")
    return replace(request, brief=read_prompt(prompt, request.grades))


@lru_cache(maxsize=512)
def read_prompt(prompt: str, symbols: tuple[str, ...]) -> Brief | None:
    """The rules, grades and steps of a judging prompt; None where there are not two grades to choose from.

    Args:
        symbols: the grades asked for; read from the prompt's list of grades when empty.
    """
    layout = read_layout(prompt, symbols)
    names = dict(reversed(layout.grades))
    try:
        grades = tuple(
            Grade(symbol=symbol, name=names.get(symbol, ""), value=float(value))
            for value, symbol in enumerate(symbols or names)
        )
        task = Task(name="asked", group_by="sample", fields=("sample",), grades=grades, steps=_steps(layout.answer))
    except ValueError:
        return None
    return Brief(task, Instruction("", layout.rules))


def _steps(answer: str) -> tuple[Step, ...]:
    """The sub-judgements between `evidence:` and `rules:` of the answer's format."""
    inside = re.search(r"^evidence:.*?$(.*?)^rules:", answer, re.M | re.S)
    steps = []
    for name, asks in re.findall(r"^([a-z][a-z0-9_]{0,31}):[ ]?(.*)$", inside[1] if inside else "", re.M):
        choices = re.search(r"\(([^()]*\|[^()]*)\)\s*$", asks)
        listed = tuple(choice.strip() for choice in choices[1].split("|")) if choices else ()
        steps.append(Step(name=name, asks=asks[: choices.start()].strip() if choices else asks, choices=listed))
    return tuple(steps)


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
