"""Questions of `init` to a person at a terminal."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from piar.cli.verb import asked, clean, messages

if TYPE_CHECKING:
    from store.propose import Doubt

_ROLES = {"gold": "holds the grade", "group": "says what belongs together (no group is in two splits)"}


def terminal() -> "Callable[[Doubt], tuple[str, ...] | None] | None":
    """Somebody to ask, when both ends are a terminal and no program reads the answer."""
    return _answer if sys.stdin.isatty() and sys.stderr.isatty() and not asked().as_json else None


def _answer(doubt: "Doubt") -> tuple[str, ...] | None:
    return _order(doubt.choices) if doubt.role == "grades" else _column(doubt)


def _column(doubt: "Doubt") -> tuple[str, ...] | None:
    messages().print(f"Which column {_ROLES[doubt.role]}?")
    for place, name in enumerate(doubt.choices, 1):
        messages().print(f"  {place}  {clean(name)}")
    while not 1 <= (place := typer.prompt("number", default=1, type=int, err=True)) <= len(doubt.choices):
        messages().print(f"A number from 1 to {len(doubt.choices)}.")
    return (doubt.choices[place - 1],)


def _order(grades: tuple[str, ...]) -> tuple[str, ...] | None:
    messages().print(f"The grades have no known order: {clean(', '.join(grades))}")
    while True:
        said = typer.prompt(
            "lowest first, with commas (Enter: they have none)", default="", show_default=False, err=True
        )
        order = tuple(name.strip() for name in said.split(",") if name.strip())
        if not order or sorted(order) == sorted(grades):
            return order or None
        messages().print("Name each of them once.")
