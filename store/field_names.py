"""Names of a task's fields from a file's headers, whatever their alphabet; the same header gives the same name."""

import re
import unicodedata
from collections.abc import Iterable

from store.task import RESERVED

_SOUNDS = (
    "аa бb вv гg дd еe жzh зz иi йy кk лl мm нn оo пp рr сs тt уu фf "
    "хkh цts чch шsh щshch ъ ыy ь эe юyu яya іi їyi єye ґg ßss øo æae œoe łl đd ıi"
)
_SPELLED = {pair[0]: pair[1:] for pair in _SOUNDS.split()}


def field_name(column: str) -> str:
    """A header as the name of a field: letters, digits and underscores; other alphabets are spelled out."""
    plain = "".join(_spelled(c) for c in unicodedata.normalize("NFKC", column.strip()))
    name = re.sub(r"\W+", "_", plain, flags=re.ASCII).strip("_") or "field"
    if name[0].isdigit() or name.lower() in RESERVED:
        name = f"item_{name}"
    return name[:63]


def field_names(columns: Iterable[str]) -> dict[str, str]:
    """column -> its field's name, no two alike (ignoring case); a header that is such a name keeps it."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for column in sorted(columns, key=lambda column: column != field_name(column)):
        first = name = field_name(column)
        n = 2
        while name.lower() in taken:
            name, n = f"{first[:58]}_{n}", n + 1
        names[column] = name
        taken.add(name.lower())
    return names


def _spelled(letter: str) -> str:
    """A letter in ASCII: without its accent, by its sound where Unicode's name of it is one, else by its number."""
    if letter.isascii() or not letter.isalpha():
        return letter
    if (low := letter.lower()) in _SPELLED:
        return _SPELLED[low]
    bare = "".join(c for c in unicodedata.normalize("NFKD", letter) if c.isascii() and c.isalpha())
    if bare:
        return bare
    kind, _, sound = unicodedata.name(letter, "").rpartition(" ")
    spelled = kind.startswith(("HIRAGANA", "KATAKANA", "HANGUL")) and sound.isalpha()
    return sound.lower() if spelled else f"u{ord(letter):04x}"
