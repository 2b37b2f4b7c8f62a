"""`[evolve]`: how the loop searches and what it may spend."""

from typing import Literal

from pydantic import Field

from piar.evolve.promotion import PromotionSettings
from piar.evolve.revision import RevisionSettings
from piar.evolve.steadiness import AuditSettings
from piar.evolve.truth import TruthMode
from store.settings import Settings

STRATEGIES = ("race", "parents", "merge")  # of `piar.evolve.selection`, by name


class EvolveSettings(Settings):
    """`[evolve]`: how the loop searches and what it may spend.

    Attributes:
        rounds: most rounds of revision.
        patience: rounds without a better candidate after which the search ends.
        seed: of every random choice.
        truth: what is held true: `gold`, `majority` of the raters, or `votes` (soft).
        kept_back: share of train's groups that no reviser is shown; they join dev in driving the search. With few
            groups a reviser fits the ones it sees, and dev alone (a tenth) is too small to notice.
        train_rows: rows of train judged under a parent in one round, in whole groups.
        redraft: draft the winner once more from train and dev together, if the reviser can be shown that much.
        race: how candidates meet dev: in `blocks`, dropping the beaten after each, or each on the `whole` of it.
        block: rows of dev between two decisions of a race; fewer when dev is small.
        parents: whose revision comes next: drawn from the `pareto` front over groups, or always the `best`.
        merge: merge two `complementary` candidates in each round, or `none`.
        max_calls: cap on requests to teacher and reviser together, final test included.
        max_usd: cap on dollars, likewise.
        max_tokens: cap on tokens of prompts and answers together, likewise.
    """

    rounds: int = Field(default=8, ge=0)
    patience: int = Field(default=3, ge=1)
    seed: int = 0
    truth: TruthMode = "gold"
    kept_back: float = Field(default=0.35, ge=0, lt=1)
    train_rows: int = Field(default=4000, ge=1)
    redraft: bool = True
    race: Literal["blocks", "whole"] = "blocks"
    block: int = Field(default=100, ge=1)
    parents: Literal["pareto", "best"] = "pareto"
    merge: Literal["complementary", "none"] = "complementary"
    max_calls: int | None = None
    max_usd: float | None = None
    max_tokens: int | None = None
    revision: RevisionSettings = RevisionSettings()
    promotion: PromotionSettings = PromotionSettings()
    audit: AuditSettings = AuditSettings()
