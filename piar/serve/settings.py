"""Limits of the server: `[serve]` of `piar.toml`."""

from pydantic import Field

from store.settings import Settings


class ServeSettings(Settings):
    """How much one server takes on before it says no.

    Attributes:
        host: address to listen on; there is no authentication, so others than this machine need a proxy in front.
        port: 0 takes a free one.
        batch: samples that one forward pass judges at most.
        request_samples: samples that one request may hold.
        waiting: samples that may wait for the model; more are answered 429 with Retry-After.
        explaining: traces being written or waiting to be; more are answered 429.
        body_mb: size of a request's body.
        body_seconds: time that a client has to send its body.
        field_characters: length of one field of a sample.
        drain_seconds: how long requests under way may take after SIGTERM.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8900, ge=0, le=65535)
    batch: int = Field(default=32, ge=1)
    request_samples: int = Field(default=1024, ge=1)
    waiting: int = Field(default=4096, ge=1)
    explaining: int = Field(default=32, ge=1)
    body_mb: float = Field(default=4.0, gt=0)
    body_seconds: float = Field(default=10.0, gt=0)
    field_characters: int = Field(default=20_000, ge=1)
    drain_seconds: int = Field(default=20, ge=0)
