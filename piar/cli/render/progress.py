"""Progress on stderr: a bar with rate, time left and cost on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from piar.cli.verb import messages
from store.clock import duration, pause

if TYPE_CHECKING:
    from rich.console import Console

    from piar.judging.outcome import Progress

Show = Callable[["Progress"], None]


@contextmanager
def meter(what: str) -> "Iterator[Show]":
    """Yields what a library function takes as `on_progress`.

    Args:
        what: what is being done, e.g. `judging`.
    """
    out = messages()
    if out.is_terminal:
        with _bar(out, what) as show:
            yield show
    else:
        yield plain_lines(out, what)


@contextmanager
def steps() -> "Iterator[Callable[[str], None]]":
    """Yields what is to be told what begins: one changing line on a terminal, elsewhere lines once a second is over."""
    out = messages()
    if out.is_terminal:
        with out.status("") as status:
            yield status.update
        return
    began = time.monotonic()

    def tell(words: str) -> None:
        if time.monotonic() - began > 1:
            out.print(words, soft_wrap=True)

    yield tell


class _Pace:
    """Rates since a call's first word, so that loading a model does not count; a smaller count is a new call."""

    def __init__(self) -> None:
        self._began, self._from, self._last, self._asked, self._tokens = time.monotonic(), 0, -1, 0, 0

    def note(self, state: "Progress") -> None:
        """Take in how far it is."""
        if self._last < 0 or state.done < self._last:
            self._began, self._from = time.monotonic(), state.done
        self._last, self._asked, self._tokens = state.done, state.asked, state.usage.prompt + state.usage.completion

    @property
    def rate(self) -> float:
        """Verdicts a second: those that were asked for, or known ones while nothing is asked."""
        return (min(self._asked, self._last - self._from) or self._last - self._from) / self.seconds

    @property
    def tokens(self) -> float:
        """Tokens a second, in and out."""
        return self._tokens / self.seconds

    @property
    def seconds(self) -> float:
        """Since this call began."""
        return max(time.monotonic() - self._began, 0.1)


@contextmanager
def _bar(out: "Console", what: str) -> "Iterator[Show]":
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[more]}"),
    )
    with Bar(*columns, console=out, transient=True) as bar:
        task = bar.add_task(what, total=None, more="", visible=False)
        pace = _Pace()

        def show(state: "Progress") -> None:
            pace.note(state)
            more, words = _more(state, pace), state.doing or what
            bar.update(task, description=words, completed=state.done, total=state.total, more=more, visible=True)

        yield show


def plain_lines(out: "Console", what: str) -> Show:
    """A line now and then while a call is under way."""
    pace, shown = _Pace(), time.monotonic()

    def show(state: "Progress") -> None:
        nonlocal shown
        now = time.monotonic()
        pace.note(state)
        over = state.total is not None and state.done >= state.total  # what comes of it is printed anyway
        if over or not pace.rate or min(now - shown, pace.seconds) < pause(pace.seconds):
            return
        shown = now
        left = f" · {duration((state.total - state.done) / pace.rate)} left" if state.total else ""
        total = f" of {state.total:,}" if state.total else ""
        out.print(
            f"{state.doing or what} {state.done:,}{total} · {duration(pace.seconds)}{left} · {_more(state, pace)}",
            soft_wrap=True,
        )

    return show


def _more(state: "Progress", pace: _Pace) -> str:
    """Rates, how much of the prompts was cached, cost so far and at the end, failures by class."""
    parts, usage = [f"{pace.rate:,.0f}/s"], state.usage
    if usage.prompt:
        parts.append(f"{pace.tokens:,.0f} tokens/s")
    if usage.cached:
        parts.append(f"{usage.cached / usage.prompt:.0%} cached")
    if state.cost_usd:
        parts.append(f"${state.cost_usd:.4f}{_at_the_end(state)}")
    return " · ".join([*parts, *(f"{n:,} {kind}" for kind, n in sorted(state.failed.items()))])


def _at_the_end(state: "Progress") -> str:
    """The cost of all, if the rest costs what was asked so far did."""
    if state.total is None or not state.asked or state.done >= state.total:
        return ""
    return f" of about ${state.cost_usd * (1 + (state.total - state.done) / state.asked):.4f}"
