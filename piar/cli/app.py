"""`piar`: every verb, in the order in which a person meets them."""

import os
import sys
from collections.abc import Sequence

import typer

from piar.cli import inspect, start
from piar.cli.verb import group

HELP = """Test your labelling guideline like code, then ship a small model that grades in one token.

Begin with `piar look FILE` on any file of labels: it needs no project and writes nothing.
"""


def build() -> typer.Typer:
    """The application with all verbs."""
    app = group(HELP)
    for part in (start, inspect):
        part.register(app)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    try:
        build()(args=None if arguments is None else list(arguments), prog_name="piar")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except BrokenPipeError:  # the reader (`head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
