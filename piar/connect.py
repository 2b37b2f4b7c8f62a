"""From a section of `piar.toml` to a model client. Nothing heavy is imported before a backend is asked for."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from piar.llm.base import Client
from piar.llm.settings import OPENAI_URL, ModelSettings, Notice, endpoint_key, is_local
from store.errors import UsageError
from store.settings import Settings
from store.task import explain

if TYPE_CHECKING:
    from piar.llm.openai.asking import Manners
    from piar.llm.openai.chat import Wire

T = TypeVar("T", bound=Settings)


def connect(settings: ModelSettings, notice: Notice = warnings.warn) -> Client:
    """The client of a model.

    Args:
        notice: told, once each, what an endpoint cannot do.

    Raises:
        PiarError: a package or a key is missing; names what to do.
    """
    return BACKENDS[settings.backend](settings, notice)


def answers_as(settings: ModelSettings) -> str:
    """The name under which a model's answers and verdicts are kept, told without a key and without loading it."""
    if settings.remote:
        from piar.llm.openai.client import answers_as

        return answers_as(settings.name, _manners(settings, wire_of(settings)))
    return connect(settings).model if settings.simulated else settings.model


def _rulebook(settings: ModelSettings, _: Notice) -> Client:
    from piar.offline import RulebookClient

    return RulebookClient(**settings.extra)


def wire_of(settings: ModelSettings) -> "Wire":
    """What is spoken with an endpoint."""
    from piar.llm.openai.chat import ChatWire
    from piar.llm.openai.decisions import DecisionWire

    return DecisionWire(settings.shape) if settings.backend == "decisions" else ChatWire()


def _manners(settings: ModelSettings, wire: "Wire") -> "Manners":
    from piar.llm.openai.asking import Manners

    transport = settings.transport
    if transport == "auto":
        transport = "lean" if is_local(settings.host) else "openai"
    return Manners(
        settings.attempts, settings.patience, settings.structured, settings.logprobs, settings.extra, transport, wire
    )


def _endpoint(settings: ModelSettings, notice: Notice) -> Client:
    from piar.llm.openai.client import OpenAIClient
    from piar.llm.openai.transports import Endpoint

    wire = wire_of(settings)
    endpoint = Endpoint(
        settings.base_url or OPENAI_URL, endpoint_key(settings), settings.concurrency, settings.timeout, wire.path
    )
    return OpenAIClient(settings.name, endpoint, _manners(settings, wire), settings.price, notice)


def _transformers(settings: ModelSettings, _: Notice) -> Client:
    from piar.llm.transformers_local import LocalOptions, TransformersClient

    return TransformersClient(settings.name, _options(LocalOptions, settings))


def _vllm(settings: ModelSettings, _: Notice) -> Client:
    from piar.llm.vllm_engine import VllmClient, VllmOptions

    return VllmClient(settings.name, _options(VllmOptions, settings))


def _options(kind: type[T], settings: ModelSettings) -> T:
    try:
        return kind.model_validate(settings.extra)
    except ValidationError as error:
        raise UsageError(f"extra of {settings.model}: {explain(error)}", "Mend that key under `extra`.") from None


BACKENDS: dict[str, Callable[[ModelSettings, Notice], Client]] = {
    "rulebook": _rulebook,
    "openai": _endpoint,
    "decisions": _endpoint,
    "hf": _transformers,
    "vllm": _vllm,
}
