"""`[review]` of `piar.toml`."""

from pydantic import Field

from store.settings import Settings


class ReviewSettings(Settings):
    """`[review]` of `piar.toml`: where Label Studio is, who annotates, how batches are made.

    Attributes:
        url: address of the Label Studio server.
        token_env: name of the environment variable with a personal or legacy token.
        annotators: e-mail addresses, one project each.
        hours: size of a batch, all annotators together.
        overlap: share of the rows that two people judge.
        random: share of the rows drawn at random instead of from the queue.
        checks: share of the answers that go to rows with undoubted gold.
        reasons: why rows are queued (see `piar mine`) that come first; the rest of the queue follows when they are few.
            At first those that point at wrong or ambiguous labels, since people's time is worth most there.
    """

    url: str = "http://127.0.0.1:8080"
    token_env: str = "LABEL_STUDIO_API_KEY"
    annotators: tuple[str, ...] = ()
    hours: float = Field(default=4.0, gt=0)
    overlap: float = Field(default=0.12, ge=0, le=1)
    random: float = Field(default=0.2, ge=0, le=1)
    checks: float = Field(default=0.05, ge=0, le=0.5)
    reasons: tuple[str, ...] = ("flagged by people", "suspect gold", "votes split")
    seed: int = 0
