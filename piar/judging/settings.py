"""`[label]`: how samples are asked."""

from pydantic import Field

from store.settings import Settings


class LabelSettings(Settings):
    """`[label]`: how samples are asked.

    Attributes:
        votes: opinions asked of each sample; with `sure`, at most so many.
        sure: stop asking a sample once its confidence has reached this: one vote, then three, then five, up to
            `votes`. Without it every sample is asked all votes.
        vote_temperature: of the second vote on, which need some spread; the first has the model's own.
        chunk: samples handed to the client at a time.
    """

    votes: int = Field(default=1, ge=1)
    sure: float | None = Field(default=None, gt=0, le=1)
    vote_temperature: float = Field(default=0.7, ge=0, le=2)
    chunk: int = Field(default=2000, ge=1)
