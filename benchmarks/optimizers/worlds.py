"""*Simulated* worlds for comparing instruction optimizers; no world here was used while anything was tuned.

A world has its own made-up words. What is true is decided on the structure that a pair was made from, never on its
text; the oracle says the same in English. What varies between queries (which markers turn up, how well titles match,
how strict raters are) is shared by the rows of a query.

| kind | what is to be found |
|---|---|
| rules | policies that the seed instruction lacks or has wrong; gold is wrong on about 6 % |
| noisy | the same, gold being the majority of three raters who err a lot and share a query's leaning |
| null | nothing: grades come from the query's own distribution, whatever the text says |
| harmful | nothing: the seed instruction is the oracle, so that every change does harm or nothing |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from store.task import Grade, Task
from store.types import Instruction, Rule

KINDS = ("rules", "noisy", "null", "harmful")
GRADES = ("0", "1", "2")
TASK = Task(
    name="optimizers (simulated)",
    group_by="query",
    fields=("query", "title"),
    grades=tuple(Grade(symbol=g, value=int(g)) for g in GRADES),
)
SPLITS = {"train": 30, "dev": 8, "holdout": 22}  # groups
ROWS = 6  # a group
FRESH = 150  # groups of the untouched test
MARKERS, WORDS_A_MARKER = 5, 2
TUNING = 10_000  # seeds from here on are for tuning


@dataclass(frozen=True)
class Row:
    """One pair with its gold grade (what optimizers are given) and its true grade (what only the simulation knows)."""

    query: str
    title: str
    split: str
    gold: str
    true: str


@dataclass(frozen=True)
class World:
    """A world: labelled rows, fresh rows for the final measurement, and both ends of what can be reached."""

    kind: str
    number: int
    rows: tuple[Row, ...]
    fresh: tuple[Row, ...]
    seed: Instruction
    oracle: Instruction

    def of(self, *splits: str) -> list[Row]:
        """Rows of the splits."""
        return [row for row in self.rows if row.split in splits]


@dataclass(frozen=True)
class _Words:
    """A world's vocabulary and policies: marker words and the grade that each marker leads to."""

    nouns: list[str]
    details: list[str]
    fillers: list[str]
    markers: list[list[str]]
    leads_to: list[str]


@dataclass(frozen=True)
class _Query:
    """What the rows of one query share."""

    words: list[str]
    marked: list[float]  # chance of each marker
    matches: list[float]  # chances of no, some, every word in the title
    leaning: int  # of its raters: -1, 0, 1
    grades: list[float]  # in a null world


def make_world(kind: str, number: int, splits: Mapping[str, int] = SPLITS, fresh: int = FRESH) -> World:
    """The world of this kind and number; the same always.

    Args:
        splits: groups in each split.
        fresh: groups for the final measurement.
    """
    rng = Random(f"optimizers-{kind}-{number}")
    words = _vocabulary(rng)
    queries: set[str] = set()
    rows = [row for split, groups in splits.items() for row in _rows(kind, words, split, groups, ROWS, rng, queries)]
    final = _rows(kind, words, "fresh", fresh, ROWS, rng, queries)
    oracle = _oracle(words)
    return World(kind, number, tuple(rows), tuple(final), oracle if kind == "harmful" else _seed(), oracle)


def _vocabulary(rng: Random) -> _Words:
    made: set[str] = set()
    while len(made) < 90:
        made.add("".join(rng.choice("bdfgklmnprtvz") + rng.choice("aeiou") for _ in range(rng.choice((2, 3)))))
    words = sorted(made)
    rng.shuffle(words)
    cut = MARKERS * WORDS_A_MARKER
    markers = [words[i : i + WORDS_A_MARKER] for i in range(0, cut, WORDS_A_MARKER)]
    leads_to = ["0", "0", "1", "1", "2"]
    rng.shuffle(leads_to)
    return _Words(words[cut : cut + 16], words[cut + 16 : cut + 36], words[cut + 36 :], markers, leads_to)


