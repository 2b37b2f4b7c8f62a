"""One row as a person sees it who labels at the terminal: texts, keys, what was noted, how far it is.

Everything from data is cleaned before it is measured, and wrapped here by the width of its characters, so that a page
never is taller than the terminal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from piar.cli.verb import clean
from piar.review.page import DOUBTS, caption
from store.clock import duration

if TYPE_CHECKING:
    from rich.console import Console

    from piar.review.sitting import Place, Row, Said
    from store.task import Task
    from store.types import Instruction

LEAST = 3  # lines of the texts that are shown, however much else there is to show
ROOMY = 8  # lines of a terminal that has room for an empty one


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown of one row.

    Attributes:
        title: how many of how many.
        more: rate, time left, batch and person.
        body: the texts, already wrapped.
        grades: a line for each grade: its key, its name and its meaning.
        keys: the other keys.
        note: what has just happened, or "".
    """

    title: str
    more: Text
    body: list[Text]
    grades: list[Text]
    keys: Text
    note: str = ""


def progress(batch: str, person: str, place: "Place") -> tuple[str, Text]:
    """How many of how many; and rate, time left, whose batch it is."""
    pace = f" · {place.seconds:.0f} s a row · {duration(place.left)} left"
    return f"{place.done:,} of {place.rows:,}", Text.assemble(pace, (clean(f" · {batch} · {person}"), "dim"))


def body(console: "Console", row: "Row", said: "Said") -> list[Text]:
    """The fields, all opinions where they are to be seen, and what the person has noted."""
    blocks = [(name.replace("_", " "), text) for name, text in row.fields.items()]
    blocks += [("said", row.said)] if row.said else []
    lines = []
    for name, text in blocks:
        lines += [Text(clean(name), style="bold cyan"), *wrapped(console, text), Text()]
    noted = [DOUBTS.get(flag, flag) for flag in said.flags]
    noted += [f"rule {said.rule}"] if said.rule else []
    noted += [f"“{said.comment}”"] if said.comment else []
    return [*lines, *wrapped(console, "noted: " + " · ".join(noted))] if noted else lines[:-1]


def wrapped(console: "Console", text: str, style: str = "") -> list[Text]:
    """A text in lines of at most the terminal's width."""
    whole = Text(clean(text.replace("\r\n", "\n").replace("\r", "\n")).expandtabs(4), style=style)
    return list(whole.wrap(console, max(1, console.width), overflow="fold")) or [Text()]


def grades(task: "Task", instruction: "Instruction", keys: Mapping[str, str]) -> list[Text]:
    """The grades with their keys, the best first as on the page of Label Studio."""
    lines = []
    for grade in reversed(task.grades):
        key = clean(keys.get(grade.symbol, ""))
        words = clean(" ".join(caption(grade, instruction).split()))
        words = words.removeprefix(key).lstrip(": ") or words
        lines.append(Text.assemble((f"  {key:>2}  ", "bold green"), words) if key else Text(f"  {words}"))
    return lines


def commands(keys: Mapping[str, str]) -> Text:
    """The keys that give no grade."""
    return Text.assemble(*(part for word, key in keys.items() for part in ((f"{key} ", "bold"), (f"{word}  ", "dim"))))


def fitted(console: "Console", page: Page, offset: int) -> tuple[list[Text], int, int]:
    """The lines that fit the terminal, how many of the texts' are among them, and how many can be scrolled to.

    Grades shrink to one line each, then to one line for all, before the texts shrink below `LEAST` lines.
    """
    height = console.height - 1  # the cursor stays below
    top = [Text()] if height > ROOMY else []
    foot = _foot(console, page, height - 1 - len(top) - LEAST)
    window = max(1, height - 1 - len(top) - len(foot))
    offset = min(offset, max(0, len(page.body) - window))
    shown = page.body[offset : offset + window]
    hidden = max(0, len(page.body) - offset - len(shown))
    scroll = f" · lines {offset + 1}–{offset + len(shown)} of {len(page.body)}, space"
    told = Text.assemble((page.title, "bold"), (scroll if len(page.body) > window else "", "yellow"), page.more)
    return [told, *top, *shown, *foot], len(shown), hidden


def _foot(console: "Console", page: Page, room: int) -> list[Text]:
    """Grades, other keys and the note, as fully as there is room."""
    note = [Text(clean(page.note), style="yellow")] if page.note else []
    keys = list(page.keys.wrap(console, max(1, console.width), overflow="fold"))
    short = Text("  ").join([_short(line, console.width) for line in page.grades])
    for full in ([Text(), *page.grades, Text(), *keys], [*page.grades, *keys], [short, page.keys], [short]):
        if len(full) + len(note) <= room:
            return [*full, *note]
    return note or [short]


def _short(line: Text, width: int) -> Text:
    """A grade's key and symbol."""
    text = line.copy()
    text.plain = " ".join(text.plain.split(":")[0].split())[: max(4, width // 4)]
    return text


def draw(console: "Console", lines: Sequence[Text]) -> None:
    """Put lines on an empty screen; a line that is too wide ends in an ellipsis."""
    console.clear()
    for line in lines:
        console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
