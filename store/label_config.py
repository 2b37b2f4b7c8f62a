"""A Label Studio label configuration as a task: what annotators chose becomes grades, what they read becomes fields.

The configuration is somebody else's file: only names and captions are taken from it, and a document type, which
entities would need, is refused.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import polars as pl

from store.errors import UsageError
from store.field_names import field_name
from store.files import read_text
from store.prepare import ImportMapping
from store.propose import guess
from store.scales import known_order
from store.task import Grade, Task

MOST = 1_000_000  # characters; configurations of projects have a few thousand
MOST_GRADES = 30
_DECLARED = re.compile(r"<!(?!--|\[CDATA\[)")
_DATA = re.compile(r"\$(\w+)", re.ASCII)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?!\S)|-?\d+(?=\D)")
_TEXTS = ("Text", "HyperText", "Header")


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """What a configuration says of the task.

    Attributes:
        control: name of the control that holds the grade.
        columns: keys of a task's data that are shown as text, in order.
        grades: in ascending order of value.
        ask: the first caption that shows no data, "" without one.
        ordered: the captions hold numbers, which are the values, or the words of a known scale; else the first choice
            stands highest, and that is no order.
    """

    control: str
    columns: tuple[str, ...]
    grades: tuple[Grade, ...]
    ask: str
    ordered: bool


def load_label_config(path: Path, control: str | None = None) -> LabelConfig:
    """Read a configuration from a file; raises as `read_label_config` does."""
    try:
        return read_label_config(read_text(path), control)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist.", "Check the name.") from None


def read_label_config(text: str, control: str | None = None) -> LabelConfig:
    """Read a configuration.

    Args:
        control: name of the control that holds the grade; None: the only one, or the one that is called `grade`.

    Raises:
        UsageError: no XML, one with a document type, no choice of one or several of them, or no text to judge.
    """
    if len(text) > MOST or _DECLARED.search(text):
        raise UsageError(
            "The label configuration is larger than 1 MB or declares a document type.",
            "Copy it anew from Settings, Labeling Interface, Code.",
        )
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise UsageError(f"The label configuration is no XML: {error}.", "Copy it anew from Label Studio.") from None
    grading = _control(root, control)
    columns = tuple({column.lower(): column for column in reversed(list(_columns(root)))}.values())[::-1]
    if grading is None or not columns:
        missing = "a choice of one among several" if grading is None else "a text that shows data"
        raise UsageError(
            f"The label configuration has no {missing}.", "piar judges texts by grades: leave out --label-config."
        )
    captions = list(_captions(grading))
    numbers = [float(found[0]) if (found := _NUMBER.match(caption)) else None for _, caption, _ in captions]
    numbered = None not in numbers and len(set(numbers)) == len(numbers)
    words = [alias or caption for alias, caption, _ in captions]
    scale = known_order(words)
    places = [words[::-1].index(word) if scale is None else scale.index(word) for word in words]
    order = [n for n in numbers if n is not None] if numbered else [float(place) for place in places]
    named = list(zip(captions, order, strict=True))
    grades = [_grade(*caption, value) for caption, value in named]
    if len({g.symbol for g in grades}) < len(grades):
        grades = [_grade(*caption, value, short=False) for caption, value in named]
    ask = next((h.get("value", "").strip() for h in root.iter("Header") if "$" not in h.get("value", "$")), "")
    return LabelConfig(
        grading.get("name", ""),
        columns,
        tuple(sorted(grades, key=lambda g: g.value)),
        ask.strip(),
        numbered or scale is not None,
    )


def task_of(config: LabelConfig, frame: pl.DataFrame, mapping: ImportMapping, name: str) -> tuple[Task, ImportMapping]:
    """The task of a configuration and of the project's exported tasks, and the mapping with its fields.

    Raises:
        UsageError: the tasks lack a column that the configuration shows.
    """
    known = [column for column in config.columns if column in frame.columns]
    if not known:
        raise UsageError(
            f"The file has none of the columns that the label configuration shows: {', '.join(config.columns)}.",
            "Give the configuration and the export of one project.",
        )
    ours = all(column.startswith("f_") for column in known)  # a page that piar made
    fields = {field_name(column.removeprefix("f_") if ours else column): column for column in known}
    said = mapping.model_copy(update={"fields": fields | mapping.fields})
    group = guess(frame, said).mapping.group or known[0]
    names = {column: field for field, column in said.fields.items()}
    task = Task(
        name=field_name(name).replace("_", "-"),
        group_by=names.get(group, group),
        fields=tuple(said.fields),
        grades=config.grades,
        ask=config.ask,
        ordered=config.ordered,
    )
    return task, said.model_copy(update={"group": group})


def _control(root: ET.Element, said: str | None) -> ET.Element | None:
    """The control of the grade: the one named so, else the only choice of one, else the only stars."""
    single = [
        c for c in root.iter("Choices") if c.get("choice") != "multiple" and 1 < len(list(_choices(c))) <= MOST_GRADES
    ]
    found = {c.get("name", ""): c for c in (*single, *root.iter("Rating"))}
    wanted = said or ("grade" if "grade" in found else None)
    if wanted is None and len(found) > 1 and len(single) != 1:
        raise UsageError(
            f"The label configuration has several controls that could hold the grade: {', '.join(map(repr, found))}.",
            f"Name it: --control {shlex.quote(next(iter(found)))}",
        )
    if wanted is not None and wanted not in found:
        raise UsageError(
            f"The label configuration has no choice of one, and no stars, named {wanted!r}.",
            f"It has {', '.join(map(repr, found)) or 'none'}.",
        )
    return found[wanted] if wanted else next(iter(found.values()), None)


def _choices(control: ET.Element) -> Iterator[ET.Element]:
    """Its choices in order; those below another choice refine that one and are no grades."""
    waiting = list(reversed(control))
    while waiting:
        element = waiting.pop()
        if element.tag == "Choice":
            yield element
        else:
            waiting.extend(reversed(element))


def _captions(control: ET.Element) -> Iterator[tuple[str, str, str]]:
    """(alias, caption, hint) of each grade."""
    if control.tag == "Rating":
        stars = control.get("maxRating", "5")
        yield from (("", str(n), "") for n in range(1, min(int(stars) if stars.isdecimal() else 5, 12) + 1))
        return
    for choice in _choices(control):
        yield choice.get("alias", ""), " ".join(choice.get("value", "").split()), choice.get("hint", "")


def _columns(root: ET.Element) -> Iterator[str]:
    for element in root.iter():
        if element.tag in _TEXTS:
            yield from _DATA.findall(element.get("value", ""))


def _grade(alias: str, caption: str, hint: str, value: float, short: bool = True) -> Grade:
    """The symbol is what Label Studio stores where that is a short word, else the number of the grade."""
    stored = alias or caption
    short = short and len(stored) <= 12 and stored.isprintable() and stored.split() == [stored]
    meaning = hint or (caption if alias else "")
    return Grade(symbol=stored if short else f"{value:g}", name="" if short else stored, value=value, meaning=meaning)
