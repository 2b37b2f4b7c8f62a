"""JSON Schemas of the files that people write and of what scripts read, made from the classes behind them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import TypedDict

from piar.project.folder import CONFIG, TASK
from store.files import read_text

if TYPE_CHECKING:
    from pydantic import BaseModel

What = Literal["config", "task", "error", "look", "status", "doctor", "evolve", "review-status"]
FOLDER = ".schema"  # in a project, where `place` puts them
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n     .*)*)", re.M)  # of a docstring: a name, and text that may go on
_FILES: dict[What, str] = {"config": CONFIG, "task": TASK}


def schema(what: What) -> dict[str, Any]:
    """One JSON Schema, draft 2020-12.

    Args:
        what: `config` (`piar.toml`), `task` (`task.toml`), `error` (what any verb prints under `--json` instead of its
            answer); or a verb, for what it prints under `--json`.
    """
    return {"$schema": _DIALECT, **_MADE[what]()}


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


def _look() -> dict[str, Any]:
    from piar.look.report import LookReport

    return LookReport.model_json_schema(mode="serialization")


def _evolve() -> dict[str, Any]:
    from piar.evolve.run import EvolveReport

    return EvolveReport.model_json_schema(mode="serialization")


def _status() -> dict[str, Any]:
    from piar.query.status import Status

    return _of_values(Status)


def _doctor() -> dict[str, Any]:
    from piar.project.endpoints import Check

    class Doctor(TypedDict):
        checks: list[Check]

    return _of_values(Doctor)


def _review_status() -> dict[str, Any]:
    from piar.review.status import BatchStatus

    return _of_values(BatchStatus)


def _error() -> dict[str, Any]:
    texts = {name: {"type": "string"} for name in ("message", "fix")}
    told = {
        "type": "object",
        "properties": {**texts, "exit_code": {"type": "integer", "description": "What the command exits with."}},
        "required": ["message", "fix", "exit_code"],
    }
    return {"title": "Error", "type": "object", "properties": {"error": told}, "required": ["error"]}


def _of(model: "type[BaseModel]") -> dict[str, Any]:
    """A model's schema whose keys are explained by the docstrings of their classes."""
    made = model.model_json_schema()
    for part in (made, *made.get("$defs", {}).values()):
        head, _, attributes = part.get("description", "").partition("Attributes:")
        if attributes:
            part["description"] = head.strip()
        for name, text in _ATTRIBUTE.findall(attributes):
            if name in part.get("properties", {}):
                part["properties"][name].setdefault("description", " ".join(text.split()))
    return made


def _of_values(values: Any) -> dict[str, Any]:
    """The schema of a dataclass or a typed dictionary that is printed as it is."""
    from pydantic import TypeAdapter

    return TypeAdapter(values).json_schema(mode="serialization")


_MADE: dict[What, Callable[[], dict[str, Any]]] = {
    "config": _config,
    "task": _task,
    "error": _error,
    "look": _look,
    "status": _status,
    "doctor": _doctor,
    "evolve": _evolve,
    "review-status": _review_status,
}
