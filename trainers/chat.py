"""From chats to tokens: a template may write control tokens, what people and samples wrote is plain text."""

import re
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from typing import Any

from jinja2 import TemplateError

from store.errors import PiarError
from trainers.trial import trial

Chat = Sequence[dict[str, Any]]

# For base checkpoints, which have none. It needs no token that a vocabulary could lack.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m.content }}\n\n{% endfor %}{% if add_generation_prompt %}Answer:\n{% endif %}"
)
_THINKING = re.compile(r"(<think(?:ing)?>|<thought>|<reasoning>|\[THINK\])\s*\Z")  # as providers' templates open it
_CHANNELS = ("<|start|>assistant", "<|channel|>", "<|channel|>final<|message|>")  # of harmony: the answer's is named
_DAY = date(2024, 7, 26)  # which Llama 3's template falls back to
_FORMS = {
    form: _DAY.strftime(form) for form in ("%d", "%b", "%B", "%Y", "%m", "%y", "%A", "%a", "%j", "%H", "%M", "%S")
}
ONE_DAY = (  # before a template that writes today's date: else a student would be asked otherwise tomorrow
    "{% macro strftime_now(form) %}{{ form"
    + "".join(f" | replace('{form}', '{said}')" for form, said in _FORMS.items())
    + " }}{% endmacro %}"
)
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

    A template that refuses the system role, or leaves it out, gets its text at the head of the user's; one that reads
    contents in parts gets them so. Thinking that a template opens itself is closed at once: the next token is the
    answer's.

    Raises:
        PiarError: the template cannot write these chats.
    """
    if not chats:
        return []
    plain = [[{**m, "content": _plain(m["content"], tokenizer)} for m in chat] for chat in chats]
    way = _way(tokenizer, system=any(m["role"] == "system" for chat in plain for m in chat))
    try:
        return _apply(tokenizer, [way(chat) for chat in plain])
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
    """A plain template for a tokenizer without one; of another the default, thinking off and the date fixed.

    It is saved with the tokenizer, so that all who load the student ask alike. Others' are tried out.

    Raises:
        PiarError: the template does not end, or takes more memory than any prompt needs; there are several, none of
            them the default.
    """
    if tokenizer.chat_template is None:
        ids, bos = tokenizer("a")["input_ids"], tokenizer.bos_token
        begins = bos if bos is not None and ids[:1] == [tokenizer.bos_token_id] else ""
        tokenizer.chat_template = "{{ " + repr(begins) + " }}" + PLAIN_TEMPLATE if begins else PLAIN_TEMPLATE
        return
    template = tokenizer.chat_template
    if isinstance(template, dict):
        if "default" not in template:
            raise PiarError(
                f"The model has several chat templates ({', '.join(template)}), and none is called default.",
                "Call the right one `default` in its tokenizer_config.json.",
            )
        template = template["default"]
    for word, before in (("strftime_now", ONE_DAY), ("enable_thinking", WITHOUT_THINKING)):
        if word in template and before not in template:
            template = before + template
    tokenizer.chat_template = template
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
    """The text with thinking ended that the template has begun, or the channel of the answer opened."""
    turn, channel, answer = _CHANNELS
    if channel in template and text.endswith(turn):
        return text + answer
    opened = _THINKING.search(text)
    if opened is None or opened[1] not in template:
        return text
    return f"{text[: opened.end(1)]}\n\n{opened[1][0]}/{opened[1][1:]}\n\n"


def _way(tokenizer: Any, *, system: bool) -> Callable[[Chat], Chat]:
    """The first way to write a chat that its template takes and leaves nothing of out, kept with the tokenizer.

    Args:
        system: the chat has a system message.
    """
    template = str(tokenizer.chat_template)
    found: dict[Any, Callable[[Chat], Chat]] = getattr(tokenizer, "piar_ways", {})
    if (template, system) not in found:
        words = {"system": "piarsystem", "user": "piaruser"} if system else {"user": "piaruser"}
        chat = [{"role": role, "content": word} for role, word in words.items()]
        found = {**found, (template, system): _tried(tokenizer, chat)}
        tokenizer.piar_ways = found
    return found[template, system]


def _tried(tokenizer: Any, chat: Chat) -> Callable[[Chat], Chat]:
    errors: list[Exception] = []
    for way in (_same, _folded, _in_parts, lambda chat: _in_parts(_folded(chat))):
        try:
            [text] = _apply(tokenizer, [way(chat)])
        except MemoryError as error:  # no further way may take as much
            raise _refused(error) from None
        except FAILURES as error:
            errors.append(error)
        else:
            if all(m["content"] in text for m in chat):
                return way
    raise _refused(errors[0] if errors else LookupError("it leaves out what the user says"))


def _same(chat: Chat) -> Chat:
    return chat


def _in_parts(chat: Chat) -> Chat:
    """Contents as lists of parts, as templates of models that see pictures read them."""
    return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in chat]


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
