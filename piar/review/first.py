"""Starting without gold: the first batch, and places in the splits for rows once people have answered.

Proofs are by group, so the random part of a first batch is a few rows of many groups drawn at random: as few of each
as it takes to reach `GROUPS` groups, of which every split gets some. They alone may enter dev, holdout and test. The
rest of the batch is rows that differ most from each other, from other groups: they show what there is, and train alone
may learn from them.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from store.db import Store, quote
from store.ids import seed_of
from store.splits import BLOCK, SplitSettings, assign, normal_form, with_forms

ROWS_A_GROUP = 5  # at most
GROUPS = 20  # so many put two or more into each split
DIVERSE = 0.3  # share of a first batch
_LOOKED_AT = 5_000  # rows among which the diverse ones are chosen


def starting(store: Store) -> bool:
    """Whether every grade there is came from review, and nothing is queued: the project is still at its beginning."""
    sql = "select 1 from label where grade is not null and batch not in (select batch from review_batches) limit 1"
    return store.frame(sql).is_empty() and store.frame("select 1 from label_queue limit 1").is_empty()


def first_rows(
    store: Store, wanted: int, seed: int, differing: float = DIVERSE
) -> tuple[list[tuple[str, float]], list[str]]:
    """Rows for a first batch.

    Args:
        wanted: rows in all.
        seed: of the draw.
        differing: share of the rows that are chosen because they differ.

    Returns:
        (sample id, inclusion probability) of the random rows, and the ids of the diverse ones.
    """
    rows = store.frame(
        """select sample_id, group_key from samples s where split = 'pool' and origin = 'import'
           and not exists (select 1 from samples o where o.group_key = s.group_key and o.split <> 'pool')
           and not exists (select 1 from review_tasks t where t.sample_id = s.sample_id) order by sample_id"""
    ).rows()
    by_group: dict[str, list[str]] = {}
    for sample, group in rows:
        by_group.setdefault(group, []).append(sample)
    rng = random.Random(seed)
    order = sorted(by_group)
    rng.shuffle(order)
    drawn, at_random = 0, list[tuple[str, str, int]]()
    spared = max(1, min(GROUPS, round((1 - differing) * len(order))))  # the rest is left for rows that differ
    each = max(1, int((1 - differing) * wanted) // spared)
    if each * len(order) < (1 - differing) * wanted:  # too few groups for so many rows
        each += 1
    each = min(ROWS_A_GROUP, each)
    while drawn < len(order) and len(at_random) < (1 - differing) * wanted:
        group = by_group[order[drawn]]
        chosen = rng.sample(group, min(each, len(group), wanted - len(at_random)))
        at_random += [(sample, order[drawn], len(chosen)) for sample in chosen]
        drawn += 1
    share = drawn / max(1, len(order))
    left = [sample for group in order[drawn:] for sample in by_group[group]]
    diverse = _spread(store, rng.sample(left, min(len(left), _LOOKED_AT)), wanted - len(at_random))
    return [(sample, share * n / len(by_group[group])) for sample, group, n in at_random], diverse


def _spread(store: Store, ids: Sequence[str], wanted: int) -> list[str]:
    """Rows that differ most from each other."""
    from mining.neighbours import hashed_vectors, spread_out

    if wanted <= 0 or not ids:
        return []
    texts = ", ".join(quote(name) for name in store.task.fields)
    with store.read() as con:
        con.register("wanted_rows", pl.DataFrame({"sample_id": ids, "place": np.arange(len(ids))}))
        source = (
            f"select place, lower(concat_ws(' ', {texts})) as words "
            "from samples join wanted_rows w on samples.sample_id = w.sample_id::uuid"
        )
        vectors = hashed_vectors(con, source, len(ids))
        con.unregister("wanted_rows")
    return [ids[i] for i in spread_out(vectors, wanted)]


def settle_in(store: Store, settings: SplitSettings, seed: int) -> dict[str, int]:
    """Give answered rows of the pool their splits; groups that have a split keep it.

    Rows that were drawn at random follow their group into any split; rows that a queue chose, and groups that only
    a queue has touched, are for train.

    Args:
        settings: shares of the groups that arrive.
        seed: of the project.

    Returns:
        split -> rows that entered it.
    """
    rows = store.frame(
        """select s.sample_id, s.group_key as "group", avg(g.position) as value,
               bool_or(t.role in ('random', 'relabel')) as at_random
           from samples s join truth on truth.sample_id = s.sample_id join grades g on g.symbol = truth.grade
           join review_tasks t on t.sample_id = s.sample_id where s.split = 'pool' group by all order by s.sample_id"""
    )
    if rows.is_empty():
        return {}
    known = store.frame(
        """select group_key as "group", max(split) as split from samples where split <> 'pool' group by group_key"""
    )
    places = dict(_places(rows, known, settings, seed))
    moved = [
        (sample, split)
        for sample, group, _, at_random in rows.rows()
        if (split := places[group]) == "train" or at_random
    ]
    with store.write() as con:
        con.executemany("update samples set split = $2 where sample_id = $1", moved)
    return {split: sum(s == split for _, s in moved) for split in settings.shares if any(s == split for _, s in moved)}


def _places(rows: pl.DataFrame, known: pl.DataFrame, settings: SplitSettings, seed: int) -> Iterator[tuple[str, str]]:
    """Group -> split: held already, held by a group that differs in spelling only, dealt now, or train."""
    held, forms = dict(known.rows()), dict(with_forms(known).select("form", "split").rows())
    groups = with_forms(
        rows.group_by("group").agg(pl.col("value").mean(), pl.len().alias("rows"), pl.col("at_random").any())
    ).sort("group")
    yield from held.items()
    new = groups.filter(~pl.col("group").is_in(list(held)))
    alike = new.filter(pl.col("form").is_in(list(forms)))
    yield from ((group, forms[form]) for group, form in alike.select("group", "form").rows())
    fresh = new.filter(~pl.col("form").is_in(list(forms)))
    arrived = fresh.filter("at_random").drop("at_random")
    if len(arrived) < BLOCK:
        yield from _one_by_one(arrived["group"].to_list(), list(held.values()), settings, seed)
    else:
        yield from assign(arrived, settings, seed_of(seed, "arrivals", len(held))).rows()
    yield from ((group, "train") for group in fresh.filter(~pl.col("at_random"))["group"].to_list())


def _one_by_one(
    groups: Sequence[str], held: Sequence[str], settings: SplitSettings, seed: int
) -> Iterator[tuple[str, str]]:
    """Each group to the split that lacks most: a few at a time, the shares would round to nothing but train.

    Which group comes when is drawn, so that it says nothing of the group. Two that differ in spelling only go together.
    """
    counts = Counter(held)
    forms: dict[str, str] = {}
    for group in random.Random(seed_of(seed, "one by one", len(held))).sample(groups, len(groups)):
        form = normal_form(group)
        if form not in forms:
            total = counts.total() + 1
            forms[form] = max(settings.shares, key=lambda split: settings.shares[split] * total - counts[split])
        counts[forms[form]] += 1
        yield group, forms[form]
