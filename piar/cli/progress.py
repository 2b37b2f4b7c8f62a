"""Progress on stderr: a bar with rate, time left and cost on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from piar.cli.verb import messages

if TYPE_CHECKING:
    from rich.console import Console

    from piar.label import Progress

LINE_SECONDS = 5.0

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
        yield _lines(out, what)


class _Clock:
    """The rate since counting began; a smaller count than before is a new beginning."""

    def __init__(self) -> None:
        self._began, self._from, self._last = time.monotonic(), 0, 0

    def rate(self, done: int) -> float:
        """Things a second."""
        now = time.monotonic()
        if done < self._last:
            self._began, self._from = now, done
        self._last = done
        return (done - self._from) / max(now - self._began, 0.1)


@contextmanager
def _bar(out: "Console", what: str) -> "Iterator[Show]":
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("{task.fields[more]}"),
    )  # fmt: skip
    with Bar(*columns, console=out, transient=True) as bar:
        task = bar.add_task(what, total=None, rate="", more="", visible=False)
        clock = _Clock()

        def show(state: "Progress") -> None:
            rate = f"{clock.rate(state.done):,.0f}/s"
            bar.update(task, completed=state.done, total=state.total, rate=rate, more=_more(state), visible=True)

        yield show


def _lines(out: "Console", what: str) -> Show:
    clock, shown = _Clock(), time.monotonic()

    def show(state: "Progress") -> None:
        nonlocal shown
        now = time.monotonic()
        rate = clock.rate(state.done)
        if not rate or now - shown < LINE_SECONDS:
            return
        shown = now
        left = f" · {(state.total - state.done) / rate:,.0f} s left" if state.total and rate else ""
        total = f" of {state.total:,}" if state.total else ""
        out.print(f"{what} {state.done:,}{total} · {rate:,.0f}/s{left} {_more(state)}".rstrip())

    return show


def _more(state: "Progress") -> str:
    cost = [f"${state.cost_usd:.4f}"] if state.cost_usd else []
    return " · ".join([*cost, *(f"{n:,} {kind}" for kind, n in sorted(state.failed.items()))])
