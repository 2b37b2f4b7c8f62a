"""A model and how to ask it: settings of `[teacher]`, `[reviser]` and `[student]`, and where keys are found."""

import os
import re
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from piar.llm.cost import Budget, Price
from store.errors import PiarError, UsageError
from store.settings import Settings

OPENAI_URL = "https://api.openai.com/v1"

OPENAI_KEY = "OPENAI_API_KEY"

LOCAL_ORIGIN = "this machine"

Notice = Callable[[str], None]


class ModelSettings(Settings):
    """A model, and how to ask it: `[teacher]`, `[reviser]`, `[student]` in `piar.toml`.

    Attributes:
        model: `rulebook`, `openai:NAME`, `decisions:NAME`, `vllm:PATH` or `hf:PATH`.
        base_url: an OpenAI-compatible endpoint; the OpenAI API when empty.
        served_by: who serves the model, part of a request's identity: by default scheme and host of `base_url`, and
            `this machine` for every address of this machine. Verdicts of another origin are not reused.
        api_key_env: the environment variable that holds the key. A key itself is never written here.
        temperature: 0 for the most likely answer.
        max_tokens: limit of an answer.
        concurrency: most requests in flight; the pace adapts below it.
        timeout: seconds for one attempt.
        attempts: times a request is sent at most; being turned away by a rate limit does not count.
        patience: seconds without any answer after which the rest of a batch fails.
        logprobs: ask for the log-probabilities of grades; false where an endpoint charges for them or fails on them.
        structured: ask for JSON by schema where the endpoint knows how; else for the trace's text format. A model of
            this process that writes edits or drafts is held to theirs.
        transport: `openai` (the package), `lean` (aiohttp alone), or `auto`: lean for this machine's own endpoints.
        shape: of a decision endpoint: `decisions`, `systemone` or `state`; `piar doctor --ask` tells which it speaks.
        extra: for `openai:` and `decisions:`, further keys of every request body; for the others, their options.
        price: dollars per million tokens; of an endpoint without one, what an answer costs is unknown.
    """

    model: str = "rulebook"
    base_url: str = ""
    served_by: str = ""
    api_key_env: str = Field(default="", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$|^$")
    temperature: float = Field(default=0.0, ge=0, le=2)
    max_tokens: int = Field(default=400, ge=1)
    concurrency: int = Field(default=64, ge=1, le=4096)
    timeout: float = Field(default=60.0, gt=0)
    attempts: int = Field(default=6, ge=1)
    patience: float = Field(default=180.0, gt=0)
    logprobs: bool = True
    structured: bool = True
    transport: Literal["auto", "openai", "lean"] = "auto"
    shape: Literal["decisions", "systemone", "state"] = "decisions"
    extra: dict[str, Any] = Field(default_factory=dict)
    price: Price = Price()

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        if not re.fullmatch(r"rulebook|(openai|decisions|vllm|hf):\S.*", model):
            raise ValueError("must be rulebook, openai:NAME, decisions:NAME, vllm:PATH or hf:PATH")
        return model

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise ValueError("must look like https://host/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("must hold no user, password or query; name the key's variable in api_key_env")
        if re.search(r"/(chat/completions|completions|decisions|systemone)/*$", parts.path):
            raise ValueError("must end before the path of a request, in most cases with /v1")
        return url.rstrip("/")

    @property
    def simulated(self) -> bool:
        """Whether no model is asked, but the offline teacher: it follows rules, and writes nothing."""
        return self.backend == "rulebook"

    @property
    def backend(self) -> str:
        """The part of `model` before the colon."""
        return self.model.partition(":")[0]

    @property
    def name(self) -> str:
        """The part of `model` after the colon."""
        return self.model.partition(":")[2]

    @property
    def priced(self) -> bool:
        """Whether it is known what an answer costs: models in this process are free, an endpoint says nothing of it."""
        needed = {"openai": {"input", "output"}, "decisions": {"input"}}.get(self.backend, set())
        return needed <= self.price.model_fields_set

    @property
    def answer_tokens(self) -> int:
        """The most that an answer takes: a decision model writes none."""
        return 0 if self.backend == "decisions" else self.max_tokens

    @property
    def remote(self) -> bool:
        """Whether an endpoint is asked."""
        return self.backend in {"openai", "decisions"}

    @property
    def sent(self) -> dict[str, Any]:
        """What goes with every request body beside the request's own keys."""
        return self.extra if self.remote else {}

    @property
    def address(self) -> str:
        """Where the model is asked; empty for a model of this process."""
        return (self.base_url or OPENAI_URL) if self.remote else ""

    @property
    def origin(self) -> str:
        """Who serves the model, as far as its verdicts are concerned; empty for a model of this process."""
        if self.served_by or not self.address:
            return self.served_by
        return LOCAL_ORIGIN if is_local(self.host) else f"{urlsplit(self.address).scheme}://{self.host}"

    @property
    def host(self) -> str | None:
        """Where samples are sent, or None when they stay on this machine's own process."""
        return urlsplit(self.base_url or OPENAI_URL).hostname if self.remote else None


def require_price(settings: ModelSettings, budget: Budget) -> None:
    """Refuse to spend up to a cap in dollars what nobody can count in dollars.

    Raises:
        UsageError: there is such a cap, and no price.
    """
    if budget.max_usd is not None and not settings.priced:
        raise UsageError(
            f"A cap in dollars needs the price of {settings.model}, and none is set: what it spends cannot be counted.",
            "Set it under its section of piar.toml, in dollars per million tokens: price = { input = 0.15, output = "
            "0.60 }, both 0 if it is free. Or cap the calls: --max-calls.",
        )


def is_local(host: str | None) -> bool:
    """Whether a host is this machine."""
    return host is None or host == "localhost" or host == "::1" or bool(re.fullmatch(r"127(\.\d+){3}", host))


def endpoint_key(settings: ModelSettings) -> str:
    """The key from the environment; may be missing only for an endpoint of one's own that names no variable."""
    name = settings.api_key_env or ("" if settings.base_url else OPENAI_KEY)
    key = os.environ.get(name, "").strip() if name else ""
    if name and not key:
        raise PiarError(f"The environment variable {name} is not set.", f"Run: export {name}=… and start again.")
    if not re.fullmatch(r"[!-~]*", key):
        raise UsageError(f"The key in {name} holds blanks or characters that no key has.", "Copy the key again.")
    if key[:1] in {'"', "'"}:
        raise UsageError(f"The key in {name} stands in quotes, which are sent with it.", "Set it without the quotes.")
    return key
