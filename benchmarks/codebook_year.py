"""A year of a simulated team: what `piar status` says after each revision, beside what the simulation knows.

`python -m benchmarks.codebook_year [SEED] [PICTURE.svg]`. *Simulated*: three raters judge twelve rows a week and cite a
rule with every answer, and one of them slips more from the summer on. The codebook is revised twelve times: typography,
rules added, changed, dropped and put back, a grade's meaning, minor edits, one of which is called so wrongly and taken
back. Twice what is stale is judged again. Dates are simulated; all else is the real store, verbs and queries.
"""

import random
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.year_picture import draw
from piar.instructions.markdown import parse, write
from piar.project.facade import Project
from piar.query.status import Status
from store.agreement import krippendorff_alpha, level_of
from store.db import Store
from store.ids import sample_id
from store.task import Grade, Task, dump_task
from store.types import Instruction, Label, Part, Rule

START, WEEKS, ROWS = datetime(2026, 1, 5, 9), 52, 12
RATERS = {"ann": 0.95, "bob": 0.9, "cy": 0.9}  # share of right answers at first
DRIFT = ("cy", 26, 0.3)  # who slips, from which week on, by how much at the end of the year
TASK = Task(
    name="team",
    group_by="query",
    fields=("query", "title"),
    grades=tuple(Grade(symbol=str(n), value=n, meaning=m) for n, m in enumerate(("No use.", "Would do.", "It is it."))),
)
FIRST = Instruction(
    "Judge how well the title fits the query.",
    (
        Rule("R01", "The title names the thing that was asked for.", "2"),
        Rule("R02", "An accessory for the thing that was asked for.", "1"),
        Rule("R03", "Another thing of the same kind.", "1"),
        Rule("R04", "A set that contains the thing.", "2"),
        Rule("R05", "Anything else.", "0"),
    ),
)
TOLD = re.compile(r"(.+?) changed on \S+; ([\d,]+) labels, ([\d.]+) hours of work")


@dataclass
class Given:
    """A label as the simulation knows it: which wording of its rule and grade it was given under."""

    person: str
    row: int
    seconds: float
    words: dict[str, str]


@dataclass
class Year:
    """The team's project, the calendar, and the truth about every label.

    Attributes:
        meaning: (what, wording) -> its meaning; wordings of one meaning have equal ones.
    """

    project: Project
    rng: random.Random
    now: datetime = START
    given: list[Given] = field(default_factory=list)
    meaning: dict[tuple[str, str], str] = field(default_factory=dict)
    agreement: list[float | None] = field(default_factory=list)

    def instruction(self) -> Instruction:
        """What the file says."""
        return parse((self.project.folder / "instruction.md").read_text(encoding="utf-8"), TASK)

    def words(self) -> dict[str, str]:
        """What each rule and grade says now."""
        current = self.instruction()
        grades = {f"grade {g.symbol}": current.meanings.get(g.symbol, g.meaning) for g in TASK.grades}
        return grades | {f"rule {r.id}": f"{r.grade} {r.words}" for r in current.rules}

    def stale(self) -> dict[str, tuple[int, float]]:
        """By the simulation: what is stale -> labels and hours."""
        now, found = self.words(), dict[str, list[float]]()
        latest = {(g.person, g.row): g for g in self.given}
        for label in latest.values():
            for what, said in label.words.items():
                if self._meant(what, said) != self._meant(what, now.get(what)):
                    found.setdefault(what, []).append(label.seconds)
        return {what: (len(seconds), sum(seconds) / 3600) for what, seconds in found.items()}

    def differs(self, label: Given, now: dict[str, str]) -> bool:
        """Whether a label rests on something that means something else now."""
        return any(self._meant(what, said) != self._meant(what, now.get(what)) for what, said in label.words.items())

    def _meant(self, what: str, said: str | None) -> str | None:
        return None if said is None else self.meaning.get((what, said), said)

    def same(self, what: str, before: str, after: str) -> None:
        """From now on the two wordings mean one thing."""
        self.meaning[what, after] = self._meant(what, before) or before


# -- the team at work -------------------------------------------------------------------------------


def week(year: Year, number: int) -> None:
    """Everybody judges the week's rows."""
    asked = [(person, row) for row in range(number * ROWS, (number + 1) * ROWS) for person in RATERS]
    grades = judge(year, asked, number, f"week {number}")
    votes = np.zeros((ROWS, len(TASK.grades)), dtype=np.int64)
    for (_, row), grade in zip(asked, grades, strict=True):
        votes[row - number * ROWS, TASK.index(grade)] += 1
    year.agreement.append(krippendorff_alpha(votes, level=level_of(TASK), values=[0, 1, 2]).value)


