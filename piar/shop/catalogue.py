"""Vocabulary of the simulated shop: product types, brands, attributes, and how queries and titles are worded.

Everything here is invented. Words are chosen so that each has one meaning in this world.
"""

from dataclasses import dataclass, replace
from random import Random

BRANDS = (
    "Arvolo",
    "Bexin",
    "Caldera",
    "Dorvik",
    "Elmora",
    "Fennik",
    "Gravelo",
    "Hollin",
    "Istra",
    "Jovanta",
    "Kelbor",
    "Lindero",
    "Morvan",
    "Nordal",
    "Ostrin",
    "Pavelo",
    "Quorin",
    "Rasko",
    "Solenta",
    "Tavion",
    "Ulmer",
    "Vexara",
)
DEVICES = ("Lumio", "Kestrel", "Zephyr", "Halcyon", "Meteor", "Quartz")
COLOURS = ("black", "white", "grey", "red", "blue", "green", "pink", "beige")
PEOPLE = ("men", "women", "kids", "baby")
ACCESSORIES = ("cover", "case", "sleeve", "strap", "mount", "holder")
PARTS = ("filter", "bulb", "battery", "hinge", "screw", "belt")
EXTRAS = ("handle", "lid", "wheels", "timer", "zip", "pocket")
FEATURES = ("waterproof", "foldable", "rechargeable", "lightweight", "ergonomic", "washable")
PACKS = (2, 4, 6, 12)


@dataclass(frozen=True)
class Type:
    """A kind of product: its noun, what it may be for, and the details that it can have."""

    head: str
    purposes: tuple[str, ...]
    materials: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    people: bool = False
    electric: bool = False
    packs: bool = False


TYPES = (
    Type("lamp", ("desk", "floor", "bedside"), ("wood", "steel"), ("5 w", "9 w", "15 w"), electric=True),
    Type("chair", ("office", "garden", "dining"), ("leather", "wood", "plastic")),
    Type("table", ("office", "garden", "dining"), ("wood", "steel", "bamboo"), ("80 cm", "120 cm", "160 cm")),
    Type("shoes", ("running", "hiking", "tennis"), ("leather", "nylon"), people=True),
    Type("jacket", ("running", "hiking", "winter"), ("leather", "wool", "nylon"), people=True),
    Type("gloves", ("winter", "garden", "cycling"), ("leather", "wool", "rubber"), people=True, packs=True),
    Type("bottle", ("water", "sports"), ("steel", "plastic"), ("500 ml", "750 ml", "1 l"), packs=True),
    Type("bowl", ("salad", "mixing", "pet"), ("ceramic", "steel", "bamboo"), ("1 l", "2 l", "3 l"), packs=True),
    Type("towel", ("beach", "bath", "kitchen"), ("cotton", "linen"), ("50 cm", "100 cm", "140 cm"), packs=True),
    Type("mouse", ("gaming", "travel"), (), (), electric=True),
    Type("keyboard", ("gaming", "travel"), ("aluminium", "plastic"), electric=True),
    Type("headphones", ("gaming", "studio", "sports"), ("leather", "plastic"), electric=True),
    Type("speaker", ("studio", "kitchen", "outdoor"), (), ("10 w", "20 w", "60 w"), electric=True),
    Type("monitor", ("gaming", "studio"), (), ("24 inch", "27 inch", "32 inch"), electric=True),
    Type("backpack", ("hiking", "school", "laptop"), ("leather", "nylon", "cotton"), ("20 l", "30 l", "45 l")),
    Type("tent", ("camping", "beach"), ("nylon", "cotton"), ("2 kg", "3 kg", "5 kg")),
    Type("rug", ("bath", "kitchen", "outdoor"), ("wool", "cotton"), ("120 cm", "160 cm", "200 cm")),
    Type("knife", ("kitchen", "camping", "bread"), ("steel", "ceramic"), ("10 cm", "15 cm", "20 cm"), packs=True),
)
CASE = Type("case", (), ("leather", "plastic"))


@dataclass(frozen=True)
class Thing:
    """A product, or what a query asks for; empty where nothing is said.

    `form` is `item`, or what is sold instead: print, toy, voucher, part, accessory, bundle. `offer` is empty for an
    ordinary sale, or rental or preorder.
    """

    type: Type
    purpose: str = ""
    brand: str = ""
    colour: str = ""
    material: str = ""
    people: str = ""
    feature: str = ""
    link: str = ""  # wired or wireless
    measure: str = ""
    pack: int = 0
    extra: str = ""  # a product's, or what a query does not want
    device: str = ""
    condition: str = ""  # refurbished or used
    trial: bool = False
    form: str = "item"
    offer: str = ""


