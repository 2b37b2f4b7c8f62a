"""What a run's report holds, as plain JSON: tests, comparisons and what rules are worth.

Reports are kept with their runs. Those of earlier versions lack some keys, so none is required.
"""

from typing import Literal

from pydantic import Field
from typing_extensions import TypedDict

from piar.evolve.guards import State
from piar.evolve.settings import SearchName
from store.gain_metrics import MetricName
from store.stats import Gain, Result


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
    """A figure before and after: the share of rows that are right, or the metric."""

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
        metric: what `gain` is in; `score` has its figures.
        level: what `p_value` had to stay below.
        refused_by: what was not passed; "" when all was.
        audit: rows asked twice, None when there was no gain to claim.
        folds, drafted: see `piar.evolve.promotion.Outcome`; 0 folds where the candidate itself was judged.
    """

    candidate: str
    against: str
    groups: int
    n: int
    fixed: int
    broke: int
    accuracy: Accuracies
    metric: MetricName
    score: Accuracies
    gain: GainJson
    p_value: float
    level: float
    guards: list[GuardJson]
    passed: bool
    refused_by: Literal["", "test", "guard", "audit"]
    reason: str
    audit: Audited | None
    folds: int
    drafted: int


class Side(TypedDict):
    """How one instruction does; `score` is by the metric."""

    accuracy: float
    macro_f1: float
    score: float


class Comparison(TypedDict, total=False):
    """Incumbent (`seed`) and standing instruction (`champion`) on the same rows; empty where there are none."""

    n: int
    groups: int
    seed: Side
    champion: Side
    metric: MetricName
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


class Revised(TypedDict):
    """What one reviser brought in all rounds.

    Attributes:
        model: its name.
        answers: questions for edits that it answered; of them could be `read`.
        asked: candidates that were asked for.
        offered: candidates in the answers.
        usable: those that could be applied and passed the gates: each met dev.
        survived: those that were not beaten there.
        won: whether the search's winner is one of them.
        refused: why others were not usable -> how many.
        shortened: what was left out of its prompts because they were longer than its window, in words.
    """

    model: str
    answers: int
    read: int
    asked: int
    offered: int
    usable: int
    survived: int
    won: bool
    refused: dict[str, int]
    shortened: list[str]


class EvolveReport(Result):
    """What `piar evolve --json` prints, and what the run keeps.

    Attributes:
        champion: the instruction that stands after the run: the proposal, or the incumbent.
        seed_instruction: the incumbent, which was to be beaten.
        proposal: the id that waits for `piar accept`, or None.
        search: the strategy, of `[evolve] search`.
        holdout: incumbent against standing instruction (`seed`, `champion`) where promotion was decided (optimistic
            given promotion): the holdout, or in cross-fitting every row under the draft that was not shown it.
        test: the same on the untouched split, against `gold` and `majority`.
        detectable: what the holdout can show, in words.
        ceiling: how often one person agrees with the truth, None where it cannot be told.
        of_one: rows whose truth is what the only person said, which tell nothing of that.
        people: how much of what people said was used; see `piar.evolve.truth.people_heard`.
        attribution: what each of its rules fixes and breaks; see `piar.evolve.finish.attribute`.
        stopped: why the search ended.
        errors: fewest errors of an instruction on the train rows of a round; None where no round was made.
        revisers: what each of them brought: the project's own, and the offline inducer beside one that reads.
        ending: how it ended, one of `piar.evolve.ending.Ending`.
        headline: what was decided, in one sentence.
        detail: the figures behind the decision.
        advice: what to do next.
        priced: whether teacher and reviser have a price; without one, `cost_usd` means nothing.
    """

    run: str
    champion: str
    seed_instruction: str
    proposal: str | None
    calls: int
    cost_usd: float
    rounds: int
    promotions: list[Tested]
    holdout: Comparison
    test: dict[str, Comparison | str]
    attribution: list[Worth]
    detectable: str
    ceiling: float | None
    stopped: str
    errors: int | None = None
    revisers: list[Revised] = Field(default_factory=list)
    ending: str = ""
    headline: str = ""
    detail: str = ""
    advice: str = ""
    people: dict[str, int] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    priced: bool = True
    of_one: int = 0
    search: SearchName = "rounds"
