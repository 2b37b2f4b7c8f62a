"""`piar schema`: what editors and scripts check files and documents by."""

from typing import TYPE_CHECKING, Annotated

import typer

from piar.cli.verb import Answer, Panel, asked, verb
from store.errors import UsageError

if TYPE_CHECKING:
    from piar.project import documents


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    verb(app, "schema", Panel.DEVELOPER)(schema)


def _names() -> list[str]:
    from piar.project.schemas import names

    return names()


def schema(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="WHAT",
            help="config (piar.toml), task (task.toml), error, or a verb: label, review-status, …",
            autocompletion=_names,
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Put the schemas of piar.toml and task.toml into the project, for editors.")
    ] = False,
) -> Answer:
    """Print the JSON Schema of a file that you write, or of a document that --json prints.

    With --write, editors that follow `#:schema` lines (taplo, Even Better TOML) complete and check both files.

    Example: `piar schema config`, or `piar schema --write -C shoes`
    """
    import json

    from piar.project.config import load
    from piar.project.schemas import place
    from piar.project.schemas import schema as made

    if write == (what is not None):
        raise UsageError("Name one schema to print, or --write.", "`piar schema config`, or `piar schema --write`.")
    if what is not None:
        found = made(what)
        return Answer(found, json.dumps(found, ensure_ascii=False, indent=2))
    load(asked().folder, asked().overrides)  # a project, with a configuration that holds
    document: documents.Files = {"files": [str(path) for path in place(asked().folder)]}
    return Answer(document, "\n".join(f"written: {path}" for path in document["files"]))
