"""What a run's report holds, as plain JSON: tests, comparisons and what rules are worth.

Reports are kept with their runs. Those of earlier versions lack some keys, so none is required.
"""

from typing import Literal

from typing_extensions import TypedDict

from piar.evolve.guards import State
from store.stats import Gain


class GainJson(TypedDict, total=False):
    """A `store.stats.Gain`."""

    mean: float
    low: float | None
    high: float | None
    p_value: float


def gain_json(gain: Gain) -> GainJson:
    """A gain as plain JSON."""
    return {"mean": gain.mean, "low": gain.low, "high": gain.high, "p_value": gain.p_value}


class Accuracies(TypedDict, total=False):
    """Share of rows that are right before and after."""

    before: float
    after: float


class GuardJson(TypedDict, total=False):
    """A `piar.evolve.guards.Guard`."""

    name: str
    n: int
    change: float
    harm_p: float
    holds_p: float
    state: State
    note: str


class Audited(TypedDict):
    """A `piar.evolve.steadiness.Repeated`."""

    asked: int
    flipped: int


class Tested(TypedDict, total=False):
    """A candidate that met the incumbent on the holdout: a `piar.evolve.promotion.Outcome`.

    Attributes:
        level: what `p_value` had to stay below.
        refused_by: what was not passed; "" when all was.
        audit: rows asked twice, None when there was no gain to claim.
    """

    candidate: str
    against: str
    groups: int
    n: int
    fixed: int
    broke: int
    accuracy: Accuracies
    gain: GainJson
    p_value: float
    level: float
    guards: list[GuardJson]
    passed: bool
    refused_by: Literal["", "test", "guard", "audit"]
    reason: str
    audit: Audited | None


class Side(TypedDict):
    """How one instruction does."""

    accuracy: float
    macro_f1: float


class Comparison(TypedDict, total=False):
    """Incumbent (`seed`) and standing instruction (`champion`) on the same rows; empty where there are none."""

    n: int
    groups: int
    seed: Side
    champion: Side
    gain: GainJson


class Worth(TypedDict, total=False):
    """What one rule is worth on the rows that cite it.

    Attributes:
        state: `helps`, `harms` (interval by group), `dead` (never cited) or `unclear`.
    """

    rule: str
    cited: int
    fixes: int
    breaks: int
    gain: GainJson | None
    state: Literal["helps", "harms", "dead", "unclear"]
