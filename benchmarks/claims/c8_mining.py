"""Claim 8: rows that were mined or synthesized teach more than as many random rows.

The paper mines hard samples and synthesizes structured data. Hypothesis: added to what the base student was taught, N
rows of the pool of which it is least sure (the least margin between its two likeliest grades; no label is looked at)
teach it more than N random rows of the pool.

Arms: *random*, *mined* (both with the rows' gold, 4 % wrong), *synthetic* (N kept rows of `piar synth` on the evolved
project of claim 7, with the grade they were made for; where fewer were kept, they come more often). Same start
(the base student), steps and batch; half of each batch is replay of what was taught, half is new; the grade alone.
Measure: the grade is true, on held-out queries. Holds: mined − random above 0; fails: below 0.
Second: synthetic − random.
"""

from dataclasses import replace
from random import Random

import numpy as np

from benchmarks.claims.harness import Arm, Claim
from benchmarks.claims.lab import Found, Lab, without_reasons
from benchmarks.claims.verdict import Contrast
from benchmarks.trainers.shop import Rows
from store.manifest import Schedule, Stage
from store.task import sample_text

MIXED = Schedule(stages=(Stage(name="replay and new", mixture={"easy": 0.5, "hard": 0.5}, share=1.0),), natural_tail=0)


def random_rows(lab: Lab) -> Rows:
    """A draw from the pool."""
    return Random(f"random-{lab.seed}").sample(lab.pool, lab.scale.extra)


def mined_rows(lab: Lab) -> Rows:
    """The rows of the pool with the least margin."""
    two = np.sort(lab.pool_probs, axis=1)[:, -2:]
    order = np.argsort(two[:, 1] - two[:, 0], kind="stable")
    return [lab.pool[i] for i in order[: lab.scale.extra]]


def synthetic_rows(lab: Lab) -> Rows:
    """Kept drafts, none of a held-out query."""
    shop = lab.project()
    kept = "select fields, grade from synthesis where status = 'kept' order by sample_id"
    if not shop.sql(kept).height:
        shop.label()
        shop.synth(lab.scale.extra)
    closed = {row["group"] for row in lab.held}
    like, names = lab.taught[0], lab.world.task.fields
    return [{**like, "sample_id": f"synthetic-{i}", "group": fields[0], "fields": fields, "grade": grade,
             "prompt": [{"role": "user", "content": sample_text(dict(zip(names, fields, strict=True)))}],
             "origin": "synthetic"}
            for i, (fields, grade) in enumerate(shop.sql(kept).rows()) if fields[0] not in closed]  # fmt: skip


ADDED = {"random": random_rows, "mined": mined_rows, "synthetic": synthetic_rows}


def with_more(name: str) -> Arm:
    """The base student, taught on with replay and new rows."""

    def arm(lab: Lab) -> Found:
        new = ADDED[name](lab)
        rows = [{**row, "bucket": "easy"} for row in lab.taught] + [{**row, "bucket": "hard"} for row in new]
        shards = lab.shards(f"with-{name}", without_reasons(rows, [row["grade"] for row in rows]), MIXED)
        found = lab.graded(lab.taught_on(f"with-{name}", shards, steps=2 * lab.scale.rl, completion="grade"))
        return replace(found, figures={**found.figures, "new rows": float(len(new))})

    return arm


CLAIM = Claim(
    8, "Mining and synthesis",
    "rows that the student is least sure of teach it more than as many random ones",
    "grade true on held-out queries",
    {"before": lambda lab: lab.graded(lab.base()), **{name: with_more(name) for name in ADDED}},
    (Contrast("mined", "random"), Contrast("synthetic", "random"), Contrast("random", "before")),
    reasoned=("synthetic",),
)  # fmt: skip
