"""How often the loop promotes where there is nothing to find, beside a row-wise McNemar test in its place.

Each world's grades have nothing to do with the text but are alike within a query: each query draws its own
distribution over grades. The whole loop runs on each, with the offline teacher and the offline reviser; every
promotion is false. Run: `python -m benchmarks.null_worlds [WORLDS] [FIRST] [OUT] [SEARCH …]`; it resumes where `OUT`
ends. `SEARCH` is a strategy of `[evolve] search`. Of several, each goes on from what stands after the one before; what
the first one tests is put in force whatever its test says, as a false promotion would put it: so
`cross_fitted rounds rounds` asks what a false one does to the next two searches.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import beta, binomtest

from benchmarks.worlds import rows_of
from piar.evolve.run import EvolveReport, EvolveSettings, Models, evolve
from piar.evolve.settings import ReviserSettings, RevisionSettings
from piar.judging.session import Respondent
from piar.offline.teacher import RulebookClient
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

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def room(self) -> AbstractContextManager[None]:
        return nullcontext()

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


def one(seed: int, searches: Sequence[str] = ("rounds",)) -> dict[str, Any]:
    """One world, one run after another: what their tests said, and whether the last interval on test holds zero."""
    tests, instruction = list[dict[str, Any] | None](), SEED
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "piar.duckdb", TASK)
        fill(store, seed)
        models = Models(Respondent(RulebookClient()), Respondent(RulebookClient(), ReviserSettings()))
        for number, search in enumerate(searches):
            settings = SETTINGS.model_copy(update={"seed": seed + number, "search": search})
            with store.write():  # one connection for the whole run
                report, standing = evolve(store, models, instruction, settings, journal=NoJournal(Path(folder)))  # type: ignore[arg-type]
            tests.append(_test(report))
            forced = report.promotions and not number and len(searches) > 1
            instruction = store.instruction(report.promotions[0]["candidate"]) if forced else standing
    gain = report.test["gold"]["gain"]
    holds_zero = gain["low"] is None or gain["low"] <= 0 <= gain["high"]  # none where nothing has changed
    return {"world": seed, "tests": tests, "holds_zero": holds_zero}


def _test(report: EvolveReport) -> dict[str, Any] | None:
    """What decided a search; None where nothing came to a test."""
    for t in report.promotions:
        by_rows = by_row(t["fixed"], t["broke"])
        return {"passed": t["passed"], "p_value": t["p_value"], "mcnemar_p": by_rows, "gain": t["gain"]["mean"]}
    return None


def by_row(fixed: int, broke: int) -> float:
    """One-sided exact McNemar test over rows, to compare with: rows of one group err together."""
    return float(binomtest(fixed, fixed + broke, alternative="greater").pvalue) if fixed + broke else 1.0


def summary(rows: Sequence[dict[str, Any]], searches: Sequence[str]) -> dict[str, Any]:
    """For each search the shares of all worlds, with their exact (Clopper-Pearson) upper 95 % bound."""
    told = {f"{i + 1}: {search}": _shares([r["tests"][i] for r in rows]) for i, search in enumerate(searches)}
    return {"worlds": len(rows), **told, "test interval holds zero": float(np.mean([r["holds_zero"] for r in rows]))}


def _shares(of: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    tests, level = [t for t in of if t], SETTINGS.promotion.alpha
    counts = {
        "promoted": sum(t["passed"] for t in tests),
        "sign-flip by group at .05": sum(t["p_value"] <= level for t in tests),
        "mcnemar by row at .05": sum(t["mcnemar_p"] <= level for t in tests),
    }
    return {
        "tested": len(tests),
        **{name: {"n": n, "share": n / len(of), "upper": upper(n, len(of))} for name, n in counts.items()},
        "mean gain where it is decided": float(np.mean([t["gain"] for t in tests])) if tests else None,
    }


def main(worlds: int = 400, first: int = 0, out: str = "null-worlds.jsonl", *searches: str) -> dict[str, Any]:
    """Run what is missing of the worlds, and sum up."""
    asked = searches or ("rounds",)
    return summary(rows_of(partial(one, searches=asked), worlds, first, out), asked)


def upper(n: int, of: int) -> float:
    """Upper end of the one-sided 97.5 % Clopper-Pearson interval."""
    return 1.0 if n == of else float(beta.ppf(0.975, n + 1, of - n))


if __name__ == "__main__":
    numbers = [int(a) for a in sys.argv[1:3]]
    print(json.dumps(main(*numbers, *sys.argv[3:]), indent=1))
