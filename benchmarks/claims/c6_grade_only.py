"""Claim 6 (an ablation): does learning to explain make the grade better?

The trace comes after the grade, so it cannot change it at inference; a gain could come only through training.
Hypothesis: from the same words-only checkpoint, the student that is taught grade and reason grades held-out queries
better than one that is taught the grade alone for as many computed tokens.

Arms: *grade and reason* (the product's recipe), *grade, same rows* (the same rows and steps, fewer tokens), *grade,
same tokens* (so many more steps that it computes as many tokens as the first).
Measure: the grade is true, on held-out queries. Holds: reason − same tokens above 0; fails: below 0. Second: same rows.
"""

from benchmarks.claims.harness import Claim
from benchmarks.claims.lab import Found, Lab
from benchmarks.claims.verdict import Contrast


def same_tokens(lab: Lab) -> Found:
    """The grade alone, as many tokens."""
    steps = round(lab.scale.sft * lab.base().tokens / lab.grade_alone().tokens)
    return lab.graded(lab.sft("grade-tokens", lab.taught, completion="grade", steps=steps))


CLAIM = Claim(
    6, "Does the reason help the grade?",
    "grade and reason teach the grade better than the grade alone at equal compute",
    "grade true on held-out queries",
    {"grade and reason": lambda lab: lab.graded(lab.base()),
     "grade, same rows": lambda lab: lab.graded(lab.grade_alone()), "grade, same tokens": same_tokens},
    (Contrast("grade and reason", "grade, same tokens"), Contrast("grade and reason", "grade, same rows")),
    reasoned=("grade and reason", "grade, same rows", "grade, same tokens"),
)  # fmt: skip
