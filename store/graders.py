"""Which columns of a file hold people's grades, or say who gave them: by their names, and by how their values agree."""

import re
from collections.abc import Iterable, Sequence
from itertools import combinations

import polars as pl

from store.cells import number
from store.columns import MAX_GRADES, Few, key

PERSON = r"(?:rater|annotator|judge|worker|coder|labell?er|reviewer|assessor|grader|evaluator|expert|marker)"
_RATER = re.compile(rf"{PERSON}s?_?(?:\d+|[a-z])|{PERSON}s?_\w+|\w+_{PERSON}_?(?:\d+|[a-z])")
_ABOUT_RATER = re.compile(
    r".*_(?:ids?|names?|counts?|n|num|number|comments?|notes?|emails?|confidence|times?|agreement|model|type|reason|"
    r"gender|sex|age|race|ethnicity|education|country|region|languages?|income|religion|ideology|experience|severity|"
    r"trust|bias)"
)
_SERIES = re.compile(
    r"(ann|annot|[arhjwp]|human|person|people|crowd|turker|student|user|opinion|vote|label|grade|score|rating|"
    r"relevance|judge?ment)_?(\d+|[a-h])"
)
_ASPECT = re.compile(rf"{PERSON}_?\d+_(\w+)")  # `rater1_style`: several things, each graded by several people
_WHO = re.compile(
    rf"(?:assignment_)?{PERSON}(?:_?(?:id|name|email))?|(?:annotated|labell?ed|graded|rated|judged|reviewed)_by|who"
)
_ADDRESS = re.compile(r"\s*[^@\s]+@[^@\s]+\.[a-z]+\s*", re.IGNORECASE)  # a column called by the address of a person
_MOST_NUMBERS = 8  # columns among which a mean of two or three others is looked for
_MOST_MEANS = 60  # different values of a column of means
_LOOKED_AT = 2000  # rows


def raters(names: Sequence[str], few: Few) -> tuple[str, ...]:
    """The columns that hold one person's grades each: called after raters, by addresses, or numbered; values alike.

    What is said about raters (their age, their severity) is left out, and so are the few words among many numbers.
    """
    open_ = [name for name in names if few.get(name)]
    series: dict[str, list[str]] = {"": [name for name in open_ if _ADDRESS.fullmatch(name)]}
    for name in open_:
        if found := _ASPECT.fullmatch(key(name)) or _SERIES.fullmatch(key(name)):
            series.setdefault(found[1], []).append(name)
    named = [n for n in open_ if _RATER.fullmatch(key(n)) and not is_about_people(n) and not _ASPECT.fullmatch(key(n))]
    if named:
        words = [name for name in named if not any(map(_numeric, few[name]))]
        numbers = [name for name in named if all(map(_numeric, few[name]))]
        strange = words if len(words) < len(numbers) else numbers if len(numbers) < len(words) else []
        return tuple(name for name in named if name not in strange)
    for members in series.values():
        union = frozenset().union(*(few[name] for name in members))
        alike = all(few[name] & few[members[0]] for name in members)
        if len(members) > 1 and alike and len(union) <= MAX_GRADES:
            return tuple(members)
    return ()


def _numeric(value: str) -> bool:
    return number(value) is not None


def is_about_people(name: str) -> bool:
    """Whether a column says who grades or what these people are like, so that it holds no grade."""
    known = key(name)
    return bool(_WHO.fullmatch(known)) or bool(_RATER.fullmatch(known) and _ABOUT_RATER.fullmatch(known))


def averaged(frame: pl.DataFrame, few: Few) -> tuple[str, tuple[str, ...]] | None:
    """A column of means, not all whole, and the columns of grades that it is the mean of on every row; or None."""
    head = frame.head(_LOOKED_AT)
    varied = [name for name in frame.columns if 1 < head[name].n_unique() <= _MOST_MEANS]
    cells = {name: [number(cell) for cell in head[name].to_list()] for name in varied}
    known = {name: [v for v in values if v is not None] for name, values in cells.items() if None not in values}
    people = [name for name in known if len(few.get(name, ())) > 1]
    means = [name for name, values in known.items() if any(value % 1 for value in values)]
    for mean in means if len(known) <= _MOST_NUMBERS else ():
        for size in (2, 3):
            for members in combinations([name for name in people if name != mean], size):
                rows = zip(known[mean], *(known[name] for name in members), strict=True)
                if known[members[0]] != known[members[1]] and all(abs(m - sum(v) / size) < 0.02 for m, *v in rows):
                    return mean, members
    return None


def annotator(frame: pl.DataFrame, names: Iterable[str], texts: Sequence[str]) -> str | None:
    """The column that says who gave the grade of a row, where several people graded the same texts, row by row."""
    named = next((n for n in names if _WHO.fullmatch(key(n)) and 1 < frame[n].n_unique() < len(frame)), None)
    if named is None or not texts:
        return None
    people = frame.group_by(texts).agg(pl.col(named).n_unique())[named]
    return named if int((people > 1).sum()) > 0.05 * len(people) else None
