"""`piar`: every verb, in the order in which a person meets them."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from piar.cli import calibrate, compare, data, develop, improve, inspect, label, people, serve, start, train
from piar.cli.verb import AsJson, Folder, Overrides, Panel, group, remember
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
    app = group(HELP, cls=ByPanel)
    app.callback(invoke_without_command=True, no_args_is_help=False)(_root)
    parts = (start, improve, label, calibrate, people, data, train, serve, inspect, compare, develop)
    for part in parts:
        part.register(app)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    try:
        build()(args=None if arguments is None else list(arguments), prog_name="piar")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    return 0


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
