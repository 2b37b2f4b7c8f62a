"""Claim 5: a large student's grade distribution teaches a small one more than its hard grades.

The paper distils a large teacher into a small student; which loss is not public. Hypothesis: from the same small
words-only checkpoint, the same rows (the pool, which the teacher never saw), the same steps of the same batch, the soft
grade beats the teacher's hard grade.

Arms: *gold* (4 % wrong) and *hard* (the teacher's likeliest grade): `sft` on the grade alone; *soft* (its
probabilities over the grades: `distill` with `gold_weight = 0`); *soft + gold* (the default weight 0.3); *soft + trace*
(the teacher reads grade and reference reason, `train.distill.teacher`); *on policy* (the same, the last fifth on
reasons that the student writes). The last two compute more tokens. *teacher* is the larger student itself.
Measure: the grade is true, on held-out queries. Holds: soft − hard above 0; fails: below 0. Others beside it.
"""

from typing import Any

from benchmarks.claims.harness import Arm, Claim
from benchmarks.claims.lab import Found, Lab, without_reasons
from benchmarks.claims.verdict import Contrast
from benchmarks.trainers.shop import Rows


def with_probs(lab: Lab, rows: Rows) -> Rows:
    """Rows with the teacher's probabilities."""
    return [{**row, "grade_probs": probs.tolist()} for row, probs in zip(rows, lab.pool_probs, strict=True)]


def hard_grades(name: str) -> Arm:
    """SFT on gold or on the teacher's grades."""

    def arm(lab: Lab) -> Found:
        s, symbols = lab.scale, lab.world.task.symbols
        grades = {"gold": [row["grade"] for row in lab.pool], "hard": [symbols[k] for k in lab.pool_probs.argmax(1)]}
        shards = lab.shards(f"distill-{name}", without_reasons(lab.pool, grades[name]))
        return lab.graded(lab.train("sft", f"distill-{name}", shards, lab.words(small=True), small=True, steps=s.sft,
                                    batch_size=s.batch, learning_rate=s.rate, completion="grade"))  # fmt: skip

    return arm


def distilled(name: str, *, reasons: bool = False, **settings: Any) -> Arm:
    """The product's distillation."""

    def arm(lab: Lab) -> Found:
        s, pool = lab.scale, with_probs(lab, lab.pool)
        rows = pool if reasons else without_reasons(pool, [row["grade"] for row in pool])
        shards = lab.shards("distill-reasons" if reasons else "distill-soft", rows)
        teacher = {"teacher": str(lab.base().path)} if reasons else {}
        return lab.graded(lab.train("distill", f"distill-{name}", shards, lab.words(small=True), small=True,
                                    steps=s.sft, batch_size=s.batch, learning_rate=s.rate, max_tokens=96, **teacher,
                                    **settings))  # fmt: skip

    return arm


CLAIM = Claim(
    5, "Distillation",
    "the teacher's probabilities teach a small student more than its hard grades",
    "grade true on held-out queries",
    {"teacher": lambda lab: lab.graded(lab.base()), "gold": hard_grades("gold"), "hard": hard_grades("hard"),
     "soft": distilled("soft", gold_weight=0.0), "soft + gold": distilled("soft-gold"),
     "soft + trace": distilled("trace", reasons=True),
     "on policy": distilled("on-policy", reasons=True, on_policy=0.2)},
    (Contrast("soft", "hard"), Contrast("soft", "gold"), Contrast("soft + gold", "soft"),
     Contrast("soft + trace", "soft + gold"), Contrast("on policy", "soft + trace"), Contrast("teacher", "soft")),
    extra=("soft + trace", "on policy"),
    reasoned=("soft + trace", "on policy"),
)  # fmt: skip
