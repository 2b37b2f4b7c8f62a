"""Limits of the server: `[serve]` of `piar.toml`."""

from pydantic import Field

from store.settings import Settings


class ServeSettings(Settings):
    """How much one server takes on before it says no.

    Attributes:
        host: address to listen on; others than this machine's own need a token.
        port: 0 takes a free one.
        token_env: name of the environment variable that holds a token; requests must then bear it
            (`Authorization: Bearer TOKEN`), whatever they ask for.
        allow_hosts: names that requests may be addressed to, beside this machine's own and `host`; `*` for any.
        names: what requests may call the model, beside the path that it is served from.
        rerank_query: the field that takes the query of a rerank request; by default that of the groups.
        rerank_field: the field that takes a document that is a text; by default the only other one.
        rerank_tokens: tokens that the documents of one rerank request may have together.
        second_seconds: how long a request waits for the second judge of a cascade, before its rows are for people.
        shadow_log: the file that keeps the samples to which a shadow gives another grade, in the project's folder.
        batch: samples that one forward pass judges at most.
        request_samples: samples that one request may hold.
        waiting: samples that may wait for the model; more are answered 429 with Retry-After.
        explaining: traces being written or waiting to be; more are answered 429.
        body_mb: size of a request's body.
        head_seconds: time that a client has, connected or answered, until its request's headers are there.
        body_seconds: time that a client has to send its body.
        field_characters: length of one field of a sample.
        drain_seconds: how long requests under way may take after SIGTERM.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8900, ge=0, le=65535)
    token_env: str = Field(default="", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$|^$")
    allow_hosts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    rerank_query: str = ""
    rerank_field: str = ""
    rerank_tokens: int = Field(default=262_144, ge=1)
    second_seconds: float = Field(default=20.0, gt=0)
    shadow_log: str = Field(default="shadow.jsonl", pattern=r"^[^/\\]+$")
    batch: int = Field(default=32, ge=1)
    request_samples: int = Field(default=1024, ge=1)
    waiting: int = Field(default=4096, ge=1)
    explaining: int = Field(default=32, ge=1)
    body_mb: float = Field(default=4.0, gt=0)
    head_seconds: float = Field(default=10.0, gt=0)
    body_seconds: float = Field(default=10.0, gt=0)
    field_characters: int = Field(default=20_000, ge=1)
    drain_seconds: int = Field(default=20, ge=0)
