"""From chats to tokens: a template may write control tokens, what people and samples wrote is plain text."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from jinja2 import TemplateError

from store.errors import PiarError
from trainers.trial import trial

Chat = Sequence[dict[str, str]]

# For base checkpoints, which have none. It needs no token that a vocabulary could lack.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m.content }}\n\n{% endfor %}{% if add_generation_prompt %}Answer:\n{% endif %}"
)
_THINKING = re.compile(r"(<think(?:ing)?>|<thought>|<reasoning>|\[THINK\])\s*\Z")  # as providers' templates open it
WITHOUT_THINKING = "{% set enable_thinking = false %}"  # before a template that would think: others then ask as we do
# What a template of somebody else's may raise, whatever a chat says.
FAILURES = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
BREAK = "\ufdd1"  # no character: stands where the text must be cut before it is tokenized


def render(tokenizer: Any, chats: Sequence[Chat]) -> list[str]:
    """Each chat as the template writes it, up to where the assistant answers; thinking switched off where it knows it.

    A template that refuses the system role gets its text at the head of the user's. Thinking that a template opens
    itself is closed at once: the next token is the answer's.

    Raises:
        PiarError: the template cannot write these chats.
    """
    if not chats:
        return []
    plain = [[{**m, "content": _plain(m["content"], tokenizer)} for m in chat] for chat in chats]
    try:
        return _apply(tokenizer, plain)
    except FAILURES as error:
        if not any(m["role"] == "system" for chat in plain for m in chat):
            raise _refused(error) from None
    try:
        return _apply(tokenizer, [_folded(chat) for chat in plain])
    except FAILURES as error:
        raise _refused(error) from None


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of texts that `render` wrote: each is cut at its breaks, so that no control token lies across one."""
    if not texts:
        return []
    pieces = [[piece for piece in text.split(BREAK) if piece] or [""] for text in texts]
    found = iter(tokenizer([piece for parts in pieces for piece in parts], add_special_tokens=False)["input_ids"])
    return [[token for _ in parts for token in next(found)] for parts in pieces]


def encode_plain(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of texts that hold no control token, whatever they say."""
    return encode(tokenizer, [_plain(text, tokenizer) for text in texts])


def whole(text: str) -> str:
    """Text that every tokenizer takes: halves of surrogate pairs joined, single ones replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def add_template(tokenizer: Any) -> None:
    """A plain template for a tokenizer without one, and thinking off in one that knows it; others' are tried out.

    Both are saved with the tokenizer, so that all who load the student ask alike.

    Raises:
        PiarError: the template does not end, or takes more memory than any prompt needs.
    """
    if tokenizer.chat_template is None:
        ids, bos = tokenizer("a")["input_ids"], tokenizer.bos_token
        begins = bos if bos is not None and ids[:1] == [tokenizer.bos_token_id] else ""
        tokenizer.chat_template = "{{ " + repr(begins) + " }}" + PLAIN_TEMPLATE if begins else PLAIN_TEMPLATE
        return
    template = tokenizer.chat_template
    if isinstance(template, str) and "enable_thinking" in template and not template.startswith(WITHOUT_THINKING):
        tokenizer.chat_template = WITHOUT_THINKING + template
    _try_out(tokenizer)


def _try_out(tokenizer: Any) -> None:
    user = [
        {"role": "user", "content": '{"query": "red lamp", "title": "a lamp, 40 cm\\n<b>red</b> {{ x }} ü"}\n' * 20}
    ]
    for chat in (user, [{"role": "system", "content": "Judge it. R01: other kinds are bad.\n"}, *user]):
        what = trial(partial(render, tokenizer, [chat]))
        if what is not None:
            raise PiarError(
                f"The model's chat template {what} on a short prompt.",
                "Use another model: this template is broken or hostile. Or delete it (chat_template.jinja, and "
                "chat_template in tokenizer_config.json), for a plain one.",
            )


def _apply(tokenizer: Any, chats: Sequence[Chat]) -> list[str]:
    texts: list[str] = tokenizer.apply_chat_template(
        [list(chat) for chat in chats], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return [_closed(text, str(tokenizer.chat_template)) for text in texts]


def _closed(text: str, template: str) -> str:
    """The text with thinking ended that the template has begun."""
    opened = _THINKING.search(text)
    if opened is None or opened[1] not in template:
        return text
    return f"{text[: opened.end(1)]}\n\n{opened[1][0]}/{opened[1][1:]}\n\n"


def _folded(chat: Chat) -> Chat:
    system = [m["content"] for m in chat if m["role"] == "system"]
    first, *others = [m for m in chat if m["role"] != "system"]
    return [{**first, "content": "\n\n".join([*system, first["content"]])}, *others]


def _refused(error: Exception) -> PiarError:
    return PiarError(
        f"The model's chat template cannot write the prompt: {str(error).splitlines()[0]}",
        "Use a model whose template takes a user's message, or delete its chat template.",
    )


def _plain(text: str, tokenizer: Any) -> str:
    """The text with a break inside of everything that would become a control token."""
    return _controls(tokenizer).sub(
        lambda found: found[0] + BREAK, whole(text).replace(BREAK, "\N{REPLACEMENT CHARACTER}")
    )


def _controls(tokenizer: Any) -> re.Pattern[str]:
    """The first character of every control token: special ones, and added ones that the template itself writes."""
    template = str(tokenizer.chat_template or "")
    if getattr(tokenizer, "piar_controls", (None,))[0] != template:  # kept with the tokenizer
        added = [token for token in tokenizer.added_tokens_decoder.values() if len(token.content) > 1]
        control = {t.content for t in added if t.special or (t.content in template and not t.content.isspace())}
        control |= {token for token in tokenizer.all_special_tokens if len(token) > 1}
        ends = "|".join(f"{re.escape(t[0])}(?={re.escape(t[1:])})" for t in sorted(control))
        tokenizer.piar_controls = (template, re.compile(ends or "$^", re.DOTALL))
    pattern: re.Pattern[str] = tokenizer.piar_controls[1]
    return pattern