def judge(year: Year, asked: Sequence[tuple[str, int]], number: int, batch: str) -> list[str]:
    """Answers: the rule that decides the row, its grade with the person's chance, the time it took."""
    rules, words = year.instruction().rules, year.words()
    slips, since, by = DRIFT
    labels, grades = [], []
    for person, row in asked:
        rule = rules[random.Random(row).randrange(len(rules))]
        chance = RATERS[person] - (by * max(0, number - since) / (WEEKS - since) if person == slips else 0.0)
        others = [g for g in TASK.symbols if g != rule.grade]
        grade = str(rule.grade) if year.rng.random() < chance else year.rng.choice(others)
        seconds, key = round(year.rng.lognormvariate(3, 0.4), 1), sample_id(*_texts(row))
        year.now += timedelta(minutes=1)
        labels.append(
            Label(key, "human", person, grade, rule=rule.id, seconds=seconds, blind=True, batch=batch, at=year.now)
        )
        year.given.append(Given(person, row, seconds, {w: words[w] for w in (f"rule {rule.id}", f"grade {grade}")}))
        grades.append(grade)
    year.project.store.add_labels(labels, "year")
    return grades


def judge_again(year: Year, number: int) -> None:
    """Whoever gave a stale label judges the row anew."""
    now, latest = year.words(), {(g.person, g.row): g for g in year.given}
    judge(year, [key for key, label in latest.items() if year.differs(label, now)], number, f"again {number}")


def _texts(row: int) -> tuple[str, tuple[str, str]]:
    return f"query {row}", (f"query {row}", f"title {row}")


# -- twelve revisions -------------------------------------------------------------------------------


def reword(rule: str, text: str) -> Callable[[Instruction], Instruction]:
    """A rule in other words."""
    return lambda now: replace(now, rules=tuple(replace(r, text=text) if r.id == rule else r for r in now.rules))


def told(rule: str, part: Part) -> Callable[[Instruction], Instruction]:
    """A rule with one more part."""
    return lambda now: replace(
        now, rules=tuple(replace(r, parts=(*r.parts, part)) if r.id == rule else r for r in now.rules)
    )


def means(grade: str, text: str) -> Callable[[Instruction], Instruction]:
    """A grade with another meaning."""
    return lambda now: replace(now, meanings={**now.meanings, grade: text})


@dataclass(frozen=True)
class Revision:
    """An edit, what the team calls minor of it, and what else happens.

    Attributes:
        minor: what is called minor; `wrongly`: and taken back at the next revision.
        again: whether what is stale is judged again afterwards.
        free: no label rests on what it changes.
    """

    name: str
    edit: Callable[[Instruction], Instruction]
    minor: tuple[str, ...] = ()
    typography: bool = False
    wrongly: bool = False
    again: bool = False
    free: bool = False

    @property
    def small(self) -> bool:
        """Whether it should make nothing stale."""
        return self.free or self.typography or bool(self.minor)


REVISIONS = (
    Revision("typography", reword("R01", "The  title names the\u00a0thing that was asked for"), typography=True),
    Revision("R06 is new", lambda now: replace(now, rules=(Rule("R06", "A spare part.", "1"), *now.rules)), free=True),
    Revision("R02 changed", reword("R02", "An accessory, unless it was asked for.")),
    Revision("R01 reworded", reword("R01", "The title has the name of what was asked for."), minor=("rule R01",)),
    Revision("grade 1 changed", means("1", "Somebody would take it."), again=True),
    Revision("R03 explained", told("R03", Part("example", "trail shoe → road shoe")), minor=("rule R03",)),
    Revision("R04 dropped", lambda now: replace(now, rules=tuple(r for r in now.rules if r.id != "R04"))),
    Revision("R02 put back", reword("R02", "An accessory for the thing that was asked for.")),
    Revision("R03 reworded", reword("R03", "A thing of the same brand."), minor=("rule R03",), wrongly=True),
    Revision("R05 changed", reword("R05", "Anything else, and things for another use."), again=True),
    Revision("order changed", lambda now: replace(now, rules=(*now.rules[1:], now.rules[0])), free=True),
    Revision("grade 2 reworded", means("2", "It is just that."), minor=("grade 2",)),
)


def revise(year: Year, revision: Revision) -> None:
    """Edit the file as a person does, then say what is minor."""
    project, before = year.project, year.words()
    year.now += timedelta(minutes=1)
    (project.folder / "instruction.md").write_text(write(revision.edit(year.instruction()), TASK), encoding="utf-8")
    project.adopt_instruction()
    after = year.words()
    year.now += timedelta(minutes=1)
    if revision.minor:
        project.minor(revision.minor, by="lead")
    changed = [what for what in after if what in before and before[what] != after[what]]
    for what in changed if revision.typography else revision.minor:
        year.same(what, before[what], after[what])


