"""The `[synth]` section of `piar.toml`."""

from pydantic import Field

from store.settings import Settings
from synth.drafts import METHODS, Method

EACH = 4  # drafts in one answer of a model: of one parent three may stay, and long answers repeat or break off
_TRIES = 12  # drafts for each sample that is wanted, all methods together


class SynthSettings(Settings):
    """How thin cells are filled.

    Attributes:
        n: samples to keep at most in one run.
        thin: a cell (rule × grade × bucket) with fewer samples than this is filled up to it.
        buckets: wanted difficulty, part of the cell.
        methods: how drafts are made.
        votes: the teacher's opinions of each draft.
        agree: share of votes for the target from which a draft is kept; from half of it on it is borderline.
    """

    n: int = Field(default=200, ge=1)
    thin: int = Field(default=12, ge=1)
    buckets: tuple[str, ...] = ("easy", "mid", "hard")
    methods: tuple[Method, ...] = METHODS
    votes: int = Field(default=3, ge=1)
    agree: float = Field(default=0.99, gt=0.5, le=1)
    seed: int = 0

    def drafts(self, wanted: int) -> int:
        """Drafts that each method makes for so many samples of a cell."""
        return -(-wanted * _TRIES // len(self.methods))

    def answers(self, wanted: int) -> int:
        """Answers in which a model writes so many drafts, all methods together."""
        return -(-self.drafts(wanted) // EACH) * len(self.methods)
