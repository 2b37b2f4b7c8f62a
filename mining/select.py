"""The queue: what people should look at next. Dedupe, score, quotas for each reason, then spread out.

Only train and pool samples are ever queued: a closed split chosen by disagreement would no longer measure. A few
rows are drawn at random before anything else; they alone stand for the whole, with their inclusion probability.
"""

import math
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from mining.neighbours import hashed_vectors, spread_out
from mining.settings import MiningSettings
from store.db import Store
from store.errors import UsageError
from store.fragments import sample_words
from store.ids import content_id

RANDOM = "random"
RANDOM_SHARE = 0.07  # of the queue, the only rows that measure anything


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a sample is queued.

    Attributes:
        score, holds: SQL over the columns of `signals`, and `truth`.
        share: of the queue.
    """

    score: str
    holds: str
    share: float


REASONS: dict[str, Reason] = {
    "flagged by people": Reason("flagged", "flagged > 0", 0.10),
    "suspect gold": Reason("suspicion", "suspicion > 0.5 or confident_learning is not null", 0.30),
    "teacher against student": Reason("teacher_against_student", "teacher_against_student > 0.5", 0.15),
    "ambiguous": Reason("ambiguity", "ambiguity > 0.2", 0.15),
    "votes split": Reason("vote_entropy", "vote_entropy > 0.5", 0.05),
    "version flips": Reason("version_flips", "version_flips > 0", 0.10),
    "neighbours disagree": Reason("neighbour_conflict", "neighbour_conflict > 0.6", 0.10),
    "rare rule": Reason("rule_rarity", "rule_rarity > 0.5 and truth is null", 0.05),
    "uncertain": Reason("margin", "margin > 0.3", 0.10),
}
_SPARE = 2  # candidates for each place, from which the most different are taken


def fill_queue(con: duckdb.DuckDBPyConnection, store: Store, settings: MiningSettings, run_id: str) -> dict[str, int]:
    """Replace the queue; returns reason -> rows."""
    shares = _shares(settings)
    _make_eligible(con)
    _draw_random(con, settings)
    while shares and (free := settings.top - _chosen(con)) > 0:  # what a reason cannot fill goes to the others
        total = sum(shares.values())
        for name, share in list(shares.items()):
            n = min(math.ceil(share / total * free), settings.top - _chosen(con))
            if n > 0 and _take(con, store, name, n) < n:
                del shares[name]
    con.execute("delete from queue where reason <> 'unsure'")  # those are the labeller's, who replaces them itself
    con.execute(
        # Ranked so that every beginning of the queue holds its reasons in the same proportion.
        "insert into queue select sample_id, reason, score, inclusion, row_number() over (order by turn, reason), ? "
        "from (select *, (place + 0.5) / count(*) over (partition by reason) as turn from chosen)",
        [run_id],
    )
    return dict(
        con.execute("select reason, count(*) as n from queue group by reason order by n desc, reason").fetchall()
    )


def _shares(settings: MiningSettings) -> dict[str, float]:
    unknown = next((name for name in settings.quotas if name not in REASONS), None)
    if unknown is not None:
        raise UsageError(f"mining.quotas: {unknown!r} is no reason", f"Reasons are {', '.join(REASONS)}.")
    shares = {name: settings.quotas.get(name, reason.share) for name, reason in REASONS.items()}
    return {name: share for name, share in shares.items() if share > 0}


def _make_eligible(con: duckdb.DuckDBPyConnection) -> None:
    """Open samples that no review has seen, near-duplicates of earlier ones left out, with a score for each reason."""
    scores = ", ".join(f"if({r.holds}, coalesce({r.score}, 0), null) as {_column(name)}" for name, r in REASONS.items())
    con.execute(f"""
        create or replace temp table eligible as
        select sample_id, {scores} from judged join signals using (sample_id)
        where split in ('train', 'pool') and near_duplicate is null
            and sample_id not in (select sample_id from reviewed)""")
    con.execute(
        "create or replace temp table chosen "
        "(sample_id uuid, reason varchar, score double, inclusion double, place integer)"
    )


def _column(reason: str) -> str:
    return reason.replace(" ", "_")


def _draw_random(con: duckdb.DuckDBPyConnection, settings: MiningSettings) -> None:
    total = int(con.execute("select count(*) from eligible").fetchall()[0][0])
    n = min(total, max(1, round(RANDOM_SHARE * settings.top)))
    con.execute(
        # Ids are content hashes: the n that follow any point of their circle are a random sample, and a cheap one.
        "insert into chosen select sample_id, ?, 0, ?, row_number() over (order by past, sample_id) - 1 from "
        "(select sample_id, sample_id < ?::uuid as past from eligible order by past, sample_id limit ?)",
        [RANDOM, n / total if total else None, content_id("queue", str(settings.seed)), n],
    )


def _take(con: duckdb.DuckDBPyConnection, store: Store, name: str, n: int) -> int:
    """Move up to n samples to `chosen`, one for each text; returns how many.

    Half of them are the best-scored; the other half are those of the best 2 n that differ most from all before.
    """
    words = sample_words(store.task)
    con.execute(f"""
        create or replace temp table candidate as
        with best as (
            select sample_id, {_column(name)} as score from eligible
            where {_column(name)} is not null and sample_id not in (select sample_id from chosen)
            order by score desc, sample_id limit {n * _SPARE}
        ), once as (
            select sample_id, score, {words} as words from best join samples using (sample_id)
            qualify row_number() over (partition by words order by score desc, sample_id) = 1
        )
        select *, row_number() over (order by score desc, sample_id) - 1 as place from once""")
    found = int(con.execute("select count(*) from candidate").fetchall()[0][0])
    if not found:
        return 0
    vectors = hashed_vectors(con, "select place, words from candidate", found) if found > n else None
    picked = np.arange(found) if vectors is None else np.array(spread_out(vectors, n, first=-(-n // 2)))
    start = int(con.execute("select count(*) from chosen where reason = ?", [name]).fetchall()[0][0])
    con.register("picks", pa.table({"pick": picked, "turn": start + np.argsort(np.argsort(picked))}))
    con.execute(
        "insert into chosen select sample_id, ?, score, 1, turn from candidate join picks on pick = candidate.place",
        [name],
    )
    con.unregister("picks")
    return len(picked)


def _chosen(con: duckdb.DuckDBPyConnection) -> int:
    return int(con.execute("select count(*) from chosen").fetchall()[0][0])
