"""Verbs of the first minute: look, init, import."""

from pathlib import Path
from typing import Annotated

import typer

from piar.cli.verb import Answer, Panel, verb


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    verb(app, "init", Panel.START)(init)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files that init writes.")] = False,
) -> Answer:
    """Make a project folder: piar.toml, task.toml, instruction.md and the store.

    Example: piar init demo
    """
    from piar.project import Project

    project = Project.init(folder, force=force)
    written = sorted(path.name for path in project.folder.iterdir())
    return Answer({"project": str(project.folder), "files": written}, f"{project.folder}: {', '.join(written)}")
