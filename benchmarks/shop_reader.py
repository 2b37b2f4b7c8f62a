"""Reads queries and titles of the simulated shop back into structure, to grade what no generator made.

The world's policies are conditions on structure (`piar.shop.world.POLICIES`), so with this reader they grade any text
made of the shop's words. It shares nothing with the offline teacher, which reads the policies' English: it knows the
vocabulary, and refuses a text that gives one detail two values.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from piar.shop.catalogue import ACCESSORIES, BRANDS, CASE, COLOURS, DEVICES, EXTRAS, FEATURES, PEOPLE, TYPES, Thing
from piar.shop.policies import POLICIES, Policy

_MEASURE = re.compile(r"\b(\d+) (w|cm|ml|l|inch|kg)\b")
_PACK = re.compile(r"\bpack of (\d+)\b|\b(\d+) pack\b")
_MATERIALS = tuple({material for kind in (*TYPES, CASE) for material in kind.materials})
_PURPOSES = tuple({purpose for kind in TYPES for purpose in kind.purposes})
_FORMS = {"print": ("poster", "sticker", "manual"), "toy": ("toy", "miniature"), "voucher": ("gift card", "voucher"),
          "part": ("replacement", "spare"), "bundle": ("bundle", "combo")}  # fmt: skip


class UnclearError(ValueError):
    """The text gives a detail two values, or names no product."""


def read(query: str, title: str) -> tuple[Thing, Thing]:
    """The two sides of a pair.

    Raises:
        UnclearError: a detail has two values, or there is no product.
    """
    return _query(query.lower()), _title(title.lower())


def decide(query: str, title: str) -> Policy:
    """The policy that decides a pair.

    Raises:
        UnclearError: see `read`.
    """
    asked, offered = read(query, title)
    return next(policy for policy in POLICIES if policy.fits(asked, offered))


def _query(text: str) -> Thing:
    wanted, _, unwanted = text.partition(" without ")
    thing = _details(wanted)
    if thing.type is CASE:
        thing = replace(thing, form="accessory")
    return replace(thing, extra=_one(_present(unwanted, EXTRAS)), brand=_one(_present(wanted, BRANDS)))


def _title(text: str) -> Thing:
    thing = replace(_details(text), extra=_one(_present(text, EXTRAS)))
    forms = [form for form, marks in _FORMS.items() if _present(text, marks)]
    brands = _present(text, BRANDS)
    accessory = _present(text, ACCESSORIES) if thing.type is not CASE else []
    if accessory:
        forms.append("accessory")
    if forms and forms[-1] in ("part", "accessory") and len(brands) > 1:
        brands = [max(brands, key=lambda brand: text.rindex(brand.lower()))]  # the maker comes first, then the thing
    form = _one(forms) or ("accessory" if thing.type is CASE else "item")
    offer = _one(_present(text, ("rental", "preorder")))
    trial = bool(_present(text, ("trial size", "sample")))
    return replace(thing, form=form, brand=_one(brands), offer=offer, trial=trial)


def _details(text: str) -> Thing:
    """What both sides can say."""
    kinds = [kind for kind in TYPES if re.search(rf"\b{kind.head.rstrip('s')}s?(es)?\b", text)]
    if len(kinds) > 1 or not (kinds or _present(text, ("case", "cases"))):
        raise UnclearError(f"{len(kinds)} products in {text!r}")
    packs = [int(a or b) for a, b in _PACK.findall(text)]
    return Thing(
        kinds[0] if kinds else CASE,
        purpose=_one(_present(text, _PURPOSES)),
        colour=_one(_present(text, COLOURS)),
        material=_one(_present(text, _MATERIALS)),
        people=_one([p for p in PEOPLE if re.search(rf"\b{p}('s|')?(?![a-z])", text)]),
        feature=_one(_present(text, FEATURES)),
        link=_one(_present(text, ("wired", "wireless"))),
        measure=_one([" ".join(found) for found in _MEASURE.findall(text)]),
        pack=int(_one([str(n) for n in packs]) or 0),
        device=_one(_present(text, DEVICES)),
        condition=_one(_present(text, ("refurbished", "used"))),
    )


def _present(text: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if re.search(rf"\b{word.lower()}\b", text)]


def _one(values: list[str]) -> str:
    """The only value, "" for none."""
    if len(set(values)) > 1:
        raise UnclearError(f"several values: {', '.join(values)}")
    return values[0] if values else ""
