"""`piar`: every verb, in the order in which a person meets them."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from piar.cli import (
    audit,
    calibrate,
    cascade,
    compare,
    data,
    develop,
    improve,
    inspect,
    label,
    people,
    schema,
    serve,
    start,
    train,
)
from piar.cli.verb import AsJson, Folder, Overrides, Panel, complain, group, remember
from store.errors import UsageError
from store.version import version as piar_version

HELP = """Test your labelling guideline like code, then ship a small model that grades in one token.

Begin with `piar look FILE` on any file of labels: it needs no project and writes nothing.
"""


class ByPanel(TyperGroup):
    """Verbs in the order of their panels, whatever order they were registered in."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names for `--help`."""
        panels = [str(panel) for panel in Panel]
        return sorted(self.commands, key=lambda name: panels.index(getattr(self.commands[name], "rich_help_panel", "")))


def build() -> typer.Typer:
    """The application with all verbs."""
    app = group(HELP, cls=ByPanel, completion=True)
    app.callback(invoke_without_command=True, no_args_is_help=False)(_root)
    parts = (
        start,
        improve,
        label,
        calibrate,
        audit,
        people,
        data,
        train,
        cascade,
        serve,
        inspect,
        compare,
        develop,
        schema,
    )
    for part in parts:
        part.register(app)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # in a Latin-1 locale no sign may cost an answer that was paid for
            stream.reconfigure(errors="backslashreplace")
    try:
        done = get_command(build())(args=given, prog_name="piar", standalone_mode=not as_json)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except typer.Abort:  # at a question
        return 1
    except Exception as error:
        if not (as_json and hasattr(error, "format_message")):  # typer keeps the class of its usage errors to itself
            raise
        return complain(UsageError(error.format_message(), _help_of(error)), as_json=True)
    return done if isinstance(done, int) else 0


def _help_of(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"`{context.command_path if context else 'piar'} --help` lists what there is."


def _root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    project_folder: Folder = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    remember(ctx, project_folder, overrides, as_json)
    if version:
        typer.echo(f"piar {piar_version()}")
    elif ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
