"""What one cell of a file says as a grade."""

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence

from store.scales import plain
from store.task import Task

NO_GRADE = "none"  # nothing among numbers, a grade like any other among words: nobody writes "hate, offensive, nan"
MISSING = frozenset(
    {
        "",
        "na",
        "n/a",
        "nan",
        NO_GRADE,
        "null",
        "-",
        "--",
        "–",
        "—",
        "\\n",  # \N, as MySQL and PostgreSQL write it
        "<na>",
        "<null>",
        "(null)",
        "nat",
        "#n/a",
        "#null!",
        "#div/0!",
        "#value!",
        "#ref!",
        "#name?",
        "#num!",
    }
)
_FRACTION = re.compile(r"(\d*)\s*([¼-¾⅐-⅞])")
_CAPTIONED = re.compile(r"\(?(-?\d+(?:\.\d+)?)(?:\)|\s*[-–—:=.](?=\s|\D)|(?=\s))\s*\(?([^\W\d_].*?)\)?")


def bare(cell: str) -> str:
    """A cell without what keyboards and spreadsheets add: blanks, wide digits, a plus or %, the `.0` of a gap."""
    text = _FRACTION.sub(lambda m: f"{int(m[1] or 0) + unicodedata.numeric(m[2]):g}", cell)
    text = " ".join(unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-").split())
    text = re.sub(r"^([-+]?\d+(?:[.,]\d+)?) ?%$", r"\1", text)
    text = re.sub(r"^(-?\d+)(?:\.0+|,0{1,2})$", r"\1", text.removeprefix("+") if text[1:2].isdecimal() else text)
    return re.sub(r"^(-?\d+),(\d{1,2})$", r"\1.\2", text)


def number(cell: str) -> float | None:
    """A cell as a finite number, else None."""
    try:
        value = float(bare(cell)) if "_" not in cell else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def missing(cell: str) -> bool:
    """Whether a cell says nothing."""
    return cell.strip().lower() in MISSING


def captioned(cell: str) -> tuple[str, str] | None:
    """The number and the words of a cell such as "3 - perfect", "(3) perfect" or "3: perfect"; else None."""
    found = _CAPTIONED.fullmatch(bare(cell))
    return (bare(found[1]), found[2]) if found else None


def rounded(cell: str) -> str:
    """A number as the nearest whole one, halves upwards; any other cell as it is."""
    value = number(cell)
    return cell if value is None else str(math.floor(value + 0.5))


def classed(cell: str, cuts: Sequence[float]) -> str:
    """A number as its class and what that means ("1 - from 40 to below 60"); any other cell as it is.

    Args:
        cuts: the lowest value of each class but the first, ascending.
    """
    value = number(cell)
    if value is None:
        return cell
    place = bisect_right(cuts, value)
    words = [f"from {cuts[place - 1]:g}"] if place else []
    words += [f"{'to ' if words else ''}below {cuts[place]:g}"] if place < len(cuts) else []
    return f"{place} - {' '.join(words)}"


def grade_symbol(cell: str, task: Task) -> str | None:
    """The grade that a cell names: by symbol, by name, as the same number ("2.0" for "2"), or as both; else None."""
    if cell in task.symbols:
        return cell
    word, value, both = plain(bare(cell)), number(cell), captioned(cell)
    for grade in task.grades:
        if word and word in (plain(grade.symbol), plain(grade.name)):
            return grade.symbol
        if value is not None and number(grade.symbol) == value:
            return grade.symbol
        if both and number(grade.symbol) == number(both[0]) and plain(grade.name) in ("", plain(both[1])):
            return grade.symbol
    return None
