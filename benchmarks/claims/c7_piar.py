"""Claim 7: labels from the evolved instruction make a better student than labels from the first draft.

The paper builds its data with PIAR rounds. Hypothesis: a student taught on the offline teacher's labels under the
instruction that `piar evolve` proposes is better, by true grades, than one taught on its labels under the first draft.

Arms: *first draft*, *evolved* (a search on another world of the same kind, with its own gold; if it proposes nothing,
the draft stays and the arm is the same), *gold* (the rows' own gold, 4 % wrong: what the labels cost against people's).
Same rows, steps and start (words only), the grade alone. Measure: the grade is true, on held-out queries. Told beside
it: how often the labels are the gold. Holds: evolved − first draft above 0; fails: below 0. Second: evolved − gold.
"""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.claims.c5_distill import without_reasons
from benchmarks.claims.c6_grade_only import same_rows
from benchmarks.claims.harness import Arm, Claim
from benchmarks.claims.lab import Found, Lab
from benchmarks.claims.verdict import Contrast
from piar.llm.connect import ModelSettings
from piar.llm.rulebook import RulebookClient
from piar.pool import Pool
from piar.project import Project
from store.types import Instruction

OTHER_WORLD = 1000  # added to the seed


def project(lab: Lab) -> Project:
    """A project on another world of the same kind, evolved and accepted; made once."""
    folder = lab.folder / "project"
    done = folder / "evolved"
    if not (folder / "piar.toml").exists():
        Project.init(folder, example="shop", pairs=lab.scale.evolve_pairs, seed=lab.seed + OTHER_WORLD)
    found = Project.open(folder)
    if not done.exists():
        found.evolve(rounds=lab.scale.rounds, seed=lab.seed, accept="auto")
        done.touch()
    return found


def labelled_by(lab: Lab, name: str, instruction: Instruction) -> list[str]:
    """The offline teacher's grades of the taught rows; the rare row that it leaves open keeps the commonest grade."""
    asked, answered = lab.folder / f"{name}-asked.parquet", lab.folder / f"{name}-said.parquet"
    columns = zip(lab.world.task.fields, zip(*(row["fields"] for row in lab.taught), strict=True), strict=True)
    pq.write_table(pa.table({field: list(values) for field, values in columns}), asked)
    Pool(lab.world.task, RulebookClient(), instruction, ModelSettings()).label(asked, answered)
    said = pq.read_table(answered)["piar_grade"].to_pylist()
    common = max(set(said), key=said.count)
    return [grade or common for grade in said]


def taught_by(name: str) -> Arm:
    """A student of the teacher's labels."""

    def arm(lab: Lab) -> Found:
        instruction = lab.world.seed if name == "draft" else project(lab).instruction()
        grades = labelled_by(lab, name, instruction)
        rows = without_reasons(lab.taught, grades)
        found = lab.graded(lab.sft(f"labels-{name}", rows, completion="grade"))
        agree = sum(g == row["grade"] for g, row in zip(grades, lab.taught, strict=True)) / len(grades)
        return replace(found, figures={**found.figures, "labels equal gold": agree})

    return arm


CLAIM = Claim(
    7, "PIAR rounds",
    "labels under the evolved instruction teach a better student than labels under the first draft",
    "grade true on held-out queries",
    {"first draft": taught_by("draft"), "evolved": taught_by("evolved"),
     "gold": lambda lab: lab.graded(same_rows(lab))},
    (Contrast("evolved", "first draft"), Contrast("evolved", "gold")),
)  # fmt: skip
