"""What the loop finds about Chorus's unwritten policy: rows whose final grade contradicts three raters of one mind.

Most of them lie in five queries. For each truth (the final grade, the raters' majority) the loop runs on everything
and once without each of those queries; the instruction that dev prefers is then asked about the policy rows of the
query that it has not seen. A policy that was learned shows there; one that was memorised does not.

Run: `python -m benchmarks.chorus_policy CHORUS.csv [QUERIES] [OUT]`; it resumes where `OUT` ends.
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.judging import judge
from piar.evolve.resume import Event
from piar.evolve.settings import AuditSettings
from piar.offline.teacher import RulebookClient
from piar.project.facade import Project
from store.db import Store
from store.ids import sample_id
from store.importers import ImportMapping
from store.journal import Journal
from store.types import Sample, Verdict

RATERS = ("rater_1", "rater_2", "rater_3")
MAPPING = ImportMapping(gold="grade", raters=RATERS, group="query")
TRUTHS = ("gold", "majority")


def policy_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows on which all raters agree with each other and not with the final grade."""
    agreed = (pl.col(RATERS[0]) == pl.col(RATERS[1])) & (pl.col(RATERS[1]) == pl.col(RATERS[2]))
    return frame.filter(agreed & (pl.col("grade") != pl.col(RATERS[0])))


def one(frame: pl.DataFrame, truth: str, left_out: str | None) -> dict[str, Any]:
    """One run, and what its preferred instruction says about policy rows."""
    preferred = ""

    def watch(event: Event) -> None:
        nonlocal preferred
        if event.kind == "searched":
            preferred = event.detail["best"]

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chorus.csv"
        frame.filter(pl.col("query") != (left_out or "")).select("query", "name", *RATERS, "grade").write_csv(file)
        project = Project.init(Path(folder) / "p", from_=file, mapping=MAPPING)
        report = project.evolve(
            truth=truth, rounds=3, audit=AuditSettings(items=0, canary=0).model_dump(), on_event=watch
        )
        found = project.store.instruction(preferred)
        asked = policy_rows(frame).filter(pl.col("query") == left_out if left_out else pl.lit(True))
        said = _says(project, preferred, asked, Path(folder))
    return {
        "truth": truth, "left_out": left_out, "promoted": report.proposal is not None,
        "reason": report.promotions[0]["reason"] if report.promotions else report.stopped,
        "rules": [f"{r.grade}: {r.text}" for r in found.rules], "rows": len(asked),
        "as the final grade": sum(s == g for s, g in zip(said, asked["grade"], strict=True)),
        "as the raters": sum(s == r for s, r in zip(said, asked[RATERS[0]], strict=True)),
    }  # fmt: skip


def _says(project: Project, instruction: str, rows: pl.DataFrame, folder: Path) -> list[str | None]:
    """The teacher's grades on rows that need not be in the project, through a project of their own."""
    fields = project.task.fields
    samples = [Sample(sample_id(r[0], r), r[0], dict(zip(fields, r, strict=True))) for r in rows.select(*fields).rows()]
    found: list[Verdict] = []
    store, journal = Store.create(folder / "asked.duckdb", project.task), Journal(folder / "asked")
    judge(store, RulebookClient(), project.store.instruction(instruction), samples, journal=journal,
          on_verdict=found.append)  # fmt: skip
    journal.close()
    return [v.grade for v in found]


def main(source: str, queries: int = 5, out: str = "chorus-policy.jsonl") -> list[dict[str, Any]]:
    """Run what is missing: each truth on everything, then without each of the queries that hold most policy rows."""
    frame = pl.read_csv(source, infer_schema_length=0)
    most = Counter(policy_rows(frame)["query"].to_list()).most_common(queries)
    file = Path(out)
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {(r["truth"], r["left_out"]) for r in rows}
    for truth in TRUTHS:
        for query in (None, *(name for name, _ in most)):
            if (truth, query) not in known:
                rows.append(one(frame, truth, query))
                with file.open("a") as appended:
                    appended.write(json.dumps(rows[-1], ensure_ascii=False) + "\n")
    return rows


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], *(int(a) for a in sys.argv[2:3]), *sys.argv[3:4]), indent=1, ensure_ascii=False))
