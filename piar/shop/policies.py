"""What is true in the *simulated* shop: its policies, as predicates on query and product and as English.

`piar.shop.world` makes a world from them. The two forms never meet: what is true is decided on structure, never on
text.
"""

from collections.abc import Callable
from dataclasses import dataclass

from piar.shop.catalogue import ACCESSORIES, BRANDS, TYPES, Thing
from store.task import Grade, Step, Task
from store.types import Instruction, Rule

Fits = Callable[[Thing, Thing], bool]


@dataclass(frozen=True)
class Policy:
    """One planted policy: the grade, its English, what it says of the two steps, and when it is true."""

    id: str
    grade: str
    text: str
    fits: Fits
    product: str = "same"
    details: str = "agree"


def _differs(detail: str) -> Fits:
    """Both sides name the detail, and not the same."""

    def fits(q: Thing, p: Thing) -> bool:
        asked, offered = getattr(q, detail), getattr(p, detail)
        return bool(asked) and bool(offered) and asked != offered

    return fits


def _form(form: str) -> Fits:
    return lambda q, p: p.form == form and q.form != form


def _missing(q: Thing, p: Thing) -> int:
    """Words of the query that no detail of the product answers."""
    asked = [(q.brand, p.brand), (q.colour, p.colour), (q.feature, p.feature), (q.link, p.link)]
    asked += [(q.condition, p.condition), (q.material, p.material), (q.people, p.people), (q.purpose, p.purpose)]
    count = sum(bool(wanted) and wanted != offered for wanted, offered in asked)
    return count + 2 * (bool(q.measure) and not p.measure) + 2 * (bool(q.pack) and not p.pack)


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words[:-1]) + f' or "{words[-1]}"'


_BEFORE = 'the part of the query before "for" or "without"'
_PURPOSES = tuple(dict.fromkeys(purpose for kind in TYPES for purpose in kind.purposes))

POLICIES: tuple[Policy, ...] = (
    Policy(
        "R01",
        "0",
        'Other product: the title contains "poster", "sticker" or "manual" but the query does not.',
        _form("print"),
        product="other",
    ),
    Policy(
        "R02",
        "0",
        'Other product: the title contains "toy" or "miniature" but the query does not.',
        _form("toy"),
        product="other",
    ),
    Policy(
        "R03",
        "0",
        'Other product: the title contains "gift card" or "voucher" but the query does not.',
        _form("voucher"),
        product="other",
    ),
    Policy(
        "R04",
        "0",
        'Other product: the title contains "rental" but the query does not.',
        lambda q, p: p.offer == "rental",
        product="other",
    ),
    Policy(
        "R05",
        "1",
        'Accessory: the title contains "replacement" or "spare" but the query does not.',
        _form("part"),
        product="accessory",
    ),
    Policy(
        "R06",
        "1",
        f"Accessory: the title contains {_quoted(ACCESSORIES)} but the query does not.",
        _form("accessory"),
        product="accessory",
    ),
    Policy(
        "R07",
        "0",
        'Details conflict: no word of the part of the query after "for" appears in the title.',
        lambda q, p: bool(q.device) and q.device != p.device,
        details="conflict",
    ),
    Policy(
        "R08",
        "0",
        f"Other product: the last word of {_BEFORE} does not appear in the title.",
        lambda q, p: q.type is not p.type,
        product="other",
    ),
    Policy(
        "R09",
        "0",
        'Details conflict: some word of the part of the query after "without" is in the title.',
        lambda q, p: bool(q.extra) and q.extra == p.extra,
        details="conflict",
    ),
    Policy(
        "R10",
        "0",
        "Details conflict: the audience of the query differs from that of the title.",
        _differs("people"),
        details="conflict",
    ),
    Policy(
        "R11",
        "0",
        'Details conflict: the query contains "wireless" and the title contains "wired".',
        _differs("link"),
        details="conflict",
    ),
    Policy(
        "R12",
        "1",
        "Details conflict: the purpose of the query differs from that of the title.",
        _differs("purpose"),
        details="conflict",
    ),
    Policy(
        "R13",
        "1",
        "Details conflict: the material of the query differs from that of the title.",
        _differs("material"),
        details="conflict",
    ),
    Policy(
        "R14",
        "1",
        "Details conflict: the measure of the query differs from that of the title.",
        _differs("measure"),
        details="conflict",
    ),
    Policy(
        "R15",
        "1",
        'Details conflict: the title contains "refurbished" or "used" but the query does not.',
        lambda q, p: bool(p.condition) and not q.condition,
        details="conflict",
    ),
    Policy(
        "R16",
        "1",
        'Details conflict: the title contains "trial size" or "sample" but the query does not.',
        lambda q, p: p.trial,
        details="conflict",
    ),
    Policy(
        "R17",
        "1",
        'Details conflict: the title contains "preorder" but the query does not.',
        lambda q, p: p.offer == "preorder",
        details="conflict",
    ),
    Policy(
        "R18",
        "2",
        'Details conflict: the query contains "refurbished" or "used" but the title does not.',
        lambda q, p: bool(q.condition) and not p.condition,
        details="conflict",
    ),
    Policy("R19", "2", 'The title contains "bundle" or "combo" but the query does not.', _form("bundle")),
    Policy(
        "R20",
        "2",
        "Details conflict: the pack size of the query differs from that of the title.",
        _differs("pack"),
        details="conflict",
    ),
    Policy(
        "R21",
        "1",
        f"Details missing: at least 2 words of {_BEFORE} are missing from the title.",
        lambda q, p: _missing(q, p) >= 2,
        details="missing",
    ),
    Policy(
        "R22",
        "2",
        "Details conflict: the colour of the query differs from that of the title.",
        _differs("colour"),
        details="conflict",
    ),
    Policy(
        "R23",
        "2",
        "Details conflict: the brand of the query differs from that of the title.",
        _differs("brand"),
        details="conflict",
    ),
    Policy(
        "R24",
        "2",
        f"Details missing: exactly 1 word of {_BEFORE} is missing from the title.",
        lambda q, p: _missing(q, p) == 1,
        details="missing",
    ),
    Policy("R25", "3", f"Every word of {_BEFORE} appears in the title.", lambda q, p: True),
)