def take_back(year: Year, revision: Revision) -> None:
    """The wrong word is taken back: the wordings differ after all."""
    now = year.words()
    year.project.minor(revision.minor, revoke=True, by="lead")
    for what in revision.minor:
        del year.meaning[what, now[what]]


# -- what status says -------------------------------------------------------------------------------


def said(found: Status) -> dict[str, tuple[int, float]]:
    """By `piar status`: what is stale -> labels and hours."""
    lines = [TOLD.match(old.why) for old in found.stale if old.what == "people's labels"]
    return {m[1]: (int(m[2].replace(",", "")), float(m[3])) for m in lines if m}


def compared(year: Year, name: str, *, small: bool = False) -> dict[str, Any]:
    """One row of the table: by the simulation, by status, and whether they say the same.

    Args:
        small: drawn as an edit that should cost nothing.
    """
    found = year.project.status()
    true, told = year.stale(), said(found)
    right = {what: n for what, (n, _) in true.items()} == {what: n for what, (n, _) in told.items()}
    right &= all(abs(true[what][1] - told[what][1]) <= 0.051 for what in true if what in told)
    hours = sum(h for _, h in true.values())
    return {
        "at": year.now,
        "name": name,
        "small": small,
        "stale": true,
        "hours": hours,
        "told": sum(h for _, h in told.values()),
        "right": right,
        "minor": sum(m.labels for m in found.minor),
    }


@contextmanager
def calendar(year: Year) -> Iterator[None]:
    """The store's clock is the simulation's."""
    with patch("store.db.now", lambda: year.now), patch("piar.evolve.ledger.now", lambda: year.now):
        yield


def simulate(folder: Path, seed: int = 0) -> tuple[list[dict[str, Any]], Year]:
    """The year: a row for each revision and for each time that stale rows were judged again."""
    project = Project.init(folder)
    (folder / "task.toml").write_text(dump_task(TASK), encoding="utf-8")
    (folder / "instruction.md").write_text(write(FIRST, TASK), encoding="utf-8")
    store = Store.create(folder / "piar.duckdb", TASK)
    keys = [
        (sample_id(f"query {n}", (f"query {n}", f"title {n}")), f"query {n}", f"title {n}") for n in range(WEEKS * ROWS)
    ]
    with store.write() as con:
        con.execute(
            "insert into samples (sample_id, group_key, split, source, run_id, created_at, query, title) "
            "select unnest($1::uuid[]), unnest($2::varchar[]), 'train', 'simulated', 'r', '2026-01-01', "
            "unnest($2::varchar[]), unnest($3::varchar[])",
            [list(column) for column in zip(*keys, strict=True)],
        )
    year, rows = Year(project, random.Random(seed)), list[dict[str, Any]]()
    wrong: Revision | None = None
    with calendar(year):
        project.adopt_instruction()
        for number in range(WEEKS):
            year.now = START + timedelta(weeks=number)
            week(year, number)
            if number % 4 == 3 and number // 4 < len(REVISIONS):
                revision = REVISIONS[number // 4]
                if wrong is not None:
                    take_back(year, wrong)
                    rows.append(compared(year, f"{wrong.name}: minor taken back"))
                revise(year, revision)
                rows.append(compared(year, revision.name, small=revision.small))
                wrong = revision if revision.wrongly else None
                if revision.again:
                    judge_again(year, number)
                    rows.append(compared(year, "stale rows judged again"))
    return rows, year


def run(seed: int = 0, picture: str | None = None) -> None:
    """Print the year, and draw it."""
    with tempfile.TemporaryDirectory() as folder:
        rows, year = simulate(Path(folder) / "team", seed)
    for row in rows:
        what = ", ".join(f"{w} {n}" for w, (n, _) in sorted(row["stale"].items())) or "nothing"
        verdict = "right" if row["right"] else "WRONG"
        print(
            f"{row['at']:%d %b}  {row['name']:<34} stale: {what}; {row['hours']:.2f} h, status {row['told']:.1f} h, "
            f"{verdict}; {row['minor']} labels stand by a minor edit"
        )
    first, last = (statistics.mean(a or 0 for a in part) for part in (year.agreement[:13], year.agreement[-13:]))
    print(
        f"{sum(r['right'] for r in rows)} of {len(rows)} right; alpha {first:.2f} in the first quarter, {last:.2f} last"
    )
    if picture:
        Path(picture).write_text(draw(rows, year.agreement, START), encoding="utf-8")


if __name__ == "__main__":
    run(*(int(n) for n in sys.argv[1:2]), *sys.argv[2:3])
