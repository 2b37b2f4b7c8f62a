"""Columns that know the grade, since they were written while grading or made from it: no judge may read them.

A column is told by its name (a comment, an explanation), or by what it gives away: a naive Bayes over the words of that
column alone, judged on groups that it has not seen (Kaufman et al. 2012 call what it finds a leak).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import log

import polars as pl

from store.columns import key

MOST_ROWS = 2000
_FEWEST_ROWS = 40
_FOLDS = 5
_KNOWS = 0.97  # accuracy of a column alone, from which it gives the grade away
_WORDS = 60  # of a cell, its first
_NAME = re.compile(
    r"(?:\w+_)?(?:comments?|explanations?|explain|rationales?|justifications?|reasons?|reasoning|notes?|remarks?|"
    r"feedback|critiques?|annotations?|confidence|agreement|time|seconds|duration|timestamp|votes?|annotators?|raters?|"
    r"labell?ers?|label_name|label_text|grade_name|why)"
)


def hindsight(frame: pl.DataFrame, texts: Sequence[str], group: str | None, grade: str | None) -> dict[str, str]:
    """Those of the texts that know the grade, each with how that was seen.

    At least one text beside the group always stays: what is judged may be an explanation itself. By what it gives away
    only a column goes that is not the longest, and only where another one tells less.

    Args:
        texts: columns that may become fields.
        grade: the column of grades; None: only names are read.
    """
    judged = [name for name in texts if name != group]
    found = {name: "named like a note of the grader" for name in judged if _NAME.fullmatch(key(name))}
    rest = [name for name in judged if name not in found]
    if not rest:
        return {}
    if grade is not None and len(rest) > 1:
        found |= _telling(frame, rest, group, grade)
    return found


def _telling(frame: pl.DataFrame, texts: Sequence[str], group: str | None, grade: str) -> dict[str, str]:
    graded = frame.filter(pl.col(grade).str.strip_chars() != "").head(MOST_ROWS)
    most = max(Counter(graded[grade].to_list()).values(), default=0)
    if len(graded) < _FEWEST_ROWS or most > 0.85 * len(graded):
        return {}
    folds = _folds(graded[group if group else texts[0]])
    right = {name: _accuracy(graded[name].to_list(), graded[grade].to_list(), folds) for name in texts}
    longest = max(texts, key=lambda name: graded[name].str.len_chars().mean() or 0)
    if min(right.values()) >= _KNOWS:
        return {}
    return {
        name: f"alone it gives away {share:.0%} of the grades of unseen groups"
        for name, share in right.items()
        if share >= _KNOWS and name != longest
    }


def _folds(groups: pl.Series) -> list[int]:
    places = {name: place % _FOLDS for place, name in enumerate(groups.unique(maintain_order=True).to_list())}
    return [places[name] for name in groups.to_list()]


def _accuracy(cells: Sequence[str], grades: Sequence[str], folds: Sequence[int]) -> float:
    words = [_words(cell) for cell in cells]
    right = 0
    for fold in range(_FOLDS):
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        rows: Counter[str] = Counter()
        for said, grade, place in zip(words, grades, folds, strict=True):
            if place != fold:
                rows[grade] += 1
                seen[grade].update(said)
        right += sum(
            place == fold and bool(rows) and _likeliest(said, seen, rows) == grade
            for said, grade, place in zip(words, grades, folds, strict=True)
        )
    return right / len(cells)


def _words(cell: str) -> set[str]:
    """The words of a cell and the cell as a whole; a blank one says something too."""
    return {*re.findall(r"\w+", cell.lower())[:_WORDS], f"={cell.strip().lower()}"}


def _likeliest(words: set[str], seen: Mapping[str, Counter[str]], rows: Counter[str]) -> str:
    def score(grade: str) -> float:
        return log(rows[grade]) + sum(log((seen[grade][w] + 0.1) / (rows[grade] + 0.2)) for w in words)

    return max(rows, key=score)
