"""The `[synth]` section of `piar.toml`."""

from pydantic import Field

from store.settings import Settings
from synth.drafts import METHODS, Method

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
