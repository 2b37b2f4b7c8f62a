"""Claim 4: easy before hard beats the same rows shuffled.

The paper's ablation trains GRPO on the same data in random and in curriculum order. Hypothesis: the student of the
curriculum's order is better on held-out queries. Rows are bucketed by the base student's p of their gold grade, out of
sample; `order = shuffled` draws the identical multiset of rows in random order.

Arms: *GRPO, curriculum*, *GRPO, shuffled* (the paper's comparison); *SFT, curriculum*, *SFT, shuffled* (the grade
alone, twice the steps of 64 rows, where an order has more draws to matter in). All from one SFT checkpoint.
Measure: the grade is true, on held-out queries. Holds: GRPO curriculum − shuffled above 0; fails: below 0. Second: SFT.
"""

from benchmarks.claims.harness import Arm, Claim
from benchmarks.claims.lab import Found, Lab
from benchmarks.claims.verdict import Contrast


def grpo(order: str) -> Arm:
    """Reinforcement in an order."""
    return lambda lab: lab.graded(lab.grpo(order=order))


def sft(order: str) -> Arm:
    """SFT on the grade in an order."""

    def arm(lab: Lab) -> Found:
        model = lab.taught_on(
            f"sft-{order}", lab.pool_shards(), steps=2 * lab.scale.rl, order=order, completion="grade"
        )
        return lab.graded(model)

    return arm


CLAIM = Claim(
    4, "Curriculum order",
    "GRPO in the curriculum's order beats GRPO on the identical multiset shuffled",
    "grade true on held-out queries",
    {"before": lambda lab: lab.graded(lab.base()), "GRPO, curriculum": grpo("curriculum"),
     "GRPO, shuffled": grpo("shuffled"), "SFT, curriculum": sft("curriculum"), "SFT, shuffled": sft("shuffled")},
    (Contrast("GRPO, curriculum", "GRPO, shuffled"), Contrast("SFT, curriculum", "SFT, shuffled")),
    reasoned=("GRPO, curriculum", "GRPO, shuffled"),
)  # fmt: skip
