"""Prompts: Jinja2 templates in a sandbox, each overridable by a file of the same name in the project's `prompts/`.

The shared part (the instruction) comes first and the sample last, so that prefix caches work. A
sample is written as one JSON object: text from data can neither open a new field nor end the prompt.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from piar.llm.base import Message
from store.errors import UsageError
from store.task import Task, sample_text
from store.types import Instruction


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["json"] = lambda value: json.dumps(dict(value), ensure_ascii=False)  # `tojson` escapes for HTML
    return environment


@lru_cache(maxsize=64)
def _compiled(text: str) -> Template:
    return _environment().from_string(text)


def template_source(name: str, overrides: Path | None = None, package: str = "piar") -> str:
    """Text of a template: the project's `prompts/NAME.j2` if there is one, else the one shipped with the package."""
    if overrides is not None and (overrides / f"{name}.j2").is_file():
        return (overrides / f"{name}.j2").read_text(encoding="utf-8")
    return files(package).joinpath("prompts", f"{name}.j2").read_text(encoding="utf-8")


def render(name: str, values: Mapping[str, Any], overrides: Path | None = None, package: str = "piar") -> str:
    """Render a template in the sandbox.

    Raises:
        UsageError: the template is broken, names something unknown, or reaches outside the sandbox.
    """
    try:
        return _compiled(template_source(name, overrides, package)).render(values).strip()
    except TemplateError as error:
        raise UsageError(
            f"prompts/{name}.j2: {error}", "Mend the template, or delete it to use the one shipped."
        ) from None


def judge_prefix(
    task: Task, instruction: Instruction, overrides: Path | None = None, precedence: Sequence[str] = ()
) -> str:
    """The part of the judging prompt that all samples share: task, grades, rulebook, answer format.

    Args:
        precedence: ids of the rules, the one that decides first, where that is not the order they are listed in.
    """
    meanings = {g.symbol: instruction.meanings.get(g.symbol, g.meaning) for g in task.grades}
    values = {"task": task, "instruction": instruction, "meanings": meanings, "precedence": precedence}
    return render("judge", values, overrides)


def judge_messages(prefix: str, fields: Mapping[str, str]) -> tuple[Message, ...]:
    """The chat that asks for one verdict."""
    return (Message("system", prefix), Message("user", sample_text(fields)))
