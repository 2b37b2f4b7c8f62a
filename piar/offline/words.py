"""Text as a literal reader sees it: words with light morphology, numbers with units, named attributes.

Case, accents, punctuation and plural s do not matter; nothing else is known about language.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

_WORD = re.compile(
    r"\d+(?:[.,]\d+)*"
    r"|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"  # scripts written without spaces: one character, one word
    r"|[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)
_POSSESSIVE = re.compile(r"['’]s?(?=\W|$)")


@lru_cache(maxsize=131_072)
def stem(word: str) -> str:
    """A word folded to lower case without accents or plural s: `Batteries` -> `battery`."""
    word = word.lower()
    if not word.isascii():
        word = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
    if word[:1].isdigit():
        return word.replace(",", ".").removesuffix(".0")
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    return word[:-1]


class Text:
    """A text's words (stems) with their places in the raw text.

    Attributes:
        raw: the text as it came.
        words: stems, in order.
        places: (start, end) of each word in `raw`.
        bag: the distinct stems.
    """

    __slots__ = ("_cuts", "_values", "bag", "places", "raw", "words")

    def __init__(self, raw: str, words: tuple[str, ...], places: tuple[tuple[int, int], ...]) -> None:
        self.raw = raw
        self.words = words
        self.places = places
        self.bag = frozenset(words)
        self._cuts: dict[object, Text] = {}
        self._values: dict[Kind, frozenset[str]] = {}

    def cut(self, start: int, stop: int) -> "Text":
        """The part between two word positions; places still point into the whole raw text."""
        key = (start, stop)
        part = self._cuts.get(key)
        if part is None:
            part = self._cuts[key] = Text(self.raw, self.words[start:stop], self.places[start:stop])
        return part

    def find(self, term: tuple[str, ...]) -> int:
        """Position of a term (one or more stems in a row), or -1."""
        if not term or term[0] not in self.bag:
            return -1
        size = len(term)
        for i in range(len(self.words) - size + 1):
            if self.words[i : i + size] == term:
                return i
        return -1

    def values(self, kind: "Kind") -> frozenset[str]:
        """What the text says of a kind, as canonical values: {"red"}, {"500 ml"} …"""
        found = self._values.get(kind)
        if found is None:
            found = self._values[kind] = kind.read(self)
        return found

    def quote(self, start: int, stop: int) -> str:
        """The raw text of the words from `start` to before `stop`."""
        return self.raw[self.places[start][0] : self.places[stop - 1][1]]


@lru_cache(maxsize=32_768)
def read_text(raw: str) -> Text:
    """Split a text into words, once per distinct text."""
    clean = _POSSESSIVE.sub(lambda m: " " * len(m[0]), raw) if "'" in raw or "’" in raw else raw
    found = [(m.start(), m.end()) for m in _WORD.finditer(clean)]
    return Text(raw, tuple(stem(clean[a:b]) for a, b in found), tuple(found))


def stems(text: str) -> tuple[str, ...]:
    """The stems of a short text."""
    return read_text(text).words


def overlap_grade(texts: Sequence[Text], grades: int) -> int:
    """A weak guess where no rule fits: the lowest grade when no field repeats a word of the first, else a middle one.

    Args:
        texts: the sample's fields.
        grades: how many grades there are, ascending.
    """
    asked = texts[0].bag if texts else frozenset()
    return 0 if all(asked.isdisjoint(text.bag) for text in texts[1:]) else grades // 2


@dataclass(frozen=True)
class Kind:
    """A named class of words whose values can be compared between two texts.

    `values` maps each way of saying it (stems in a row) to its canonical value.
    """

    name: str
    ways: tuple[tuple[tuple[str, ...], str], ...] = ()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.ways))

    @cached_property
    def _single(self) -> Mapping[str, str]:
        return {way[0]: value for way, value in self.ways if len(way) == 1}

    @cached_property
    def _several(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        return tuple((way, value) for way, value in self.ways if len(way) > 1)

    def read(self, text: Text) -> frozenset[str]:
        """The canonical values that a text names."""
        found = {self._single[word] for word in text.bag & self._single.keys()}
        found.update(value for way, value in self._several if text.find(way) >= 0)
        return frozenset(found)

    def conflicts(self, a: frozenset[str], b: frozenset[str]) -> bool:
        """Whether both texts name the kind and agree on nothing."""
        return bool(a) and bool(b) and not a & b

    def position(self, text: Text) -> tuple[int, int] | None:
        """Word positions of the first mention."""
        for i, word in enumerate(text.words):
            if word in self._single:
                return i, i + 1
        places = ((text.find(way), len(way)) for way, _ in self._several)
        return next(((i, i + n) for i, n in places if i >= 0), None)


class _Numbers(Kind):
    """Bare numbers, wherever they stand."""

    def read(self, text: Text) -> frozenset[str]:
        return frozenset(word for word in text.bag if word[0].isdigit())

    def position(self, text: Text) -> tuple[int, int] | None:
        return next(((i, i + 1) for i, word in enumerate(text.words) if word[0].isdigit()), None)


class _Measures(Kind):
    """Numbers with a unit, converted to the dimension's base: `0.5 l` and `500 ml` are equal."""

    def read(self, text: Text) -> frozenset[str]:
        return frozenset(value for _, _, value in self._found(text))

    def conflicts(self, a: frozenset[str], b: frozenset[str]) -> bool:
        shared = {v.rpartition(" ")[2] for v in a} & {v.rpartition(" ")[2] for v in b}
        return any(not _of_unit(a, unit) & _of_unit(b, unit) for unit in shared)

    def position(self, text: Text) -> tuple[int, int] | None:
        return next(((start, stop) for start, stop, _ in self._found(text)), None)

    def _found(self, text: Text) -> Iterable[tuple[int, int, str]]:
        for i in range(len(text.words) - 1):
            unit = _UNITS.get(text.words[i + 1])
            if unit and text.words[i][0].isdigit() and (unit[0] == "pack") == (self.name == "pack size"):
                amount = _amount(text.words[i])
                if amount is not None:
                    yield i, i + 2, f"{amount * unit[1]:.6g} {unit[0]}"
            elif self.name == "pack size" and text.words[i : i + 2] in _PACK_OF and i + 2 < len(text.words):
                amount = _amount(text.words[i + 2])
                if amount is not None:
                    yield i, i + 3, f"{amount:.6g} pack"


