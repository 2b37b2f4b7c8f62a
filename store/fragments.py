"""SQL expressions that several packages share; each function returns text for one query.

Field names go through `quote`, values are bound or written by `literal`: text from data is never SQL.
"""

from collections.abc import Sequence

from store.db import quote
from store.task import Task

# Everything that is neither letter, mark nor digit separates words (RE2 syntax).
_GAP = r"[^\p{L}\p{M}\p{N}]+"


def literal(text: str) -> str:
    """A text as an SQL literal, for the places that take no parameter (COPY's file name, generated views)."""
    return "'" + text.replace("'", "''") + "'"


def valid_probs(column: str, grades: int) -> str:
    """Whether a verdict's probabilities are usable: one for each grade, none negative, summing to 1 (± 0.001).

    Written out by element, which is several times faster than list functions. NaN sorts above every number in
    DuckDB, so a list that holds one fails the sum.
    """
    parts = [f"{column}[{i}]" for i in range(1, grades + 1)]
    return (
        f"coalesce(len({column}) = {grades} and {' and '.join(f'{part} >= 0' for part in parts)} "
        f"and {' + '.join(parts)} between 0.999 and 1.001, false)"
    )


def sample_json(fields: Sequence[str]) -> str:
    """The sample as one JSON object, equal to `piar.prompting.sample_text`."""
    parts = [f"{literal(_key(name))} || to_json(coalesce({quote(name)}, ''))" for name in fields]
    return "'{' || " + " || ', ' || ".join(parts) + " || '}'"


def _key(name: str) -> str:
    return f'"{name}": '


def normal_text(column: str) -> str:
    """Lower case, every run of non-word characters one space: what "the same text" means for duplicates and leaks."""
    return f"trim(regexp_replace(lower(coalesce({column}, '')), {literal(_GAP)}, ' ', 'g'))"


def sample_words(task: Task) -> str:
    """All fields of a sample as one normalised text, the fields kept apart by a line break."""
    return " || chr(10) || ".join(normal_text(quote(name)) for name in task.fields)
