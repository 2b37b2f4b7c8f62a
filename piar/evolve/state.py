"""What the phases of one evolve run share: its settings, its models, its samples, its board and its pool."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from piar.evolve.promotion import PromotionSettings
from piar.evolve.resume import RunLog
from piar.evolve.revision import ReviserSettings, RevisionSettings
from piar.evolve.scoreboard import Scoreboard
from piar.evolve.steadiness import AuditSettings
from piar.evolve.truth import Truth, TruthMode
from piar.llm.base import Client
from piar.llm.cost import Budget
from piar.llm.settings import ModelSettings
from store.db import Store
from store.ids import seed_of
from store.journal import Journal
from store.settings import Settings
from store.types import Instruction, Sample, Split


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
        block: rows of dev between two decisions of a race; fewer when dev is small.
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
    block: int = Field(default=100, ge=1)
    max_calls: int | None = None
    max_usd: float | None = None
    max_tokens: int | None = None
    revision: RevisionSettings = RevisionSettings()
    promotion: PromotionSettings = PromotionSettings()
    audit: AuditSettings = AuditSettings()


@dataclass(slots=True)
class Models:
    """Who is asked, and how."""

    teacher: Client
    reviser: Client
    teacher_settings: ModelSettings = field(default_factory=ModelSettings)
    reviser_settings: ModelSettings = field(default_factory=ReviserSettings)


@dataclass(slots=True)
class Loop:
    """One run.

    Attributes:
        slices: the owner's, guarded at promotion: name -> sample ids.
        found: slices that suggest themselves, for inspection only.
        pool: the champion first, then whatever survived a race.
        reserved: calls that the rounds leave for drafting the winner anew.
        comments: what people wrote in review.
        refused: why proposals of the reviser were refused -> how many.
        errors: fewest errors that any parent made on the train rows of a round; None before the first.
    """

    store: Store
    journal: Journal
    models: Models
    settings: EvolveSettings
    board: Scoreboard
    truths: Mapping[str, Truth]
    splits: Mapping[Split, list[Sample]]
    slices: Mapping[str, frozenset[str]]
    log: RunLog
    budget: Budget
    prompts: Path | None
    pool: list[Instruction]
    reserved: int = 0
    seen: set[str] = field(default_factory=set)
    merged: set[tuple[str, str]] = field(default_factory=set)
    comments: Mapping[str, str] = field(default_factory=dict)
    found: Mapping[str, frozenset[str]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    errors: int | None = None

    @property
    def dev(self) -> list[Sample]:
        """Samples that drive the search."""
        return self.splits["dev"]

    def seed(self, *what: object) -> int:
        """The seed of one random choice."""
        return seed_of(self.settings.seed, *what)

    def best(self) -> Instruction:
        """Best mean on dev; of equals the one with fewer rules, then the earlier."""
        return max(self.pool, key=lambda i: (float(self.board.scores(i, self.dev).mean()), -len(i.rules)))
