"""Signals that no single row can tell: they compare samples, in numpy or by joins.

Each function fills a temporary table NAME (sample_id, value) for the samples that it has something to say of,
reading `judged`; its docstring gives formula and source. Higher is more, as for all signals.
"""

from collections.abc import Callable
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from mining.confident import find_issues
from mining.judged import Columns
from mining.neighbours import Array, Embed, Vectors, conflict, hashed_vectors, nearest, unit
from mining.settings import MiningSettings
from store.db import Store
from store.fragments import sample_words
from store.similar import find_near, sketch

OPEN = "split in ('train', 'pool')"


@dataclass(frozen=True, slots=True)
class Work:
    """What a computed signal works on. `embed` replaces the hashed vectors, e.g. a sentence model's `encode`."""

    con: duckdb.DuckDBPyConnection
    store: Store
    settings: MiningSettings
    columns: Columns
    embed: Embed | None = None


def confident_learning(w: Work) -> None:
    """1 − p(given grade) for labels that confident learning (prune by noise rate) calls wrong; see `mining.confident`.

    Reads the teacher's mean probabilities, which are out of sample: it never saw the gold. Without any, those of who
    stands in.
    Source: Northcutt, Jiang and Chuang 2021 (arXiv 1911.00068).
    """
    spoken = w.con.execute("select count(t0) from judged where truth is not null").fetchone()
    names = w.columns("t" if spoken and spoken[0] else "q")
    found = w.con.execute(
        f"select rowid, truth, {', '.join(names)} from judged "
        f"where truth is not null and {names[0]} is not null and {OPEN}"
    ).fetchnumpy()
    labels = np.asarray(found["truth"], dtype=np.int64)
    probs = np.column_stack([np.asarray(found[name]) for name in names])
    if len(set(labels.tolist())) < 2:
        nothing(w.con, "confident_learning")
        return
    issues = np.flatnonzero(find_issues(labels, probs / probs.sum(axis=1, keepdims=True)))
    values = 1.0 - probs[issues, labels[issues]]
    put(w.con, "confident_learning", "judged", "rowid", np.asarray(found["rowid"])[issues], values)


def near_duplicate(w: Work) -> None:
    """Jaccard similarity to an earlier sample that says nearly the same; null for the first of its kind.

    Source: MinHash with banding, verified exactly; see `store.similar`.
    """
    words = sample_words(w.store.task)
    sketch(w.con, "sketched", f"select sample_id as id, {words} as words from samples where {OPEN}")
    find_near(w.con, "sketched", "sketched", w.settings.near)
    w.con.execute(
        "create or replace temp table near_duplicate as select id as sample_id, max(similarity) as value "
        "from near group by id"
    )
    for name in ("near", "sketched", "sketched_band"):
        w.con.execute(f"drop table {name}")


def neighbour_conflict(w: Work) -> None:
    """Share of a sample's nearest neighbours by text that hold another grade, weighted by cosine.

    A neighbour's grade is its truth, else its teacher's. Source: edited nearest neighbours, Wilson 1972.
    """
    votes = w.columns("v")
    most = f"greatest({', '.join(votes)})"
    told = f"if({most} > 0, list_position([{', '.join(votes)}], {most}) - 1, -1)"
    w.con.execute(
        f"create or replace temp table placed as select sample_id, coalesce(truth, {told}, -1)::bigint as grade, "
        f"row_number() over (order by sample_id) - 1 as place from judged where {OPEN}"
    )
    grades = np.asarray(w.con.execute("select grade from placed order by place").fetchnumpy()["grade"])
    if len(grades) < 2:
        nothing(w.con, "neighbour_conflict")
        return
    places, cosines = nearest(placed_vectors(w, len(grades)), w.settings.neighbours, seed=w.settings.seed)
    share = conflict(places, cosines, grades)
    known = np.flatnonzero(~np.isnan(share))
    put(w.con, "neighbour_conflict", "placed", "place", known, share[known])


def placed_vectors(w: Work, n: int) -> Vectors:
    """(n, D) unit vectors of the samples of the temporary table `placed`, in order of place."""
    words = sample_words(w.store.task)
    source = f"select p.place, {words} as words from placed p join samples s using (sample_id)"
    if w.embed is None:
        return hashed_vectors(w.con, source, n)
    texts = w.con.execute(f"select words from ({source}) order by place").fetchall()
    return unit(np.asarray(w.embed([text for (text,) in texts])))


def put(con: duckdb.DuckDBPyConnection, name: str, relation: str, key: str, keys: Array, values: Array) -> None:
    """Make the temporary table NAME (sample_id, value) from values keyed by a column of a relation."""
    con.register("put_values", pa.table({"at": pa.array(keys, pa.int64()), "value": pa.array(values, pa.float64())}))
    con.execute(
        f"create or replace temp table {name} as select r.sample_id, p.value "
        f'from put_values p join {relation} r on r.{key} = p."at"'
    )
    con.unregister("put_values")


def nothing(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Make the temporary table NAME of a signal that is switched off."""
    con.execute(f"create or replace temp table {name} (sample_id uuid, value double)")


Computed = Callable[[Work], None]
FROM_VERDICTS: tuple[Computed, ...] = (confident_learning,)
FROM_TEXTS: tuple[Computed, ...] = (near_duplicate, neighbour_conflict)
