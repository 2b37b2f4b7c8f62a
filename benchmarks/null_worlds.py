"""How often the loop promotes where there is nothing to find, beside a row-wise McNemar test in its place.

Each world's grades have nothing to do with the text but are alike within a query: each query draws its own
distribution over grades. The whole loop runs on each, with the offline teacher and the offline reviser; every
promotion is false. Run: `python -m benchmarks.null_worlds [WORLDS] [FIRST]`.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import beta

from piar.evolve import EvolveReport, EvolveSettings, Models, evolve
from piar.llm.rulebook import RulebookClient
from piar.revision import RevisionSettings
from store.db import Store
from store.ids import content_id, sample_id
from store.task import Grade, Task
from store.types import Instruction

TASK = Task(
    name="null",
    group_by="query",
    fields=("query", "title"),
    grades=tuple(Grade(symbol=str(i), value=i) for i in range(3)),
)
SEED = Instruction("Say how well the title answers the query.")
SETTINGS = EvolveSettings(rounds=1, patience=1, revision=RevisionSettings(candidates=3))
GROUPS, ROWS, CONCENTRATION = 50, 6, 0.5
VOCABULARY = [f"{a}{b}" for a in ("red", "blue", "old", "new") for b in ("lamp", "desk", "shoe", "bag", "pen")]


class NoJournal:
    """A journal that keeps nothing: these runs need not survive a crash."""

    due = False

    def append(self, *_: Any) -> None: ...
    def fold(self, _: Store) -> int:
        return 0


def fill(store: Store, seed: int) -> None:
    """Samples with grades that their query draws, whatever they say."""
    rng = np.random.default_rng(seed)
    rows = []
    splits = ["train"] * 4 + ["dev"] + ["holdout"] * 3 + ["test"] * 2
    for group in range(GROUPS):
        query = " ".join(rng.choice(VOCABULARY, 2))
        leaning = rng.dirichlet([CONCENTRATION] * 3)
        for n in range(ROWS):
            title = " ".join([*rng.choice(VOCABULARY, 3), *rng.choice(query.split(), rng.integers(0, 3)), str(n)])
            grade = str(rng.choice(3, p=leaning))
            name = sample_id(f"{group}", (query, title))
            rows.append((name, content_id(name), f"{group}", splits[group % 10], query, title, grade))
    columns = ["sample_id", "label_id", "group_key", "split", "query", "title", "grade"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    with store.write() as con:
        con.register("null_rows", frame)
        con.execute(
            "insert into samples (sample_id, group_key, split, query, title, created_at, source, run_id) "
            "select sample_id, group_key, split, query, title, current_timestamp, 'null', 'null' from null_rows"
        )
        con.execute(
            "insert into labels (label_id, sample_id, grade, created_at, source, annotator, run_id) "
            "select label_id, sample_id, grade, current_timestamp, 'gold', 'gold', 'null' from null_rows"
        )


def one(seed: int) -> EvolveReport:
    """One world, one run."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "piar.duckdb", TASK)
        fill(store, seed)
        client = RulebookClient()
        settings = SETTINGS.model_copy(update={"seed": seed})
        with store.write():  # one connection for the whole run
            return evolve(store, Models(client, client), SEED, settings, journal=NoJournal())[0]  # type: ignore[arg-type]


def main(worlds: int = 400, first: int = 0) -> dict[str, Any]:
    """Run the worlds; shares come with their exact (Clopper-Pearson) upper 95 % bound."""
    started = time.perf_counter()
    reports = []
    for seed in range(first, first + worlds):
        reports.append(one(seed))
        print(f"{len(reports)} of {worlds} worlds", end="\r", file=sys.stderr, flush=True)
    tests = [r.promotions[0] for r in reports if r.promotions]
    level = SETTINGS.promotion.alpha
    counts = {
        "promoted": sum(t["passed"] for t in tests),
        "sign-flip by group at .05": sum(t["p_value"] <= level for t in tests),
        "mcnemar by row at .05": sum(t["mcnemar_p"] <= level for t in tests),
    }
    shares = {k: {"n": n, "share": n / worlds, "upper": upper(n, worlds)} for k, n in counts.items()}
    gains = [r.test["gold"]["gain"] for r in reports]
    return {
        "worlds": worlds,
        "tested": len(tests),
        **shares,
        "mean dev-chosen gain on holdout": float(np.mean([t["gain"]["mean"] for t in tests])) if tests else None,
        "test interval holds zero": float(np.mean([g["low"] <= 0 <= g["high"] for g in gains])),
        "seconds": round(time.perf_counter() - started, 1),
    }


def upper(n: int, of: int) -> float:
    """Upper end of the one-sided 97.5 % Clopper-Pearson interval."""
    return 1.0 if n == of else float(beta.ppf(0.975, n + 1, of - n))


if __name__ == "__main__":
    print(json.dumps(main(*(int(a) for a in sys.argv[1:])), indent=1))
