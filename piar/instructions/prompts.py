"""Prompts: Jinja2 templates in a sandbox, each overridable by a file of the same name in the project's `prompts/`.

The shared part (the instruction) comes first and the sample last, so that prefix caches work. A
sample is written as one JSON object: text from data can neither open a new field nor end the prompt.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from piar.instructions.sandbox import render_text
from store.errors import UsageError
from store.files import read_text
from store.task import Task
from store.types import Instruction

_MOST_BYTES = 2**18


def template_source(name: str, overrides: Path | None = None, package: str = "piar") -> str:
    """Text of a template: the project's `prompts/NAME.j2` if there is one, else the one shipped with the package.

    Raises:
        UsageError: the project's is no UTF-8 text file of that folder.
    """
    if overrides is not None:
        path = overrides / f"{name}.j2"
        if not path.resolve().is_relative_to(overrides.resolve()):
            raise UsageError(f"{path} is a link out of its folder.", "Copy the file into `prompts/`.")
        try:
            return read_text(path, _MOST_BYTES)
        except FileNotFoundError:
            pass
    return files(package).joinpath("prompts", f"{name}.j2").read_text(encoding="utf-8")


def render(name: str, values: Mapping[str, Any], overrides: Path | None = None, package: str = "piar") -> str:
    """Render a template in the sandbox (see `piar.instructions.sandbox`).

    Raises:
        UsageError: the template is broken, names something unknown, or wants more than it may have.
    """
    try:
        return render_text(template_source(name, overrides, package), values).strip()
    except TemplateError as error:
        raise UsageError(
            f"prompts/{name}.j2: {str(error)[:500]}", "Mend the template, or delete it to use the one shipped."
        ) from None


def judge_prefix(task: Task, instruction: Instruction, overrides: Path | None = None, name: str = "judge") -> str:
    """The part of the judging prompt that all samples share: task, grades, rulebook, answer format.

    Args:
        name: `decide` for the rulebook alone, where the grades are asked for by other means.
    """
    # A template writes `rule.text`, as those do that projects copied from an earlier version: parts come with it.
    shown = replace(instruction, rules=tuple(replace(rule, text=rule.words) for rule in instruction.rules))
    meanings = {g.symbol: instruction.meanings.get(g.symbol, g.meaning) for g in task.grades}
    # `precedence` stands in templates that projects copied from an earlier version.
    values = {"task": task, "instruction": shown, "meanings": meanings, "precedence": ()}
    return render(name, values, overrides)
