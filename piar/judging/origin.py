"""Where a judge's answers come from: one model name at two addresses may be two models.

The first origin that answers for a judge is noted in the store, and its verdicts have the keys that they would have
without any. At another origin the requests are others, so nothing of the first is taken for an answer, unless
somebody says that both are the same.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal

from piar.llm.settings import ModelSettings
from store.db import Store

# What a judge has said that counts, and what each cost: of a teacher its verdicts, of who writes its answers.
_SAID = {
    "verdicts": "select count(distinct v.rowid), avg(c.cost_usd) filter (c.failure is null) from verdicts v "
    "left join completions c using (key) where v.judge = ? and v.grade is not null",
    "answers": "select count(*), avg(cost_usd) from completions where role || ':' || model = ? and failure is null",
}


@dataclass(frozen=True, slots=True)
class Origins:
    """What a store knows of a judge.

    Attributes:
        same: origins whose verdicts count as one another's, the first that ever answered among them.
        last: origin and address where the judge was asked last.
    """

    same: tuple[str, ...] = ()
    last: tuple[str, str] = ("", "")


class Origin:
    """The origin that a judge is asked at now, beside those of its earlier verdicts.

    Args:
        judge: as verdicts name it.
        model: names the endpoint; a model of this process has no origin.
        said: `verdicts`, or `answers` of a model that writes: reviser and synthesis.

    Attributes:
        mark: enters the keys of requests; empty where earlier verdicts are answers to them.
    """

    def __init__(
        self, store: Store, judge: str, model: ModelSettings, said: Literal["verdicts", "answers"] = "verdicts"
    ) -> None:
        self._store, self._judge, self._model, self._said = store, judge, model, said
        self._noted = self._stored = _read(store, judge)
        self._now = model.origin
        self.mark = self._now if self._noted.same and self._now not in self._noted.same else ""

    @property
    def name(self) -> str:
        """The model's name, and where it is asked if earlier verdicts are no answers to what is asked there."""
        model = self._judge.partition(":")[2]
        return f"{model} at {self.mark}" if self.mark else model

    def news(self) -> str | None:
        """What changed since the judge was asked last, in words; None when nothing did that has verdicts."""
        if not self._now or self._noted.last == (self._now, self._model.address):
            return None
        count, usd = self._earlier()
        if not count:
            return None
        kept = f"{count:,} {self._said} of {self._judge}"
        if not self._noted.same:
            return f"{kept} were made before the store noted endpoints: they are taken to be from {self._now}."
        here, there = (_place(*last) for last in ((self._now, self._model.address), self._noted.last))
        moved = f"{self._model.model} is asked at {here} now, and was at {there}"
        if not self.mark:
            return (
                f"{moved}: both count as one, so {kept} still hold. If another model answers now, "
                "name it in served_by under its section of piar.toml."
            )
        cost = f", for about ${usd:,.2f}" if usd else ""
        return (
            f"{moved}: {kept} are not taken for its answers, and what is wanted is asked anew{cost}. "
            f"If the model is the same, {self._keep} keeps them."
        )

    def note(self) -> None:
        """Remember where the judge is asked."""
        now = replace(self._noted, same=self._noted.same or (self._now,), last=(self._now, self._model.address))
        if self._now and now != self._stored:
            self._noted = self._stored = now
            _write(self._store, self._judge, now)

    def adopt(self) -> None:
        """Let the verdicts of the earlier origins count here too; from now on, once `note` is called."""
        if self.mark:
            self._noted, self.mark = replace(self._noted, same=(*self._noted.same, self.mark)), ""

    @property
    def _keep(self) -> str:
        if self._said == "verdicts":
            return "`piar label --reuse-verdicts`"
        return f"`served_by = {json.dumps(self._noted.same[0])}` under its section of piar.toml"

    def _earlier(self) -> tuple[int, float]:
        """How much this judge has said that counts, and what asking as much would cost."""
        with self._store.read() as con:
            count, usd = con.execute(_SAID[self._said], [self._judge]).fetchall()[0]
        return int(count), int(count) * float(usd or 0.0)


def _place(origin: str, address: str) -> str:
    return f"{address or 'this process'} ({origin})"


def _read(store: Store, judge: str) -> Origins:
    with store.read() as con:
        rows = con.execute("select value from meta where key = ?", [f"origins of {judge}"]).fetchall()
    if not rows:
        return Origins()
    found = json.loads(rows[0][0])
    origin, address = found["last"]
    return Origins(tuple(found["same"]), (origin, address))


def _write(store: Store, judge: str, origins: Origins) -> None:
    with store.write() as con:
        con.execute("delete from meta where key = ?", [f"origins of {judge}"])
        con.execute("insert into meta values (?, ?)", [f"origins of {judge}", json.dumps(asdict(origins))])
