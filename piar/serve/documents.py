"""What a text fills of a task's fields, where it is an object in JSON or YAML: documents come so from clients."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

MOST_CHARACTERS = 200_000  # of a text that may be JSON or YAML


def fields_in(text: str, fields: Collection[str]) -> Mapping[str, Any] | None:
    """The mapping that a text is in JSON or YAML, when it has one of the fields as a key; else None.

    Scalars stay the text that they are (`0.10`, `yes`, `2026-01-01`). A YAML text with anchors or aliases is taken for
    no mapping: a short one can stand for gigabytes.
    """
    if not fields or len(text) > MOST_CHARACTERS:
        return None
    found: Any = json_object(text)
    if found is None and re.search(rf"""^(["']?)(?:{"|".join(map(re.escape, fields))})\1\s*:""", text, re.MULTILINE):
        found = _yaml(text)
    return found if isinstance(found, dict) and any(name in found for name in fields) else None


def json_object(text: str) -> dict[str, Any] | None:
    """The object that a text is in JSON, its numbers as they are written; else None."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _yaml(text: str) -> Any:
    import yaml

    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # texts, lists and mappings alone
    try:
        if "&" in text and any(getattr(event, "anchor", None) for event in yaml.parse(text, Loader=loader)):
            return None
        return yaml.load(text, Loader=loader)  # an alias without anchor is an error
    except (yaml.YAMLError, RecursionError):
        return None
