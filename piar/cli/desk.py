"""Labelling at the terminal: one row, one key; or one row, one line, where keys cannot be read or do not suffice."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Protocol

from rich.text import Text

from piar.cli import keys as pressed
from piar.cli.render import sitting as render
from piar.cli.verb import clean
from piar.review.page import hotkeys
from piar.review.sitting import Row, Said, Sitting
from store.cells import grade_symbol
from store.errors import PiarError

if TYPE_CHECKING:
    from rich.console import Console

    from store.task import Task
    from store.types import Instruction

MOST_KEYS = 9  # grades that have keys of their own; longer scales are typed
IDLE = 300.0  # seconds without a key after which somebody has left the desk; our choice
WORDS = ("undo", "skip", "comment", "doubt", "rule", "instruction", "quit")
END, INTERRUPT = "quit", "interrupt"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a person answered: a grade, or a command."""

    grade: str | None = None
    command: str = ""


class Front(Protocol):
    """How rows are shown and replies are read."""

    def ask(self, page: Callable[[], render.Page]) -> Reply:
        """Show a row and wait for a reply to it."""

    def text(self, prompt: str) -> str | None:
        """A line of text; None where the person has gone."""

    def read(self, text: str) -> None:
        """Show a long text."""


@dataclass(slots=True)
class Tally:
    """What a sitting brought. `seconds` are those of each answer that stands, by sample."""

    graded: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, float] = field(default_factory=dict)
    undone: int = 0
    interrupted: bool = False

    @property
    def median_seconds(self) -> float | None:
        """Of one answer; None where there is none."""
        all_of_them = [*self.graded.values(), *self.skipped.values()]
        return round(statistics.median(all_of_them), 1) if all_of_them else None


