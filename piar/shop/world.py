"""A *simulated* product-search world with planted rules, rater noise and known wrong gold.

What is true is decided by `POLICIES` on the structure of query and product, never on their text; the
oracle instruction says the same policies in English. Three simulated raters see the truth through noise
that rows of one query share, and a known part of the gold grades is wrong. For demonstrations and for measuring
what an optimizer recovers; no figure from it says anything about a real shop.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import polars as pl

from piar.shop.catalogue import (
    BRANDS,
    CASE,
    COLOURS,
    FEATURES,
    PACKS,
    PEOPLE,
    TYPES,
    Thing,
    make_product,
    make_query,
    query_text,
    title_text,
)
from piar.shop.policies import POLICIES, evidence_of, oracle_instruction, seed_instruction, shop_task
from store.ids import sample_id
from store.task import Task
from store.types import Instruction

PAIRS_A_QUERY = 8
RATER_ACCURACY = {"rater_1": 0.92, "rater_2": 0.86, "rater_3": 0.80}
LENIENT_SHARE = 0.12  # of queries that raters find easier or harder than the policy, all in the same direction
RANDOM_WRONG = 0.02  # of gold grades, one by one
BLOCK_WRONG = 0.02  # of gold grades, whole queries at a time


@dataclass(frozen=True)
class ShopWorld:
    """A simulated world.

    Attributes:
        task: two fields (query, title), grades 0 to 3, two steps, three slices.
        pairs: pair, query, title, rater_1..3 and grade (gold, some of it wrong): what a team would have.
        answers: sample_id, pair, true_grade, rule, evidence, product, details, gold_wrong ("", random or block): kept
            apart for measuring.
        seed: a rough first guideline.
        oracle: the planted policies in English.
    """

    task: Task
    pairs: pl.DataFrame
    answers: pl.DataFrame
    seed: Instruction
    oracle: Instruction


# -- scenarios: how a result differs from what was asked ------------------------------------------

Change = Callable[[Thing, Thing, Random], Thing]


def _other(detail: str, choices: Callable[[Thing], tuple[Any, ...]]) -> Change:
    def change(q: Thing, p: Thing, rng: Random) -> Thing:
        asked = getattr(q, detail)
        other: dict[str, Any] = {detail: rng.choice([c for c in choices(q) if c != asked])} if asked else {}
        return replace(p, **other)

    return change


def _set(**values: Any) -> Change:
    return lambda q, p, rng: replace(p, **values)


def _without(detail: str) -> Change:
    nothing: dict[str, Any] = {detail: ""}
    return lambda q, p, rng: replace(p, **nothing)


def _another_type(q: Thing, p: Thing, rng: Random) -> Thing:
    """Another noun for the same purpose where there is one."""
    near = [kind for kind in TYPES if kind is not q.type and q.purpose in kind.purposes]
    return _unrelated(q, p, rng) if not near else replace(_of_type(rng.choice(near), p, rng), purpose=q.purpose)


def _unrelated(q: Thing, p: Thing, rng: Random) -> Thing:
    kind = rng.choice([kind for kind in TYPES if kind is not q.type])
    return replace(_of_type(kind, p, rng), brand=rng.choice(BRANDS), colour="", feature="")


def _of_type(kind: Any, p: Thing, rng: Random) -> Thing:
    bare = Thing(kind, brand=p.brand, colour=p.colour)
    return make_product(bare, rng)


# name -> (weight among the results of a query, change)
_SCENARIOS: dict[str, tuple[float, Change]] = {
    "exact": (20.0, lambda q, p, rng: p),
    "purpose": (8.0, _other("purpose", lambda q: q.type.purposes)),
    "type": (6.0, _another_type),
    "unrelated": (6.0, _unrelated),
    "brand": (11.0, _other("brand", lambda q: BRANDS)),
    "colour": (11.0, _other("colour", lambda q: COLOURS)),
    "material": (15.0, _other("material", lambda q: q.type.materials)),
    "measure": (15.0, _other("measure", lambda q: q.type.measures)),
    "feature": (11.0, _other("feature", lambda q: ("", *FEATURES))),
    "no measure": (3.0, _without("measure")),
    "no material": (3.0, _without("material")),
    "people": (18.0, _other("people", lambda q: PEOPLE)),
    "link": (22.0, _other("link", lambda q: ("wired", "wireless"))),
    "pack": (28.0, _other("pack", lambda q: PACKS)),
    "extra": (8.0, lambda q, p, rng: replace(p, extra=q.extra)),
    "device": (14.0, _other("device", lambda q: ("Lumio", "Kestrel", "Zephyr", "Halcyon", "Meteor", "Quartz"))),
    "new": (16.0, _without("condition")),
    "accessory": (3.5, _set(form="accessory")),
    "part": (1.2, _set(form="part")),
    "print": (1.0, _set(form="print")),
    "toy": (1.0, _set(form="toy")),
    "voucher": (1.0, _set(form="voucher")),
    "bundle": (1.5, _set(form="bundle")),
    "used": (1.6, lambda q, p, rng: replace(p, condition=rng.choice(("refurbished", "used")))),
    "trial": (1.2, _set(trial=True)),
    "rental": (1.2, _set(offer="rental")),
    "preorder": (1.2, _set(offer="preorder")),
}
# Scenarios that need a detail in the query; the others fit any.
_NEEDS = {"no measure": "measure", "no material": "material", "new": "condition"}
_NEEDS |= {
    name: name
    for name in (
        "purpose",
        "brand",
        "colour",
        "material",
        "measure",
        "feature",
        "people",
        "link",
        "pack",
        "extra",
        "device",
    )
}
_NOT_FOR_CASES = {"accessory", "part", "used", "trial", "bundle"}


def _possible(q: Thing) -> list[str]:
    names = [name for name in _SCENARIOS if name not in _NEEDS or getattr(q, _NEEDS[name])]
    return [name for name in names if q.type is not CASE or name not in _NOT_FOR_CASES]


def make_shop(pairs: int = 3000, seed: int = 0) -> ShopWorld:
    """Simulate a shop.

    Args:
        pairs: how many (query, title) pairs; about eight a query.
        seed: the same seed and size give the same world.
    """
    rng = Random(f"shop-{seed}")
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    while len(rows) < pairs:
        query = make_query(rng)
        text = query_text(query, rng)
        if text not in seen:
            seen.add(text)
            rows += _results(
                query, text, min(pairs - len(rows), rng.randint(PAIRS_A_QUERY - 3, PAIRS_A_QUERY + 3)), rng
            )
    _plant_wrong_gold(rows, rng)
    for i, row in enumerate(rows):
        row["pair"] = f"shop-{seed}-{i:06d}"
        row["sample_id"] = sample_id(row["query"], (row["query"], row["title"]))
    frame = pl.DataFrame(rows)
    return ShopWorld(
        shop_task(),
        frame.select("pair", "query", "title", *RATER_ACCURACY, "grade"),
        frame.select("sample_id", "pair", "true_grade", "rule", "evidence", "product", "details", "gold_wrong"),
        seed_instruction(),
        oracle_instruction(),
    )


def _results(q: Thing, text: str, size: int, rng: Random) -> list[dict[str, Any]]:
    """The results of one query. How common each difference is, and how strict raters are, is shared by them."""
    names = _possible(q)
    weights = [_SCENARIOS[name][0] * rng.gammavariate(1.5, 1.0) for name in names]
    lenience = rng.choice((-1, 1)) if rng.random() < LENIENT_SHARE else 0
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < size:
        product = make_product(q, rng)
        for name in rng.choices(names, weights, k=2 if rng.random() < 0.15 else 1):
            product = _SCENARIOS[name][1](q, product, rng)
        title = title_text(product, rng)
        policy = next(policy for policy in POLICIES if policy.fits(q, product))
        rows[title] = {
            "query": text,
            "title": title,
            **{rater: _rated(int(policy.grade), accuracy, lenience, rng) for rater, accuracy in RATER_ACCURACY.items()},
            "grade": policy.grade,
            "true_grade": policy.grade,
            "rule": policy.id,
            "evidence": evidence_of(policy, q, product, text, title),
            "product": policy.product,
            "details": policy.details,
            "gold_wrong": "",
        }
    return list(rows.values())


def _rated(true: int, accuracy: float, lenience: int, rng: Random) -> str:
    """What a rater says: the truth, moved by the query's lenience, or a slip (mostly to a neighbour)."""
    grade = true + lenience if lenience and rng.random() < 0.5 else true
    if rng.random() > accuracy:
        grade = grade + rng.choice((-1, 1)) if rng.random() < 0.8 else rng.randrange(4)
    return str(min(3, max(0, grade)))


def _plant_wrong_gold(rows: list[dict[str, Any]], rng: Random) -> None:
    """Some gold grades are wrong: single slips, and queries in which one grade was misapplied throughout."""
    by_query: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_query.setdefault(row["query"], []).append(row)
    blocks, planted = sorted(by_query), 0
    rng.shuffle(blocks)
    for query in blocks:
        if planted >= BLOCK_WRONG * len(rows):
            break
        grades = [row["true_grade"] for row in by_query[query]]
        grade = max(sorted(set(grades)), key=grades.count)
        for row in by_query[query]:
            if row["true_grade"] == grade:
                row |= {"grade": _neighbour(grade, rng=None), "gold_wrong": "block"}
                planted += 1
    for row in rows:
        if not row["gold_wrong"] and rng.random() < RANDOM_WRONG:
            row |= {"grade": _neighbour(row["true_grade"], rng), "gold_wrong": "random"}


def _neighbour(grade: str, rng: Random | None) -> str:
    """A neighbouring grade: a random one, or always the same one for a block."""
    near = [g for g in (int(grade) - 1, int(grade) + 1) if 0 <= g <= 3]
    return str(near[-1] if rng is None else rng.choice(near))
