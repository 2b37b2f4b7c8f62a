"""What the phases of one evolve run share: its settings, its models, its samples, its board and its pool."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from piar.evolve.purse import Purse
from piar.evolve.resume import RunLog
from piar.evolve.revision import ReviserSettings
from piar.evolve.scoreboard import Scoreboard
from piar.evolve.settings import EvolveSettings
from piar.evolve.truth import Truth
from piar.judging.origin import Origin
from piar.llm.base import Client
from piar.llm.settings import ModelSettings
from store.db import Store
from store.ids import seed_of
from store.journal import Journal
from store.types import Instruction, Sample, Split


@dataclass(slots=True)
class Models:
    """Who is asked, and how."""

    teacher: Client
    reviser: Client
    teacher_settings: ModelSettings = field(default_factory=ModelSettings)
    reviser_settings: ModelSettings = field(default_factory=ReviserSettings)


def reviser_origin(store: Store, models: Models) -> Origin:
    """Where the reviser is asked, beside where it was asked before."""
    return Origin(store, f"reviser:{models.reviser.model}", models.reviser_settings, "answers")


@dataclass(slots=True)
class Loop:
    """One run.

    Attributes:
        slices: the owner's, guarded at promotion: name -> sample ids.
        found: slices that suggest themselves, for inspection only.
        pool: the champion first, then whatever survived a race.
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
    purse: Purse
    prompts: Path | None
    pool: list[Instruction]
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