_DEFINITIONS = (
    Rule("D01", f"Brands are {_quoted(BRANDS)}."),
    Rule("D02", f"Purposes are {_quoted(_PURPOSES)}."),
)
_PREAMBLE = "Judge how well a product, known by its title, answers what a shopper of a simulated shop searched for."


def oracle_instruction() -> Instruction:
    """The planted policies in English: the best that any instruction can do here."""
    rules = tuple(Rule(policy.id, policy.text, policy.grade) for policy in POLICIES)
    return Instruction(_PREAMBLE, (*_DEFINITIONS, *rules), author="simulation", note="The planted policies.")


def seed_instruction() -> Instruction:
    """What a team would write on day one: sensible, and silent on everything that turns up later."""
    return Instruction(
        _PREAMBLE,
        (
            Rule("R01", "No word of the query appears in the title.", "0"),
            Rule("R02", "Every word of the query appears in the title.", "3"),
            Rule("R03", "At least 60 percent of the words of the query appear in the title.", "2"),
            Rule("R04", "Otherwise.", "1"),
        ),
        note="First draft.",
    )


def shop_task() -> Task:
    """Search relevance on four grades."""
    return Task(
        name="shop-search (simulated)",
        group_by="query",
        fields=("query", "title"),
        grades=(
            Grade(symbol="0", name="bad", value=0, meaning="Not what was looked for; it should not be shown."),
            Grade(symbol="1", name="fair", value=1, meaning="Related, but it would disappoint."),
            Grade(symbol="2", name="good", value=2, meaning="A fair substitute with one difference."),
            Grade(symbol="3", name="perfect", value=3, meaning="Exactly what was asked for."),
        ),
        steps=(
            Step(name="product", asks="Is it the kind of product asked for?", choices=("accessory", "other", "same")),
            Step(name="details", asks="Do the details asked for agree?", choices=("conflict", "missing", "agree")),
        ),
        slices={
            "short query": "length(query) < 16",
            "with a number": "regexp_matches(query, '[0-9]')",
            "for or without": "regexp_matches(query, ' (for|without) ')",
        },
        ask="How well does the product answer the query?",
    )


_SPEAKS_OF = {
    "R07": "device",
    "R09": "extra",
    "R10": "people",
    "R11": "link",
    "R12": "purpose",
    "R13": "material",
    "R14": "measure",
    "R20": "pack",
    "R22": "colour",
    "R23": "brand",
}
_MARKS = {
    "R01": ("poster", "sticker", "manual"),
    "R02": ("toy", "miniature"),
    "R03": ("gift card", "voucher"),
    "R04": ("rental",),
    "R05": ("replacement", "spare"),
    "R06": ACCESSORIES,
    "R15": ("refurbished", "used"),
    "R16": ("trial size", "sample"),
    "R17": ("preorder",),
    "R19": ("bundle", "combo"),
}


def evidence_of(policy: Policy, q: Thing, p: Thing, query: str, title: str) -> list[str]:
    """The words that the policy speaks of, each with a neighbour so that it can be checked by eye."""
    if policy.id in _MARKS:
        return [_around(title, next(mark for mark in _MARKS[policy.id] if mark in title.lower()))]
    detail = _SPEAKS_OF.get(policy.id)
    if detail:
        return [_around(query, str(getattr(q, detail))), _around(title, str(getattr(p, detail) or p.type.head))]
    if policy.id in ("R08", "R18"):
        return [query, _around(title, p.type.head)]
    return [_around(title, p.type.head)]


def _around(text: str, word: str) -> str:
    """The word as it stands in the text, with the word before it (or after it, at the start)."""
    at = text.lower().find(word.lower())
    if at < 0:
        return text
    start = text.rfind(" ", 0, max(0, at - 1)) + 1
    stop = at + len(word)
    if at == 0:
        following = text.find(" ", stop + 1)
        stop = len(text) if following < 0 else following
    return text[start:stop].strip(" ,")
