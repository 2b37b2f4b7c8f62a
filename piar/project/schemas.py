"""JSON Schemas of the files that people write and of what scripts read, made from the classes behind them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piar.project.folder import CONFIG, TASK
from store.errors import UsageError
from store.files import read_text

if TYPE_CHECKING:
    from pydantic import BaseModel

FOLDER = ".schema"  # in a project, where `place` puts them
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ATTRIBUTE = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n     .*)*)", re.M)  # of a docstring: names, and text
_FILES: dict[str, str] = {"config": CONFIG, "task": TASK}


def names() -> list[str]:
    """What has a schema: files, `error`, and each verb, its words joined by dashes."""
    from piar.project.documents import DOCUMENTS

    return [*_MADE, *DOCUMENTS]


def schema(what: str) -> dict[str, Any]:
    """One JSON Schema, draft 2020-12.

    Args:
        what: `config` (`piar.toml`), `task` (`task.toml`), `error` (what any verb prints under `--json` instead of its
            answer); or a verb (`review-status`), for what it prints under `--json`.

    Raises:
        UsageError: nothing of that name has one.
    """
    from piar.project.documents import DOCUMENTS

    if what in _MADE:
        return {"$schema": _DIALECT, **_MADE[what]()}
    if what not in DOCUMENTS:
        raise UsageError(f"There is no schema of {what!r}.", f"Choose one of: {', '.join(names())}.")
    return {"$schema": _DIALECT, **_printed(DOCUMENTS[what])}


def place(folder: Path) -> list[Path]:
    """Put the schemas of a project's files beside them, and a line into each file by which editors find its own.

    Editors that follow `#:schema` (taplo, and what builds on it) complete and check keys then. Calling it again brings
    the schemas up to date.

    Returns:
        what was written.
    """
    written = []
    (folder / FOLDER).mkdir(exist_ok=True)
    for what, name in _FILES.items():
        target = folder / FOLDER / f"{what}.json"
        target.write_text(_text(schema(what)), encoding="utf-8")
        written.append(target)
        path, line = folder / name, f"#:schema ./{FOLDER}/{target.name}\n"
        if path.exists() and not (text := read_text(path)).startswith("#:schema "):
            path.write_text(line + text, encoding="utf-8")
            written.append(path)
    return written


def _text(value: Mapping[str, Any]) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _config() -> dict[str, Any]:
    from piar.project.config import Config

    return _of(Config)


def _task() -> dict[str, Any]:
    from store.task import Task

    return _of(Task)


def _error() -> dict[str, Any]:
    texts = {name: {"type": "string"} for name in ("message", "fix")}
    told = {
        "type": "object",
        "properties": {**texts, "exit_code": {"type": "integer", "description": "What the command exits with."}},
        "required": ["message", "fix", "exit_code"],
    }
    return {"title": "Error", "type": "object", "properties": {"error": told}, "required": ["error"]}


def _of(model: "type[BaseModel]") -> dict[str, Any]:
    return _explained(model.model_json_schema())


def _explained(made: dict[str, Any]) -> dict[str, Any]:
    """A schema whose keys are explained by the docstrings of their classes."""
    for part in (made, *made.get("$defs", {}).values()):
        head, _, attributes = part.get("description", "").partition("Attributes:")
        if attributes:
            part["description"] = head.strip()
        for names_of, text in _ATTRIBUTE.findall(attributes):
            for name in names_of.split(", "):
                if name in part.get("properties", {}):
                    part["properties"][name].setdefault("description", " ".join(text.split()))
    return made


def _printed(document: Any) -> dict[str, Any]:
    """The schema of what `--json` prints: a number that is not finite is null there, and a time is text."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Printed(GenerateJsonSchema):
        def float_schema(self, schema: Any) -> dict[str, Any]:
            return {**super().float_schema(schema), "type": ["number", "null"]}

        def datetime_schema(self, schema: Any) -> dict[str, Any]:
            return {"type": "string"}

    return _explained(TypeAdapter(document).json_schema(mode="serialization", schema_generator=Printed))


_MADE: dict[str, Callable[[], dict[str, Any]]] = {"config": _config, "task": _task, "error": _error}