class Desk:
    """One sitting.

    Args:
        sitting: the rows, and where answers go.
        front: the terminal.
        instruction: its meanings and rules stand at hand.
        clock: seconds from any moment.
    """

    def __init__(
        self,
        sitting: Sitting,
        front: Front,
        console: "Console",
        instruction: "Instruction",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sitting, self.front, self.console, self.instruction = sitting, front, console, instruction
        self.task: Task = sitting.store.task
        self.tally = Tally()
        self.note = ""
        self._said = Said()
        self._clock = clock
        self._spent = 0.0
        self._keys = key_of_grades(self.task)
        self._commands = command_keys(self._keys)
        self._steps: Mapping[str, Callable[[Row], Row | None]] = {
            "undo": self._undo,
            "skip": lambda row: self._keep(row, None),
            "comment": self._comment,
            "doubt": self._doubt,
            "rule": self._rule,
            "instruction": self._instruction,
        }

    def work(self) -> Tally:
        """Show rows until none is open or the person leaves."""
        row = self._begin(self.sitting.next())
        while row is not None:
            reply = self._ask(row)
            if reply.command in (END, INTERRUPT):
                self.tally.interrupted = reply.command == INTERRUPT
                break
            self.note = ""
            row = self._keep(row, reply.grade) if reply.grade is not None else self._steps[reply.command](row)
        return self.tally

    def _begin(self, row: Row | None) -> Row | None:
        if row is not None:
            self._said, self._spent = replace(row.earlier, grade=None), 0.0
        return row

    def _ask(self, row: Row) -> Reply:
        title, more = render.progress(self.sitting.batch.name, self.sitting.person, self.sitting.place())
        grades = render.grades(self.task, self.instruction, self._keys)

        def page() -> render.Page:
            body = render.body(self.console, row, self._said)
            return render.Page(title, more, body, grades, render.commands(self._commands), self.note)

        with self._timed():
            return self.front.ask(page)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Counts what the block takes for the row; somebody who leaves the desk is not at work."""
        began = self._clock()
        yield
        self._spent += min(self._clock() - began, IDLE)

    # -- what the keys do ---------------------------------------------------------------------

    def _keep(self, row: Row, grade: str | None) -> Row | None:
        seconds = round(self._spent, 1)
        try:
            self.sitting.keep(row, replace(self._said, grade=grade), seconds)
        except PiarError as error:
            self.note = f"not kept: {error.message} Press the key again."
            return row
        kept, other = self.tally.graded, self.tally.skipped
        if grade is None:
            kept, other = other, kept
        other.pop(row.sample_id, None)
        kept[row.sample_id] = seconds
        return self._begin(self.sitting.next())

    def _undo(self, row: Row) -> Row | None:
        before = self.sitting.undo()
        if before is None:
            self.note = "there is nothing to take back"
            return row
        self.tally.graded.pop(before.sample_id, None)
        self.tally.skipped.pop(before.sample_id, None)
        self.tally.undone += 1
        self.note = f"taken back: {before.earlier.grade or 'skipped'}"
        return self._begin(before)

    def _comment(self, row: Row) -> Row:
        with self._timed():
            text = self.front.text("comment: ")
        if text is not None:
            self._said = replace(self._said, comment=text[:2000])
        return row

    def _doubt(self, row: Row) -> Row:
        """One more doubt, or one less."""
        flags = list(self.sitting.doubts)
        asked = " · ".join(f"{i} {words}" for i, words in enumerate(self.sitting.doubts.values(), 1))
        with self._timed():
            text = self.front.text(f"doubt ({asked}): ")
        if text in [str(i + 1) for i in range(len(flags))]:
            flag = flags[int(text or 0) - 1]
            held = self._said.flags
            self._said = replace(self._said, flags=tuple(f for f in (*held, flag) if f != flag or flag not in held))
        elif text:
            self.note = f"{text[:20]!r} is none of 1 to {len(flags)}"
        return row

    def _rule(self, row: Row) -> Row:
        known = [rule.id for rule in self.instruction.rules]
        if not known:
            self.note = "the instruction has no rules"
            return row
        with self._timed():
            text = self.front.text(f"the rule that decided ({', '.join(known)}): ")
        if text is not None and text not in ("", *known):
            self.note = f"no rule is called {text[:20]!r}"
        elif text is not None:
            self._said = replace(self._said, rule=text or None)
        return row

    def _instruction(self, row: Row) -> Row:
        from piar.instructions.markdown import write

        with self._timed():
            self.front.read(write(self.instruction, self.task))
        return row


# -- keys -----------------------------------------------------------------------------------------


def key_of_grades(task: "Task") -> dict[str, str]:
    """Grade symbol -> key, the same as on the page of Label Studio; none where the scale is long."""
    return hotkeys(task) if len(task.grades) <= MOST_KEYS else {}


def command_keys(grades: Mapping[str, str]) -> dict[str, str]:
    """Command -> key: the first letter of its word that no grade and no other command has."""
    taken = set(grades.values())
    found = {}
    for word in WORDS:
        found[word] = next(letter for letter in (*word, *word.upper()) if letter not in taken)
        taken.add(found[word])
    return found


class Screen:
    """One key a reply, one row a screen.

    Args:
        console: on the terminal that the keyboard belongs to.
        symbols: grades, which may be pressed as they are, too.
        grades: grade -> key.
    """

    def __init__(
        self, console: "Console", keyboard: pressed.Keyboard, symbols: Sequence[str], grades: Mapping[str, str]
    ) -> None:
        self.console, self.keyboard = console, keyboard
        self._commands = command_keys(grades)
        fixed = {pressed.UNDO: "undo", "?": "instruction", pressed.GONE: END, pressed.INTERRUPTED: INTERRUPT}
        self._replies = {key: Reply(command=word) for key, word in fixed.items()}
        self._replies |= {key: Reply(command=word) for word, key in self._commands.items()}
        self._replies |= {symbol: Reply(symbol) for symbol in symbols if len(symbol) == 1}
        self._replies |= {key: Reply(symbol) for symbol, key in grades.items()}
        self._grades = " ".join(grades.values())

    def ask(self, page: Callable[[], render.Page]) -> Reply:
        """Draw the row and wait for a key that means something."""
        wrong = ""

        def drawn() -> render.Page:
            found = page()
            return replace(found, note=wrong or found.note)

        def taken(key: str) -> Reply | None:
            nonlocal wrong
            reply = self._replies.get(key) or self._replies.get(key.lower())
            wrong = "" if reply else self._wrong(key)
            return reply

        return self._scroll(drawn, taken)

    def text(self, prompt: str) -> str | None:
        """A line below the row."""
        return self.keyboard.line(clean(prompt))

    def read(self, text: str) -> None:
        """Show a text until a key is pressed that does not scroll."""
        keys = Text("any key goes back", style="dim")
        self._scroll(
            lambda: render.Page("the instruction", Text(), render.wrapped(self.console, text), [], keys),
            lambda key: Reply(),
        )

    def _scroll(self, page: Callable[[], render.Page], taken: Callable[[str], Reply | None]) -> Reply:
        """Draw a page, let it be scrolled, and hand every other key to `taken` until it gives a reply."""
        offset = 0
        self.keyboard.drop()
        while True:
            try:
                self.console.size = self.keyboard.size()
                lines, shown, hidden = render.fitted(self.console, page(), offset)
                render.draw(self.console, lines)
                key = self.keyboard.read()
            except OSError:  # the terminal was closed
                return Reply(command=END)
            step = max(1, shown - 1)
            moves = {" ": step, pressed.ON: step, pressed.DOWN: 1, pressed.BACK: -step, pressed.UP: -1}
            if key in moves:
                offset = max(0, offset + min(moves[key], hidden))
            elif key != pressed.RESIZED and (reply := taken(key)) is not None:
                return reply

    def _wrong(self, key: str) -> str:
        if key == pressed.PASTED:
            return "pasted text is no answer: press one key"
        others = " · ".join(f"{key} {word}" for word, key in self._commands.items())
        named = key if len(key) == 1 else "that key"
        return f"{named} is no grade: {self._grades} · {others}"


class Lines:
    """One line a reply, one row below the other: for pipes, plain terminals, readers of screens, and long scales.

    A line is a grade by its symbol, its name or their beginning, or a command: `:skip`, or `skip` where no grade is
    called so.
    """

    def __init__(self, console: "Console", source: IO[str], task: "Task", grades: Mapping[str, str]) -> None:
        self.console, self.source, self.task = console, source, task
        self._commands = {word: word for word in WORDS} | {key: word for word, key in command_keys(grades).items()}
        self._by_key = {key: symbol for symbol, key in grades.items() if key}

    def ask(self, page: Callable[[], render.Page]) -> Reply:
        """Print the row, then read lines until one means something."""
        found = page()
        note = [Text(clean(found.note), style="yellow")] if found.note else []
        self._print(
            [
                Text(),
                Text.assemble((found.title, "bold"), found.more),
                *note,
                Text(),
                *found.body,
                Text(),
                *found.grades,
            ]
        )
        while True:
            line = self._line("grade, or skip, undo, comment, doubt, rule, instruction, quit> ")
            if line is None:
                return Reply(command=END)
            if reply := self._reply(line):
                return reply
            symbols = " ".join(self.task.symbols)
            self._print([Text(clean(f"{line[:40]!r} is no grade: {symbols}"), style="yellow")])

    def text(self, prompt: str) -> str | None:
        """A line of text."""
        return self._line(prompt)

    def read(self, text: str) -> None:
        """Print it."""
        self._print(render.wrapped(self.console, text))

    def _reply(self, line: str) -> Reply | None:
        if line.startswith(":") and line[1:] in self._commands:
            return Reply(command=self._commands[line[1:]])
        if line in self.task.symbols:
            return Reply(line)
        if symbol := self._by_key.get(line.lower()) or grade_symbol(line, self.task):
            return Reply(symbol)
        if line in self._commands:
            return Reply(command=self._commands[line])
        names = {g.symbol: (g.symbol.lower(), g.name.lower()) for g in self.task.grades}
        begun = [s for s, words in names.items() if line and any(w.startswith(line.lower()) for w in words)]
        return Reply(begun[0]) if len(begun) == 1 else None

    def _line(self, prompt: str) -> str | None:
        self.console.print(clean(prompt), end="" if self.source.isatty() else "\n", soft_wrap=True)
        line = self.source.readline()
        return " ".join(line.split()) if line else None

    def _print(self, lines: Sequence[Text]) -> None:
        for line in lines:
            self.console.print(line, soft_wrap=True)
