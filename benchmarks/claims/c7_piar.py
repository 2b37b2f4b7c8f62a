"""Claim 7: labels from the evolved instruction make a better student than labels from the first draft.

The paper builds its data with PIAR rounds. Hypothesis: a student taught on the offline teacher's labels under the
instruction that `piar evolve` proposes is better, by true grades, than one taught on its labels under the first draft.

Arms: *first draft*, *evolved* (a search on another world of the same kind, with its own gold; if it proposes nothing,
the draft stays and the arm is the same), *gold* (the rows' own gold, 4 % wrong: what the labels cost against people's).
Same rows, steps and start (words only), the grade alone. Measure: the grade is true, on held-out queries. Told beside
it: how often the labels are the gold. Holds: evolved − first draft above 0; fails: below 0. Second: evolved − gold.
"""

from dataclasses import replace

from benchmarks.claims.harness import Arm, Claim
from benchmarks.claims.lab import Found, Lab, without_reasons
from benchmarks.claims.verdict import Contrast
from benchmarks.trainers.measure import teacher_grades


def taught_by(name: str) -> Arm:
    """A student of the teacher's labels; the rare row that the teacher leaves open has its commonest grade."""

    def arm(lab: Lab) -> Found:
        instruction = lab.world.seed if name == "draft" else lab.project().instruction()
        said = teacher_grades(lab.folder, name, lab.world.task, lab.taught, instruction)
        grades = [grade or max(set(filter(None, said)), key=said.count) for grade in said]
        rows = without_reasons(lab.taught, grades)
        found = lab.graded(lab.sft(f"labels-{name}", rows, completion="grade"))
        agree = sum(g == row["grade"] for g, row in zip(grades, lab.taught, strict=True)) / len(grades)
        told = {"labels equal gold": agree, "rules": float(len(instruction.rules))}
        return replace(found, figures={**found.figures, **told})

    return arm


CLAIM = Claim(
    7, "PIAR rounds",
    "labels under the evolved instruction teach a better student than labels under the first draft",
    "grade true on held-out queries",
    {"first draft": taught_by("draft"), "evolved": taught_by("evolved"),
     "gold": lambda lab: lab.graded(lab.grade_alone())},
    (Contrast("evolved", "first draft"), Contrast("evolved", "gold")),
    reasoned=("first draft", "evolved", "gold"),
)  # fmt: skip
