"""A search while it runs: champion, candidates, calls, cost and time left on a terminal; plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from piar.cli.render.evolve import event_line
from piar.cli.render.progress import plain_lines
from piar.cli.verb import messages

if TYPE_CHECKING:
    from piar.evolve.resume import Event
    from piar.judging.outcome import Progress

OnEvent = Callable[["Event"], None]
OnProgress = Callable[["Progress"], None]


class SearchView:
    """What is known of a running search, drawn anew whenever asked.

    Args:
        rounds: most rounds that the search may take.
        clock: seconds, monotonic.
    """

    def __init__(self, rounds: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rounds, self._clock, self._began = rounds, clock, clock()
        self.step, self.round = "round", 0
        self.champion = ""
        self.candidates: dict[str, str] = {}  # id -> state, of the present round
        self.asked = 0
        self.cost_usd = 0.0
        self._call: Progress | None = None

    def tell(self, event: "Event") -> None:
        """Take in a step of the run."""
        detail = event.detail
        match event.kind:
            case "champion":
                self.champion = f"{detail['instruction']}  {100 * detail['dev']:.1f} % of {detail['rows']:,} dev rows"
            case "inspected":
                self.round, self.candidates = detail["round"], {}
            case "proposed":
                self.candidates[detail["candidate"]] = "racing" if self.round else "drafted from all labels"
            case "dropped":
                self.candidates[detail["candidate"]] = detail["reason"]
            case "survived":
                self.candidates[detail["candidate"]] = f"{100 * detail['dev']:.1f} % of dev"
            case "redrafted" if detail["stands"]:
                self.candidates[detail["candidate"]] = "drafted anew from train and dev"
            case "fold":
                self.step, self.round, self.rounds = "fold", detail["fold"], detail["of"]
            case "searched" if self.step == "fold":
                self.candidates = {detail["best"]: "is decided by what was drafted for each fold"}
            case "searched":
                self.candidates = {detail["best"]: "meets the champion on the holdout"}

    def count(self, state: "Progress") -> None:
        """Take in how far the present judging call has come; a smaller count than before is a new call."""
        if self._call is not None and state.done < self._call.done:
            self.asked += self._call.done
            self.cost_usd += self._call.cost_usd
        self._call = state

    def seconds_left(self) -> float | None:
        """At most, from the rounds made so far; None while there is no full one."""
        made = self.round - 1
        return (self._clock() - self._began) / made * (self.rounds - made) if made > 0 else None

    def __rich__(self) -> RenderableType:
        call, left = self._call, self.seconds_left()
        asked = self.asked + (call.done if call else 0)
        cost = self.cost_usd + (call.cost_usd if call else 0.0)
        words = [f"{self.step} {self.round} of {self.rounds}", f"{asked:,} judged", f"${cost:,.4f}"]
        words += [f"{call.done:,} of {call.total:,} in this step"] if call and call.total else []
        words += [f"at most {left:,.0f} s left"] if left is not None else []
        grid = Table.grid(padding=(0, 2))
        grid.add_row(Text("champion", style="bold"), self.champion or "being judged")
        for name, state in self.candidates.items():
            grid.add_row(Text(name, style="cyan" if state == "racing" else "dim"), Text(state))
        return Group(grid, Text(" · ".join(words), style="dim"))


@contextmanager
def search_view(rounds: int) -> Iterator[tuple[OnEvent, OnProgress]]:
    """Yields what `Project.evolve` takes as `on_event` and `on_progress`."""
    out = messages()
    view = SearchView(rounds)

    def told(event: "Event") -> None:
        view.tell(event)
        if line := event_line(event):
            out.print(line)

    if not out.is_terminal:
        yield told, plain_lines(out, "judging")
        return
    from rich.live import Live

    with Live(view, console=out, transient=True, refresh_per_second=4):
        yield told, view.count