def _rows(kind: str, words: _Words, split: str, groups: int, size: int, rng: Random, queries: set[str]) -> list[Row]:
    rows: list[Row] = []
    for _ in range(groups):
        query = _query(words, rng)
        while (name := " ".join(query.words)) in queries:
            query = _query(words, rng)
        queries.add(name)
        titles: set[str] = set()
        while len(titles) < size:
            row = _row(kind, words, query, split, rng)
            if row.title not in titles:
                titles.add(row.title)
                rows.append(row)
    return rows


def _query(words: _Words, rng: Random) -> _Query:
    marked = [min(0.8, 0.13 * rng.gammavariate(0.7, 1 / 0.7)) for _ in words.markers]
    return _Query(
        [rng.choice(words.nouns), *rng.sample(words.details, 2)],
        marked,
        [rng.gammavariate(1.5, 1.0) for _ in range(3)],
        rng.choice((-1, 1)) if rng.random() < 0.25 else 0,
        [rng.gammavariate(0.5, 1.0) for _ in GRADES],
    )


def _row(kind: str, words: _Words, query: _Query, split: str, rng: Random) -> Row:
    marks = [i for i, chance in enumerate(query.marked) if rng.random() < chance]
    match = rng.choices((0, 1, 2), query.matches)[0]
    kept = query.words if match == 2 else rng.sample(query.words, rng.choice((1, 2)) if match else 0)
    title = [*kept, *rng.sample(words.fillers, 3), *(rng.choice(words.markers[i]) for i in marks)]
    rng.shuffle(title)
    true = words.leads_to[marks[0]] if marks else GRADES[match]
    if kind == "null":
        true = rng.choices(GRADES, query.grades)[0]
    return Row(" ".join(query.words), " ".join(title), split, _GOLD[kind](true, query, rng), true)


# -- gold -----------------------------------------------------------------------------------------


def _moved(grade: str, by: int) -> str:
    return GRADES[min(max(int(grade) + by, 0), len(GRADES) - 1)]


def _tidy(true: str, query: _Query, rng: Random) -> str:
    """Wrong on 4 % of rows, and on a tenth of the rows of queries that lean."""
    if rng.random() < 0.04:
        return rng.choice([g for g in GRADES if g != true])
    return _moved(true, query.leaning) if rng.random() < 0.1 else true


def _majority(true: str, query: _Query, rng: Random) -> str:
    """The middle of three raters who err on 15, 25 and 35 %, all leaning the same way on some queries."""
    said = []
    for error in (0.15, 0.25, 0.35):
        wrong = rng.random() < error
        leans = rng.random() < 0.5
        said.append(rng.choice(GRADES) if wrong else _moved(true, query.leaning) if leans else true)
    return sorted(said)[1]


_GOLD: dict[str, Callable[[str, _Query, Random], str]] = {
    "rules": _tidy, "noisy": _majority, "harmful": _tidy, "null": lambda true, query, rng: true,
}  # fmt: skip

# -- instructions -----------------------------------------------------------------------------------

_PREAMBLE = "Judge how well the title answers the query."
_NONE, _EVERY = "No word of the query appears in the title.", "Every word of the query appears in the title."


def _seed() -> Instruction:
    """What somebody would begin with: knows no marker, and takes a partial match for no match."""
    return Instruction(_PREAMBLE, (Rule("R01", _EVERY, "2"), Rule("R02", "Otherwise.", "0")))


def _oracle(words: _Words) -> Instruction:
    marked = [
        Rule(f"R{i:02}", f'The title contains "{a}" or "{b}".', grade)
        for i, ((a, b), grade) in enumerate(zip(words.markers, words.leads_to, strict=True), start=1)
    ]
    rest = (Rule("R11", _NONE, "0"), Rule("R12", _EVERY, "2"), Rule("R13", "Otherwise.", "1"))
    return Instruction(_PREAMBLE, (*marked, *rest), author="simulation")
