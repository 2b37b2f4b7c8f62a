"""`[review]` of `piar.toml`."""

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from store.settings import Settings


def plain_url(url: str) -> str:
    """An address without secrets, since addresses are kept in the store.

    Raises:
        ValueError: no address of a server, or one with a user, a password or a query.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must look like https://host")
    if parts.username or parts.password or parts.query:
        raise ValueError("must hold no user, password or query; name the token's variable in token_env")
    return url.rstrip("/")


_TAKEN = {"grade", "rule", "doubt", "doubts", "evidence", "comment", "said", "annotator", "batch", "sample_key"}


class Question(Settings):
    """One more thing to ask of every row of a batch, beside the grade.

    Attributes:
        name: under which answers are kept.
        ask: what people read.
        choices: among which they choose; none: they write.
        many: more than one choice may hold.
    """

    name: str = Field(pattern=r"^[A-Za-z]\w{0,39}$")
    ask: str = ""
    choices: tuple[str, ...] = ()
    many: bool = False

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name.lower() in _TAKEN:
            raise ValueError(f"{name!r} is asked already")
        return name


class ReviewSettings(Settings):
    """`[review]` of `piar.toml`: where Label Studio is, who annotates, how batches are made.

    Attributes:
        url: address of the Label Studio server.
        token_env: name of the environment variable with a personal or legacy token.
        annotators: e-mail addresses, one project each.
        hours: size of a batch, all annotators together.
        overlap: share of the rows that several people judge.
        raters: how many people those are; fewer where fewer annotate.
        lead: who settles what is disputed; none: the annotators.
        questions: asked of every row beside the grade, in Label Studio and on sheets.
        random: share of the rows drawn at random instead of from the queue.
        checks: share of the answers that go to rows with undoubted gold.
        reasons: why rows are queued (see `piar mine`) that come first; the rest of the queue follows when they are few.
            At first those that point at wrong or ambiguous labels, since people's time is worth most there.
    """

    url: str = "http://127.0.0.1:8080"
    token_env: str = Field(default="LABEL_STUDIO_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    annotators: tuple[str, ...] = ()
    hours: float = Field(default=4.0, gt=0)
    overlap: float = Field(default=0.12, ge=0, le=1)
    raters: int = Field(default=2, ge=2)
    lead: str = ""
    questions: tuple[Question, ...] = ()
    random: float = Field(default=0.2, ge=0, le=1)
    checks: float = Field(default=0.05, ge=0, le=0.5)
    reasons: tuple[str, ...] = ("flagged by people", "suspect gold", "votes split")
    seed: int = 0

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        return plain_url(url)
