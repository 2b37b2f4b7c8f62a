"""Documents of `--json` held against the schemas that `piar schema` prints."""

import json

import jsonschema

from piar.project.schemas import names, schema


def check(what: str, document: object) -> None:
    """A document holds, and has no key that its schema does not name.

    Args:
        what: a name that has a schema, or the words of a command line that begin with a verb.
    """
    words = what.split()
    name = max({"-".join(words[:n]) for n in (1, 2)} & set(names()), key=len)
    closed = {**schema(name), "unevaluatedProperties": False}
    jsonschema.Draft202012Validator(closed, format_checker=jsonschema.FormatChecker()).validate(
        json.loads(json.dumps(document))
    )
