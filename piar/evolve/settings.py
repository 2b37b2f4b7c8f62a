"""`[evolve]` and its sections, `[reviser]`: how the loop searches, what it may spend, and what must be shown."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from piar.evolve.truth import TruthMode
from piar.llm.settings import ModelSettings
from store.gain_metrics import MetricName
from store.settings import Settings


def _by_name(value: object, on: str) -> object:
    """`true` and `false`, as settings had it before strategies had names."""
    return (on if value else "none") if isinstance(value, bool) else value


Diagnose = Annotated[Literal["causes", "none"], BeforeValidator(lambda v: _by_name(v, "causes"))]
SearchName = Literal["rounds", "cross_fitted"]
Redraft = Annotated[Literal["cross_validated", "none"], BeforeValidator(lambda v: _by_name(v, "cross_validated"))]


class ReviserSettings(ModelSettings):
    """`[reviser]`: a model whose answers are longer and more varied than a judge's.

    Attributes:
        window: tokens of a prompt and its answer together that the model takes; it is shown no more evidence than fits.
            None: what a local model says of itself; of an endpoint it is learnt when it refuses a prompt as too long.
    """

    temperature: float = Field(default=0.7, ge=0, le=2)
    max_tokens: int = Field(default=4000, ge=1)
    window: int | None = Field(default=None, ge=1024)


class RevisionSettings(Settings):
    """`[evolve.revision]`: how revisions are asked for, and what they may grow to.

    Attributes:
        candidates: proposals asked for in each round.
        evidence: most samples shown in one request; None: 3,000 for the offline inducer, which counts,
            40 for a language model, which reads.
        max_rules: longest rulebook that a proposal may grow to.
        max_operations: most edits in one proposal.
        max_words: longest rule.
        max_length: longest rulebook in tokens, taken for four bytes each: every sample pays for it.
        max_examples: most worked examples that a proposal may show, taken from train; 0: examples stay as they are.
        draft: in the first round the `offline` inducer drafts one more candidate, from all rows, beside those of a
            language model; or `none`. Where the inducer is the reviser, it drafts anyway.
        diagnose: ask a language model for `causes` before it is asked for edits, one more call for each request of a
            round, or `none`. The offline inducer, which weighs evidence, is never asked.
    """

    candidates: int = 4
    evidence: int | None = None
    max_rules: int = 40
    max_operations: int = 8
    max_words: int = 60
    max_length: int = 4000
    max_examples: int = Field(default=0, ge=0)
    draft: Literal["offline", "none"] = "offline"
    diagnose: Diagnose = "causes"


class PromotionSettings(Settings):
    """`[evolve.promotion]`: what a candidate must show, and what it may not lose.

    Attributes:
        alpha: chance of a false promotion over all tests on the same holdout groups.
        metric: of a grade: `recall`, or `f1`. A loss is no harm where the incumbent's was not earned: its kappa for the
            grade is within the margin of zero (it gives the grade whatever the truth is), or the candidate's is no
            lower, shown not to be by more than the margin (it makes up by precision for what it misses).
        margin: loss of a grade's metric or a slice's accuracy that is borne, as a share (.05: five points).
        min_support: rows that a grade or slice needs to be guarded at all.
    """

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    metric: Literal["recall", "f1"] = "recall"
    margin: float = Field(default=0.05, ge=0)
    min_support: int = 30


class AuditSettings(Settings):
    """`[evolve.audit]`: what is asked again, beside the search.

    Attributes:
        items: holdout rows asked twice before a gain is claimed; a gain no larger than the share of answers that
            flipped is refused. 0: no audit.
        canary: dev rows that every run asks again, to notice an endpoint that changed. 0: no canary.
    """

    items: int = Field(default=50, ge=0)
    canary: int = Field(default=20, ge=0)


class EvolveSettings(Settings):
    """`[evolve]`: how the loop searches and what it may spend.

    Attributes:
        search: `rounds` of candidates on train and dev, of which the best one is tested on the holdout, or the
            `cross_fitted` procedure of one draft, which all labels but those of test teach; see
            `piar.evolve.cross_fitting`, to which rounds, patience, race and redraft mean nothing.
        rounds: most rounds of revision.
        patience: rounds without a better candidate after which the search ends.
        seed: of every random choice.
        truth: what is held true: `gold`, `majority` of the raters, or `votes` (soft).
        metric: what a better instruction is better in, on dev and on the holdout: `accuracy`, `qwk` (quadratic kappa)
            or `ndcg` (the order that the grades give, mean over groups); see `store.gain_metrics`.
        kept_back: share of train's groups that no reviser is shown; they join dev in driving the search. With few
            groups a reviser fits the ones it sees, and dev alone (a tenth) is too small to notice.
        train_rows: rows of train judged under a parent in one round, in whole groups.
        redraft: draft the winner once more from train and dev together, if the reviser can be shown that much and it is
            `cross_validated` that such drafts do as well, or `none`.
        race: how candidates meet dev: in `blocks`, dropping the beaten after each, or each on the `whole` of it.
        max_calls: cap on requests to teacher and reviser together, final test included.
        max_usd: cap on dollars, likewise.
        max_tokens: cap on tokens of prompts and answers together, likewise.
    """

    search: SearchName = "rounds"
    rounds: int = Field(default=8, ge=0)
    patience: int = Field(default=3, ge=1)
    seed: int = 0
    truth: TruthMode = "gold"
    metric: MetricName = "accuracy"
    kept_back: float = Field(default=0.35, ge=0, lt=1)
    train_rows: int = Field(default=4000, ge=1)
    redraft: Redraft = "cross_validated"
    race: Literal["blocks", "whole"] = "blocks"
    max_calls: int | None = None
    max_usd: float | None = None
    max_tokens: int | None = None
    revision: RevisionSettings = RevisionSettings()
    promotion: PromotionSettings = PromotionSettings()
    audit: AuditSettings = AuditSettings()
