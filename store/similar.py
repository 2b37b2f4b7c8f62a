"""Near-duplicate texts by MinHash and locality-sensitive hashing, as SQL over one connection.

A text is its set of words and pairs of adjacent words. 60 minima of hashed shingles are cut into 12 bands of 5;
texts that share a band are candidates, the share of equal minima estimates their Jaccard similarity, and what
looks close enough is compared exactly. At a similarity of .8 one pair in a hundred is missed.

Sources: MinHash, Broder 1997; banding, Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3.
The permutations are XORs of one 64-bit hash, our choice for speed: as candidates are verified, it can only
cost recall.
"""

import random

import duckdb

from store.fragments import word_list

BANDS, ROWS = 12, 5
LINKS = 6  # members of a band that a text is compared with: a million copies cost a few million comparisons
SLICE = 100_000  # texts compared at a time: candidates of a million would not fit in memory
_SLACK = 0.2  # how far below the threshold an estimate may lie: three standard errors of 60 minima


def shingles(words: str) -> str:
    """SQL list of a normalised text's distinct shingles (words and adjacent pairs), hashed to 64 bits."""
    tokens = word_list(words)
    return (
        f"list_distinct(list_transform({tokens}, lambda w: hash(w)) || "
        f"list_transform(list_zip({tokens}, list_slice({tokens}, 2, null)), lambda pair: hash(pair)))"
    )


def sketch(con: duckdb.DuckDBPyConnection, name: str, source: str) -> None:
    """Temporary tables NAME (id, shingles, minima m0 …) and NAME_band (id, band).

    Args:
        name: a table name chosen by the program.
        source: SQL of a relation (id, words), words as `store.fragments.sample_words` makes them.
    """
    rng = random.Random(1997)
    minima = ", ".join(
        f"(min(xor(shingle, {rng.getrandbits(64)}::ubigint)) & 4294967295)::uinteger as m{i}"
        for i in range(BANDS * ROWS)
    )
    bands = ", ".join(f"hash({b}, {', '.join(f'm{i}' for i in range(b * ROWS, (b + 1) * ROWS))})" for b in range(BANDS))
    con.execute(
        f"create or replace temp table {name}_text as select id, {shingles('words')} as shingles from ({source})"
    )
    con.execute(f"""create or replace temp table {name} as
        select * from (select id, {minima} from (select id, unnest(shingles) as shingle from {name}_text) group by id)
        join {name}_text using (id)""")
    con.execute(f"create or replace temp table {name}_band as select id, unnest([{bands}]) as band from {name}")
    con.execute(f"drop table {name}_text")


def find_near(con: duckdb.DuckDBPyConnection, left: str, right: str, threshold: float) -> None:
    """Fill the temporary table `near` (id, other, similarity): texts of LEFT close to one of RIGHT.

    Both were made by `sketch`. Where they are the same table, each text is compared with earlier ones (by id) only,
    so that the first of its kind has none. In a crowded band only the first members are compared.
    """
    earlier = "f.id < l.id" if left == right else "true"
    equal = " + ".join(f"(a.m{i} = b.m{i})::int" for i in range(BANDS * ROWS))
    con.execute(f"""create or replace temp table near_first as select band, id from {right}_band
        qualify row_number() over (partition by band order by id) <= {LINKS}""")
    con.execute("create or replace temp table near (id uuid, other uuid, similarity double)")
    row = con.execute(f"select count(*) from {left}").fetchone()
    slices = max(1, -(-(row[0] if row else 0) // SLICE))
    for part in range(slices):
        con.execute(f"""
            insert into near
            with pair as (
                select distinct l.id, f.id as other from {left}_band l join near_first f using (band)
                where {earlier} and hash(l.id) % {slices} = {part}
            ), likely as (
                select p.id, p.other, a.shingles as one, b.shingles as two
                from pair p join {left} a on a.id = p.id join {right} b on b.id = p.other
                where {equal} >= {(float(threshold) - _SLACK) * BANDS * ROWS}
            ), measured as (
                select id, other, len(list_intersect(one, two)) as common, len(one) + len(two) as total from likely
            )
            select id, other, common / (total - common) as similarity from measured
            where common / (total - common) >= {float(threshold)}""")
    con.execute("drop table near_first")
