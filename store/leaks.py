"""Training rows that repeat a closed sample: the same words, or all but one.

Two texts that differ by one word added, dropped or replaced share a bag of words after at most one
deletion on each side. So every text is indexed by its bag and by its bag without each word (deletion
neighbourhoods, as spelling correction uses them), bags being sums of word hashes: one hash join finds
every such pair, at a cost linear in the words. Case, punctuation and word order do not count.
"""

from collections.abc import Sequence

import duckdb

from store.db import Store
from store.fragments import literal, sample_words, word_list
from store.types import Split

NEAR = 0.8  # shared words over all words, from which a training row repeats a closed one


def _bags(source: str) -> str:
    """Query (id, size, bag, common): one row for each bag of a text of `size` words, `common` of them in the bag.

    Args:
        source: SQL of a relation (id, words).
    """
    return f"""
select id, len(hashes) as size, unnest([{{'bag': hash(total), 'common': len(hashes)}}] || list_transform(hashes,
       lambda h: {{'bag': hash(total - h), 'common': len(hashes) - 1}}), recursive := true)
from (select id, hashes, list_sum(hashes)::hugeint as total
      from (select id, list_transform({word_list("words")}, lambda w: hash(w)::hugeint) as hashes from ({source})))
"""


def find_leaks(
    con: duckdb.DuckDBPyConnection, store: Store, threshold: float, splits: Sequence[Split] = ("train", "pool")
) -> None:
    """Fill the temporary table `leak` (sample_id, similarity): samples of `splits` close to a closed one.

    The bags of the closed samples are held in memory; the others stream past them.

    Args:
        threshold: shared words over all words of the pair, from which a pair is near; short texts, where
            one word is much, stay below it.
    """
    words = sample_words(store.task)
    texts = f"select sample_id as id, {words} as words from samples where"
    closed = _bags(f"{texts} split in ('dev', 'holdout', 'test')")
    ours = _bags(f"{texts} split in ({', '.join(map(literal, splits))})")
    con.execute(
        f"create or replace temp table closed_bag as select bag, min(size) as size from ({closed}) group by bag"
    )
    con.execute(
        "create or replace temp table leak as "
        "select id as sample_id, max(o.common / (o.size + c.size - o.common)) as similarity "
        f"from ({ours}) o join closed_bag c using (bag) "
        "group by id having similarity >= ?",
        [threshold],
    )
    con.execute("drop table closed_bag")


def leaking(store: Store) -> list[str]:
    """`sample_id` of the samples of train that repeat a closed one."""
    with store.read() as con:
        find_leaks(con, store, NEAR, ("train",))
        return [name for (name,) in con.execute("select sample_id::varchar from leak").fetchall()]


def one_word_apart(con: duckdb.DuckDBPyConnection, few: str, many: str, threshold: float) -> None:
    """Fill the temporary table `apart` (id, other, similarity): texts of `few` and `many` one word apart, or none.

    Args:
        few, many: SQL of relations (id, words), words as `store.fragments.sample_words` makes them; the bags of
            `few` are held in memory.
        threshold: shared words over all words of the pair.
    """
    con.execute(f"create or replace temp table few_bag as {_bags(few)}")
    con.execute(
        "create or replace temp table apart as select f.id, m.id as other, "
        "max(f.common / (f.size + m.size - f.common)) as similarity "
        f"from few_bag f join ({_bags(many)}) m using (bag) group by f.id, m.id "
        f"having similarity >= {float(threshold)}"
    )
    con.execute("drop table few_bag")
