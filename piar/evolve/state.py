"""What the phases of one run share: its inputs, which never change, and what the search has found so far."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from piar.evolve.deal import Splits
from piar.evolve.purse import Purse
from piar.evolve.reviser import Reviser
from piar.evolve.scoreboard import Scoreboard
from piar.evolve.settings import EvolveSettings
from piar.evolve.truth import Truth
from store.db import Store
from store.ids import seed_of
from store.types import Instruction, Sample


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is given.

    Attributes:
        incumbent: the instruction to beat.
        slices: the owner's, guarded at promotion: name -> sample ids.
        noticed: slices that suggest themselves, for inspection only.
        comments: sample id -> what people wrote in review.
    """

    store: Store
    settings: EvolveSettings
    reviser: Reviser
    incumbent: Instruction
    truths: Mapping[str, Truth]
    splits: Splits
    slices: Mapping[str, frozenset[str]]
    noticed: Mapping[str, frozenset[str]]
    comments: Mapping[str, str]

    @property
    def dev(self) -> list[Sample]:
        """Samples that drive the search."""
        return self.splits["dev"]

    def seed(self, *what: object) -> int:
        """The seed of one random choice."""
        return seed_of(self.settings.seed, *what)


@dataclass(slots=True)
class Search:
    """How far the search has come.

    Attributes:
        candidates: the incumbent first, then whatever survived a race.
        seen: ids of all instructions that were ever proposed.
        merged: pairs of ids whose merge was tried.
        refused: why proposals of the reviser were refused -> how many.
        errors: fewest errors that any parent made on the train rows of a round; None before the first.
    """

    board: Scoreboard
    purse: Purse
    candidates: list[Instruction]
    seen: set[str]
    merged: set[tuple[str, str]] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    errors: int | None = None

    @property
    def rule_ids(self) -> set[str]:
        """Ids of rules that stand for something."""
        return {rule.id for instruction in self.candidates for rule in instruction.rules}
