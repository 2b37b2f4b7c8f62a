"""The one protocol of every model: batch first, order kept, errors as values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from store.types import Completion, Failure, FailureClass, Usage

__all__ = [
    "Brief",
    "Client",
    "Completion",
    "Failure",
    "FailureClass",
    "Message",
    "OnCompletion",
    "Purpose",
    "Request",
    "Role",
    "Usage",
    "is_simulated",
    "template_of",
    "tokens_of",
]

if TYPE_CHECKING:
    from piar.llm.cost import Hold
    from store.task import Task
    from store.types import Instruction

TURNS = 64  # tokens of a chat's own marks
BYTES_A_TOKEN = 3  # of JSON with words in it, where nobody counts
Role = Literal["system", "user", "assistant"]
Purpose = Literal["judge", "revise", "diagnose", "write"]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, eq=False)
class Brief:
    """What the messages of judging requests spell out, for a client that reads no language.

    One object for all requests of an instruction; it is equal to itself only, so that it can name what was made of it.
    """

    task: "Task"
    instruction: "Instruction"


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model.

    Attributes:
        key: content hash of everything that shapes the answer; see `piar.judging.requests.request_key`.
        messages: the rendered chat, the part shared by all requests first.
        grades: symbols whose first-token probabilities are wanted; empty for free text.
        schema: JSON schema of the answer, for endpoints with structured output.
        max_tokens: limit of the answer, in tokens.
        temperature: 0 for the most likely answer.
        seed: for endpoints that sample reproducibly; differs by vote.
        check: says what is wrong with an answer's text, or None when it can be read. A client that can
            ask again does so once, with these words. Not part of the request's identity.
        hold: what the budget has set aside for it; a client that sends it more than once asks there before each
            attempt. Not part of the request's identity.
        purpose: what the answer is for. Not part of the request's identity.
        brief: of a judging request. The offline teacher goes by it, in whatever words the messages are; others ignore
            it. Not part of the request's identity.
    """

    key: str
    messages: tuple[Message, ...]
    grades: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 400
    temperature: float = 0.0
    seed: int = 0
    check: Callable[[str], str | None] | None = field(default=None, compare=False, repr=False)
    hold: "Hold | None" = field(default=None, compare=False, repr=False)
    purpose: Purpose = field(default="judge", compare=False)
    brief: Brief | None = field(default=None, compare=False, repr=False)


OnCompletion = Callable[[Completion], None]


@runtime_checkable
class Client(Protocol):
    """A model. Implementations: `rulebook`, `openai_api`, `vllm_engine`, `transformers_local`."""

    @property
    def model(self) -> str:
        """Name as it appears in verdicts and in request keys, e.g. `rulebook` or `openai:gpt-x`."""
        ...

    def generate(self, requests: Sequence[Request], on_completion: OnCompletion | None = None) -> list[Completion]:
        """Answer every request, in the order asked.

        A failed request becomes a Completion with `failure`; it never raises and never spoils
        the batch. `on_completion` is called once for each answer as it arrives, in any order,
        from the caller's thread; the caller makes the answer durable there. It is not called for a request
        that was never sent, which has no attempts.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed. A client that asks several at a time first lets what
                is in flight arrive and passes it to `on_completion`; the rest is not asked.
        """
        ...


def template_of(client: Client) -> str:
    """The template of the prompt before a sample: `decide` for a client that is asked typed questions."""
    return str(getattr(client, "template", "judge"))


def tokens_of(client: Client, text: str) -> int:
    """Tokens of a text, as a model in this process counts them; elsewhere, where nobody does, rather too many."""
    count: Callable[[str], int] | None = getattr(client, "tokens", None)
    return count(text) if count else -(-len(text.encode()) // BYTES_A_TOKEN)


def is_simulated(client: Client) -> bool:
    """Whether a client says of itself that no model stands behind it: it follows rules and weighs evidence."""
    return bool(getattr(client, "simulated", False))
