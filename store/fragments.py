"""SQL expressions that several packages share; each function returns text for one query.

Field names go through `quote`, values are bound or written by `literal`: text from data is never SQL.
"""

import re
from collections.abc import Sequence

from store.db import quote
from store.task import CONTROL, Task

# Everything that is neither letter, mark nor digit separates words (RE2 syntax).
_GAP = r"[^\p{L}\p{M}\p{N}]+"
_UNSEEN = r"\p{Cf}+"  # zero-width spaces, soft hyphens, marks of direction: they stand within words and show nothing
_PLAIN = "(?:[A-Za-z0-9]+(?: [A-Za-z0-9]+)*)?"


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
    """The sample as one JSON object, equal to `piar.instructions.prompts.sample_text`."""
    parts = [f"{literal(_key(name))} || to_json(coalesce({quote(name)}, ''))" for name in fields]
    text = "'{' || " + " || ', ' || ".join(parts) + " || '}'"
    for first, rest in CONTROL.items():
        escaped = literal(f"\\\\u{ord(first):04x}\\1")
        text = f"regexp_replace({text}, {literal(re.escape(first) + f'({rest})')}, {escaped}, 'g')"
    return text


def _key(name: str) -> str:
    return f'"{name}": '


def normal_text(column: str) -> str:
    """Lower case, what nobody sees left out, each run of non-word characters one space.

    This is what "the same text" means for duplicates and leaks.

    A text of plain words and single spaces is only lowered, which is five times as fast as the Unicode classes.
    """
    text = f"coalesce({column}, '')"
    seen = f"regexp_replace(lower({text}), {literal(_UNSEEN)}, '', 'g')"
    return (
        f"if(regexp_full_match({text}, {literal(_PLAIN)}), lower({text}), "
        f"trim(regexp_replace({seen}, {literal(_GAP)}, ' ', 'g')))"
    )


def word_list(words: str) -> str:
    """SQL list of the words of a text that `sample_words` normalised."""
    return f"list_filter(string_split(replace({words}, chr(10), ' '), ' '), lambda w: w <> '')"


def sample_words(task: Task) -> str:
    """All fields of a sample as one normalised text, the fields kept apart by a line break."""
    return " || chr(10) || ".join(normal_text(quote(name)) for name in task.fields)