def make_query(rng: Random) -> Thing:
    """What somebody looks for: a type with zero to three details."""
    if rng.random() < 0.10:
        return Thing(CASE, device=rng.choice(DEVICES), colour=_maybe(rng, 0.4, COLOURS), form="accessory")
    kind = rng.choice(TYPES)
    wanted = set(rng.sample(_details(kind), rng.choice((0, 1, 1, 2, 2, 3))))
    return Thing(
        kind,
        purpose=rng.choice(kind.purposes) if rng.random() < 0.8 else "",
        brand=rng.choice(BRANDS) if "brand" in wanted else "",
        colour=rng.choice(COLOURS) if "colour" in wanted else "",
        material=rng.choice(kind.materials) if "material" in wanted else "",
        people=rng.choice(PEOPLE) if "people" in wanted else "",
        feature=rng.choice(FEATURES) if "feature" in wanted else "",
        link="wireless" if "link" in wanted else "",
        measure=rng.choice(kind.measures) if "measure" in wanted else "",
        pack=rng.choice(PACKS) if "pack" in wanted else 0,
        extra=rng.choice(EXTRAS) if "extra" in wanted else "",
        condition=rng.choice(("refurbished", "used")) if "condition" in wanted else "",
    )


def _maybe(rng: Random, chance: float, words: tuple[str, ...]) -> str:
    return rng.choice(words) if rng.random() < chance else ""


def _details(kind: Type) -> list[str]:
    """What a query may say of a type; repeated where people say it more often."""
    can = ["brand", "brand", "colour", "colour", "feature", "extra"]
    can += ["material"] * bool(kind.materials) + ["measure"] * bool(kind.measures) + ["pack"] * kind.packs
    return can + ["people", "people"] * kind.people + ["link", "condition"] * kind.electric


def make_product(query: Thing, rng: Random) -> Thing:
    """A product with everything that the query asks for, and details that it leaves open."""
    kind = query.type
    return replace(
        query,
        purpose=query.purpose or (rng.choice(kind.purposes) if kind.purposes else ""),
        brand=query.brand or rng.choice(BRANDS),
        colour=query.colour or _maybe(rng, 0.6, COLOURS),
        material=query.material or (_maybe(rng, 0.4, kind.materials) if kind.materials else ""),
        people=query.people or (_maybe(rng, 0.7, PEOPLE) if kind.people else ""),
        link=query.link or (_maybe(rng, 0.4, ("wired", "wireless")) if kind.electric else ""),
        measure=query.measure or (_maybe(rng, 0.6, kind.measures) if kind.measures else ""),
        extra=_maybe(rng, 0.2, tuple(e for e in EXTRAS if e != query.extra)),
        feature=query.feature or _maybe(rng, 0.3, FEATURES),
    )


def query_text(q: Thing, rng: Random) -> str:
    """The query as somebody types it: lower case, the noun at the end, sometimes in the plural."""
    head = q.type.head
    if rng.random() < 0.2 and not head.endswith("s") and head not in ("mouse", "knife"):
        head += "es" if head.endswith(("x", "ch")) else "s"
    parts = [
        q.condition,
        q.brand,
        q.colour,
        q.material,
        _possessive(q.people, rng) if q.people else "",
        q.link,
        q.feature,
        q.measure,
        f"{q.pack} pack" if q.pack else "",
        q.purpose,
        head,
        f"for {q.device}" if q.device else "",
        f"without {q.extra}" if q.extra else "",
    ]
    return " ".join(part for part in parts if part).lower()


def _possessive(people: str, rng: Random) -> str:
    if rng.random() < 0.5:
        return people
    return people + ("'" if people.endswith("s") else "'s")


def title_text(p: Thing, rng: Random) -> str:
    """The product's title: brand, model, details, noun, and what is special about the offer."""
    model = rng.choice("BCDFGKRTVX") + rng.choice("AEIOU") + str(rng.randrange(211, 399))
    noun = " ".join(part for part in (p.purpose, p.type.head) if part).title()
    details = (p.colour, p.material, _title_people(p.people), p.link, p.feature)
    core = " ".join((p.brand, model, *(d.title().replace("'S", "'s") for d in details if d), noun, p.measure)).strip()
    core += f" for {p.device}" if p.device else ""
    core += (f", pack of {p.pack}" if rng.random() < 0.5 else f", {p.pack} pack") if p.pack else ""
    core += f" with {p.extra.title()}" if p.extra else ""
    core += f", {p.condition}" if p.condition else ""
    core += rng.choice((", trial size", ", sample")) if p.trial else ""
    core += {"": "", "rental": ", weekly rental", "preorder": ", preorder"}[p.offer]
    return _as_form(core, p, rng)


def _title_people(people: str) -> str:
    return {"": "", "men": "men's", "women": "women's", "kids": "kids", "baby": "baby"}[people]


def _as_form(core: str, p: Thing, rng: Random) -> str:
    """What is really sold, said around the name of the thing."""
    maker = rng.choice([brand for brand in BRANDS if brand != p.brand])
    match p.form:
        case "print":
            return f"{core}, {rng.choice(('poster', 'sticker set', 'user manual'))}"
        case "toy":
            return f"{rng.choice(('Toy', 'Miniature'))} {core}"
        case "voucher":
            return f"{rng.choice(('Gift Card', 'Voucher'))} {core}"
        case "part":
            return f"{maker} {rng.choice(('Replacement', 'Spare'))} {rng.choice(PARTS).title()} for {core}"
        case "accessory" if p.type is not CASE:
            return f"{maker} {rng.choice(ACCESSORIES).title()} for {core}"
        case "bundle":
            return f"{core} {rng.choice(('bundle', 'combo'))}"
    return core
