"""Claim 3: crediting each step with its own reward teaches better reasons than crediting the outcome.

The paper names Stepwise-GRPO; its formulas are not public, ours are in `trainers.losses.advantages`. Hypothesis: after
the same GRPO steps on the same prompts from the same SFT checkpoint, all with the SFT anchor, `local` credit leaves
more answers whose grade is true, whose rule is the right one and whose evidence is verbatim than `outcome` credit.

Arms: *local* (each segment its own reward), *outcome* (the mean of all).
Measure: grade, rule and evidence all right, on held-out queries. Holds: local − outcome above 0; fails: below 0.
"""

from benchmarks.claims.harness import Arm, Claim
from benchmarks.claims.lab import Found, Lab
from benchmarks.claims.verdict import Contrast


def credited(**changes: str) -> Arm:
    """GRPO with the anchor and these changes."""

    def arm(lab: Lab) -> Found:
        return lab.explained(lab.grpo(**changes))

    return arm


CLAIM = Claim(
    3, "Stepwise credit",
    "local credit leaves more wholly right answers than outcome credit",
    "grade, cited rule and evidence all right on held-out queries",
    {"before": lambda lab: lab.explained(lab.base()), "local": credited(), "outcome": credited(credit="outcome")},
    (Contrast("local", "outcome"), Contrast("local", "before")),
    reasoned=("before", "local", "outcome"),
)  # fmt: skip
