"""`[label]`: how samples are asked."""

from typing import Literal

from pydantic import Field

from store.settings import Settings


class LabelSettings(Settings):
    """`[label]`: how samples are asked.

    Attributes:
        votes: opinions asked of each sample; with `sure`, at most so many.
        sure: stop asking a sample once its confidence has reached this: one vote, then three, then five, up to
            `votes`. Without it every sample is asked all votes.
        vote_temperature: of the second vote on, which need some spread; the first has the model's own.
        neighbours: labelled samples of train, those nearest to the one that is asked, that the teacher is shown beside
            it; see `piar.judging.neighbours`. The offline teacher follows rules and is shown none.
        vectors: what they are found by: hashed `words`, or the `encoder` of `[baselines]`.
        chunk: samples handed to the client at a time.
    """

    votes: int = Field(default=1, ge=1)
    sure: float | None = Field(default=None, gt=0, le=1)
    vote_temperature: float = Field(default=0.7, ge=0, le=2)
    neighbours: int = Field(default=0, ge=0, le=64)
    vectors: Literal["words", "encoder"] = "words"
    chunk: int = Field(default=2000, ge=1)

    @property
    def mark(self) -> str:
        """What a teacher's name has after its model's: with other neighbours it is another judge."""
        by = "-by-encoder" if self.vectors == "encoder" else ""
        return f"+{self.neighbours}-neighbours{by}" if self.neighbours else ""
