"""A word that no argument takes: most often the value of an option whose name was left out."""

import re
import shlex
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, get_args

from typer.core import TyperCommand

from store.types import Split

# What a word looks like -> the options it may be a value of; the first that the verb has is named.
_LOOKS: tuple[tuple[Callable[[str], object], tuple[str, ...]], ...] = (
    (lambda word: re.match(r"teacher$|(baseline|student):", word), ("--judge", "--by")),
    (lambda word: word in get_args(Split), ("--split",)),
    (lambda word: (Path(word) / "config.json").is_file(), ("--model", "--student")),
    (lambda word: Path(word).suffix == ".parquet", ("--pool", "--from")),
    (lambda word: Path(word).is_file(), ("--from", "--pool")),
)


class Stray(TyperCommand):
    """A verb that names the option which a stray word is due after."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As every command does, with a word more on what is left over."""
        allowed, ctx.allow_extra_args = ctx.allow_extra_args, True
        try:
            left = super().parse_args(ctx, args)
        except Exception as error:  # typer keeps the class of its usage errors to itself
            if hasattr(error, "format_message"):
                told: Any = error
                told.message = told.message.removeprefix("Value error, ")
            raise
        ctx.allow_extra_args = allowed
        if left and not (allowed or ctx.resilient_parsing):
            mine = {name for option in self.params for name in option.opts}
            ctx.fail(f"Got unexpected extra argument(s) ({' '.join(left)}).{_meant(left[0], mine)}")
        return left


def _meant(word: str, mine: Collection[str]) -> str:
    """The option of a stray word, as it would be typed; nothing where none fits."""
    named = [name for looks, names in _LOOKS if looks(word) for name in names if name in mine]
    return f" Did you mean: {named[0]} {shlex.quote(word)}" if named else ""
