"""Claim 9: a proper reward of the grade keeps calibration at no loss of accuracy, where the strict one does not.

The paper rewards grades strictly. In the exact gradient that is linear in the probabilities, so that all of them on one
grade earns most; a proper score earns most where they are how often each grade is true (`trainers/rewards.py`).
Hypothesis: after the same steps from the same student on the same prompts at the same rate, the student of the Brier
reward has better probabilities than that of the strict one, and is not less often right by 3 points or more.

Arms: *strict* (`grade_reward = exact`), *ordinal* (its kin by distance), *Brier*, *RPS*, all GRPO on the grade alone
(`trace_weight = 0`) without anchor or curriculum, so that nothing else keeps or spoils anything; *before*, where they
start. Each is judged twice on the same rows: by its name alone the grade is true; *NAME, probabilities* is 1 − half the
Brier score of the row. Told beside it: calibration error and nats.
Holds: Brier − strict in probabilities above 0, and in accuracy above −3 points (both). Fails: either below.
"""

from dataclasses import replace

from benchmarks.claims.harness import Arm, Claim
from benchmarks.claims.lab import Found, Lab, Model
from benchmarks.claims.verdict import Contrast
from store.probability_scores import brier_of

REWARDS = {"strict": "exact", "ordinal": "ordinal", "Brier": "brier", "RPS": "rps"}


def rewarded(name: str) -> Arm:
    """A student of a reward; is its grade true?"""
    return lambda lab: lab.graded(_model(lab, name))


def probabilities(name: str) -> Arm:
    """The same student by its probabilities."""

    def arm(lab: Lab) -> Found:
        probs = lab.held_probs(_model(lab, name))
        missed = brier_of(probs, lab.gold(lab.held))
        return replace(rewarded(name)(lab), scores=(1 - missed / 2).tolist())

    return arm


def _model(lab: Lab, name: str) -> Model:
    """GRPO's exact gradient of the grade alone; rollouts are the shortest, since nothing of them counts."""
    start = lab.grade_alone()
    if name == "before":
        return start
    short = {"trace_weight": 0.0, "rollouts": 2, "max_tokens": 2, "balance": "none", "batch_size": lab.scale.batch}
    return lab.grpo(start, lab.plain_pool(), grade_reward=REWARDS[name], **short)


NAMES = ("before", *REWARDS)
CLAIM = Claim(
    9,
    "Proper reward",
    "a proper reward of the grade keeps its probabilities better than the strict one, not 3 points less often right",
    "grade true on held-out queries; 1 − half the Brier score for probabilities",
    {name: rewarded(name) for name in NAMES} | {f"{name}, probabilities": probabilities(name) for name in NAMES},
    (
        Contrast("Brier, probabilities", "strict, probabilities"),
        Contrast("Brier", "strict", margin=0.03),
        Contrast("RPS, probabilities", "ordinal, probabilities"),
        Contrast("RPS", "ordinal", margin=0.03),
        Contrast("Brier, probabilities", "before, probabilities"),
        Contrast("strict, probabilities", "before, probabilities"),
    ),
    extra=("ordinal", "RPS", "ordinal, probabilities", "RPS, probabilities"),
)
