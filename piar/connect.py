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


def _rulebook(settings: ModelSettings, _: Notice) -> Client:
    from piar.offline import RulebookClient

    return RulebookClient(**settings.extra)


def _openai(settings: ModelSettings, notice: Notice) -> Client:
    from piar.llm.openai.chat import ChatWire

    return _endpoint(settings, notice, ChatWire())


def _decisions(settings: ModelSettings, notice: Notice) -> Client:
    from piar.llm.openai.decisions import DecisionWire

    return _endpoint(settings, notice, DecisionWire(settings.shape))


def _endpoint(settings: ModelSettings, notice: Notice, wire: "Wire") -> Client:
    from piar.llm.openai.asking import Manners
    from piar.llm.openai.client import OpenAIClient
    from piar.llm.openai.transports import Endpoint

    local = is_local(settings.host)
    transport = settings.transport if settings.transport != "auto" else ("lean" if local else "openai")
    endpoint = Endpoint(
        settings.base_url or OPENAI_URL, endpoint_key(settings), settings.concurrency, settings.timeout, wire.path
    )
    manners = Manners(
        settings.attempts, settings.patience, settings.structured, settings.logprobs, settings.extra, transport, wire
    )
    return OpenAIClient(settings.name, endpoint, manners, settings.price, notice)


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
    "openai": _openai,
    "decisions": _decisions,
    "hf": _transformers,
    "vllm": _vllm,
}