def _of_unit(values: frozenset[str], unit: str) -> frozenset[str]:
    return frozenset(v for v in values if v.rpartition(" ")[2] == unit)


def _amount(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


_PACK_OF = {("pack", "of"), ("set", "of"), ("box", "of")}
_UNITS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("pack", "pc", "piece", "count", "ct"), ("pack", 1.0)),
    **dict.fromkeys(("inch", "in"), ("mm", 25.4)),
    **{"mm": ("mm", 1.0), "cm": ("mm", 10.0), "m": ("mm", 1000.0), "meter": ("mm", 1000.0), "metre": ("mm", 1000.0)},
    **{"ft": ("mm", 304.8), "foot": ("mm", 304.8), "feet": ("mm", 304.8)},
    **{"ml": ("ml", 1.0), "cl": ("ml", 10.0), "l": ("ml", 1000.0), "liter": ("ml", 1000.0), "litre": ("ml", 1000.0)},
    **{"g": ("g", 1.0), "kg": ("g", 1000.0), "oz": ("g", 28.35), "lb": ("g", 453.6)},
    **{"mb": ("gb", 1 / 1024), "gb": ("gb", 1.0), "tb": ("gb", 1024.0)},
    **{"w": ("w", 1.0), "watt": ("w", 1.0), "kw": ("w", 1000.0), "v": ("v", 1.0), "volt": ("v", 1.0)},
    **{"mah": ("mah", 1.0), "hz": ("hz", 1.0), "mp": ("mp", 1.0), "year": ("year", 1.0)},
}


def define(name: str, terms: Iterable[str | tuple[str, ...]]) -> Kind:
    """A kind from its terms; a tuple holds several ways of saying its first one."""
    groups = [(term,) if isinstance(term, str) else term for term in terms]
    return Kind(name, tuple((stems(way), group[0]) for group in groups for way in group))


_COLOURS = (
    "black",
    "white",
    ("grey", "gray"),
    "red",
    "blue",
    "green",
    "yellow",
    "orange",
    "purple",
    "pink",
    "brown",
    "beige",
    "silver",
    "gold",
    "navy",
    "turquoise",
)
_MATERIALS = (
    "leather",
    "cotton",
    "wool",
    "linen",
    "silk",
    "wood",
    "bamboo",
    "oak",
    "steel",
    ("aluminium", "aluminum"),
    "plastic",
    "glass",
    "ceramic",
    "rubber",
    "nylon",
    "polyester",
)
_PEOPLE = (
    ("men", "man", "male", "gent"),
    ("women", "woman", "female", "lady"),
    ("boy",),
    ("girl",),
    ("kid", "child", "children", "junior"),
    ("baby", "infant", "toddler"),
)
_SIZES = (("small", "s"), ("medium",), ("large",), ("xl", "extra large"), ("xxl",), ("mini",), ("king",), ("queen",))

KINDS: tuple[Kind, ...] = (
    define("colour", _COLOURS),
    define("material", _MATERIALS),
    define("audience", _PEOPLE),
    define("size", _SIZES),
    _Numbers("number"),
    _Measures("measure"),
    _Measures("pack size"),
)
